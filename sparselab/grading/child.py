"""The grader's side of one child: start it, ask it, and end it with everything it started."""

import builtins
import contextlib
import linecache
import math
import os
import queue
import secrets
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sparselab.grading import sandbox, wire
from sparselab.grading.sandbox import Limits
from sparselab.grading.worker import LARGEST_ANSWER

MOST_SEEN = 20  # things noticed during one call
TAIL = 300  # of what a child that could not start has printed


class Lost(RuntimeError):
    """The child is gone, or what it sends is no report; nothing that it said counts any more."""


class NotStarted(RuntimeError):
    """No child could be started: a fault of this system, not of a submission."""


class Child:
    """One worker with one submission; `with Child(...) as child:` ends it."""

    def __init__(
        self,
        files: dict[str, bytes],
        *,
        limits: Limits,
        deadline: float = math.inf,
        hidden: Sequence[Path] = (),
        container: Sequence[str] = (),
    ):
        self.limits = limits
        self.isolation: list[str] = []
        self.seen: list[str] = []
        self.documents: list[tuple[str, str, list[str], str]] = []
        self.lost = ""  # why it is gone
        self._nonce, self._number = secrets.token_hex(16), 0
        self._deadline = math.inf  # of `time.monotonic()`; starting is not the student's time
        self._folder = sandbox.fresh_folder()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  closed in `end`
        try:
            folder = Path(self._folder.name).resolve()
            line, environment = sandbox.command(
                limits, folder=folder, hidden=sandbox.hideable(hidden, folder), container=container
            )
            self._process = subprocess.Popen(
                line,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                bufsize=0,
                cwd=None if container else folder,
                env=environment,
                start_new_session=os.name == "posix",
            )
        except OSError as error:
            self._close()
            raise NotStarted(f"no child could be started: {error.strerror}") from None
        try:
            self.isolation = self._ask({"nonce": self._nonce}, limits.start_seconds)["isolation"]
        except Lost as lost:
            reason = self._complaint() or str(lost)
            self.end()
            raise NotStarted(f"no child could be started: {reason}") from None
        contents = {name: np.frombuffer(content, np.uint8) for name, content in files.items()}
        try:
            self.documents = self._ask({"files": contents}, limits.start_seconds)["documents"]
        except Lost:
            self.end()
            raise
        self._deadline = deadline

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def load(self, exercise: str, function: str, prefer: str) -> dict[str, Any]:
        """Make the student's function; what the worker says of it, or {"raised": ...}."""
        return self._ask(
            {"load": exercise, "function": function, "prefer": prefer}, self.limits.start_seconds
        )

    def call(self, exercise: str, arguments: dict[str, Any]) -> Any:
        """What the student's function returns; raises what it raised, at the student's own line, or Lost."""
        told = self._ask({"call": exercise, "arguments": arguments}, self.limits.call_seconds)
        if "raised" in told:
            raise_at(told, file=f"<{exercise}>")
        return told["returned"]

    def end(self) -> None:
        """Kill the child and all that it started."""
        self._kill()
        self._close()

    # ------------------------------------------------

    def _ask(self, message: dict[str, Any], seconds: float) -> dict[str, Any]:
        """One message and its reply within `seconds`; where none comes, Lost for this and every later one."""
        if self.lost:
            raise Lost(self.lost)
        replies: queue.SimpleQueue = queue.SimpleQueue()
        functions: list = []
        frame = wire.encode(message, functions)
        threading.Thread(target=self._exchange, args=(frame, functions, replies), daemon=True).start()
        left = self._deadline - time.monotonic()
        try:
            reply = replies.get(timeout=max(0, min(seconds, left)))
        except queue.Empty:
            what = f"{seconds:g} s" if seconds < left else f"{self.limits.total_seconds:g} s in all"
            reply = Lost(f"still running after {what}, stopped")
        if isinstance(reply, EOFError | OSError):
            reply = Lost(self._how_it_ended())
        elif isinstance(reply, wire.WireError):
            reply = Lost(f"its report is {reply}")
        elif isinstance(reply, dict) and not self._complete(reply):
            reply = Lost("its report is not complete, or not its own")
        if isinstance(reply, dict):
            self._number += 1
            self.seen += [str(line) for line in reply["seen"][:MOST_SEEN]]
            return reply
        self._kill()
        self.lost = str(reply)
        raise reply if isinstance(reply, Lost) else Lost(str(reply))

    def _complete(self, reply: dict[str, Any]) -> bool:
        kinds = {"isolation", "documents", "imports", "returned", "raised"}
        return (
            reply.get("nonce") == self._nonce
            and reply.get("number") == self._number
            and isinstance(reply.get("seen"), list)
            and len(kinds & set(reply)) == 1
        )

    def _exchange(self, frame: bytes, functions: list, replies: queue.SimpleQueue) -> None:
        try:
            while True:
                self._write(frame)
                read = wire.read_frame(self._read, most=2 * LARGEST_ANSWER)
                reply = wire.decode(*read, trusted=False)
                if not isinstance(reply, dict) or "call_back" not in reply:
                    break
                frame = wire.encode(_call_back(functions, reply))
            replies.put(reply if isinstance(reply, dict) else wire.WireError("no report"))
        except Exception as error:  # handed to the thread that waits
            replies.put(error)

    def _read(self, count: int) -> bytes:
        return os.read(self._process.stdout.fileno(), count)

    def _write(self, frame: bytes) -> None:
        left = memoryview(frame)
        while left:
            left = left[os.write(self._process.stdin.fileno(), left) :]

    def _how_it_ended(self) -> str:
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return "closed its channel without a report"
        number = -code if code < 0 else code - 128
        if number in (signal.SIGKILL, getattr(signal, "SIGXCPU", signal.SIGKILL)):
            return "was killed by the system, for its use of CPU or memory"
        try:
            return f"crashed ({signal.Signals(number).name}) without a report"
        except ValueError:
            return "ended itself without a report"

    def _complaint(self) -> str:
        self._errors.seek(0)
        text = " ".join(self._errors.read().decode("utf-8", "replace").split())
        return text[-TAIL:]

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.name == "posix":
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=5)

    def _close(self) -> None:
        process = getattr(self, "_process", None)
        for stream in (process and process.stdin, process and process.stdout, self._errors):
            if stream:
                with contextlib.suppress(OSError):
                    stream.close()
        self._folder.cleanup()


def _call_back(functions: list, request: dict[str, Any]) -> dict[str, Any]:
    try:
        return {"returned": functions[request["call_back"]](*request["args"], **request["kwargs"])}
    except Exception as error:  # the answer gave this function something it cannot take
        return {"raised": " ".join(str(error).split())[:500]}


def raise_at(told: dict[str, Any], *, file: str) -> None:
    """Raise the exception that the child told of, as if from the student's own line."""
    kinds = [getattr(builtins, str(name), None) for name in told["raised"]]
    known = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Exception)]
    name, text = str(told["raised"][0]), str(told["text"])
    kind = known[0] if known else RuntimeError
    if kind.__name__ != name and name.isidentifier():
        kind = type(name, (kind,), {})
    try:
        error = kind(text)
    except TypeError:  # such as UnicodeDecodeError, which takes more than a text
        error = RuntimeError(f"{name}: {text}")
    line = str(told["line"])
    linecache.cache[file] = (len(line), None, [line], file)
    exec(compile("raise error", file, "exec"), {"error": error})
