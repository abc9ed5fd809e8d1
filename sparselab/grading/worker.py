"""The child: reads the submission, then calls its functions on the arguments it is sent, until it is ended.

Nothing here knows an answer. The channel to the grader is moved away from stdin and stdout before any of the
student's code runs; what that code prints goes nowhere.

    {"files": {name: bytes}, "exercises": {exercise: function}}  ->  lessons, mentioned exercises, problems
    {"load": exercise, "function": f, "prefer": lesson}          ->  what it imports, notes, or why not
    {"call": exercise, "arguments": {...}}                       ->  what it returned or raised
"""

import functools
import inspect
import json
import linecache
import os
import sys
import traceback
from collections.abc import Callable
from importlib.machinery import PathFinder
from typing import Any

from sparselab import judge
from sparselab.grading import submission, wire

LARGEST_ANSWER = 4 << 20
LONGEST_MESSAGE = 500
PACKAGE = os.path.dirname(judge.__file__)
WATCHED = {"reference", "fast", "loops", "kernel", "checks"}  # of a method: modules that hold an answer


class Channel:
    """The two pipes to the grader."""

    def __init__(self):
        self.incoming, self.outgoing = os.dup(0), os.dup(1)
        nowhere = os.open(os.devnull, os.O_RDWR)
        for handle in (0, 1, 2):
            os.dup2(nowhere, handle)

    def receive(self) -> Any:
        frame = wire.read_frame(lambda n: os.read(self.incoming, n), most=wire.LARGEST)
        return wire.decode(*frame, call=self.call_back, trusted=True)

    def send(self, message: Any) -> None:
        left = memoryview(wire.encode(message, most=LARGEST_ANSWER))
        while left:
            left = left[os.write(self.outgoing, left) :]

    def call_back(self, function: int, arguments: dict) -> Any:
        """A function among the arguments lives in the grader; this is how the answer calls it."""
        self.send({"call_back": function, **arguments})
        told = self.receive()
        if "raised" in told:
            raise ValueError(told["raised"])
        return told["returned"]


def main() -> None:
    channel = Channel()
    hello = channel.receive()
    watch = Watch()
    documents: list[submission.Document] = []
    functions: dict[str, Callable] = {}

    def answer(request: dict) -> dict:
        if "files" in request:
            contents = {name: bytes(content) for name, content in request["files"].items()}
            documents[:] = [submission.read(name, content) for name, content in contents.items()]
            return {"documents": [(d.name, d.lesson, sorted(d.mentioned), d.problem) for d in documents]}
        if "load" in request:
            exercise = request["load"]
            found = submission.find(documents, exercise, request["function"], prefer=request["prefer"])
            functions[exercise] = watch(lambda: _made(found))
            return {"imports": list(found.imports), "notes": list(found.notes)}
        return watch(lambda: _called(functions[request["call"]], request["arguments"]))

    for number in range(sys.maxsize):
        stamp = {"nonce": hello["nonce"], "number": number}
        try:
            request = channel.receive() if number else hello
        except EOFError:
            os._exit(0)
        try:
            told = answer(request) if number else {"isolation": json.loads(sys.argv[1])}
            channel.send(told | stamp | {"seen": watch.take()})
        except BaseException as error:
            channel.send(_raised(error) | stamp | {"seen": watch.take()})


def _made(found: submission.Answer) -> Callable:
    """The student's function, from running its imports, helpers and constants."""
    name = f"<{found.file}>"
    linecache.cache[name] = (len(found.text), None, found.text.splitlines(True), name)
    module = type(sys)("submission")
    sys.modules["submission"] = module
    exec(compile(found.module, name, "exec", dont_inherit=True), module.__dict__)
    function = vars(module)[found.function]
    if not inspect.isroutine(inspect.unwrap(function)):
        raise TypeError(f"{found.function} is no function any more")
    return function


def _called(function: Callable, arguments: dict[str, Any]) -> dict:
    got = judge.outcome(function, arguments)
    return _raised(got.error) if isinstance(got, judge.Raised) else {"returned": got}


def _raised(error: BaseException) -> dict:
    """Type, message and the student's own line of an exception, whatever it does to defend itself."""
    try:
        text = " ".join(str(error).split())[:LONGEST_MESSAGE]
    except BaseException:
        text = "(its message cannot be read)"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith("<")]
    line = frames[-1].line if frames else ""
    return {
        "raised": [kind.__name__ for kind in type(error).__mro__],
        "text": text,
        "line": (line or "")[:200],
    }


# ---------------------------------------------------------------- what a grader should know


class Watch:
    """Notes what student code reaches for. It runs beside that code and can be fooled; it is no wall."""

    EVENTS = {
        "subprocess.Popen": "started a process",
        "os.system": "started a process",
        "os.fork": "started a process",
        "os.exec": "started a process",
        "os.posix_spawn": "started a process",
        "socket.connect": "opened a connection",
        "ctypes.dlopen": "loaded a library by ctypes",
        "gc.get_objects": "looked through the memory of the process",
    }

    def __init__(self):
        self.seen: list[str] = []
        self.armed = False
        sys.meta_path.insert(0, self)
        sys.addaudithook(self._hear)

    def __call__(self, run: Callable[[], Any]) -> Any:
        self.armed = True
        try:
            return run()
        finally:
            self.armed = False

    def take(self) -> list[str]:
        """What was noted since the last reply."""
        seen, self.seen = self.seen, []
        return seen

    def note(self, what: str) -> None:
        if self.armed and what not in self.seen:
            self.seen.append(what)

    def _hear(self, event: str, arguments: tuple) -> None:
        if self.armed and event in self.EVENTS and _asked_by_the_student():
            self.note(self.EVENTS[event])

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """Importing a module that holds an answer goes on, with each of its functions telling when called."""
        parts = name.split(".")
        if len(parts) != 4 or parts[0] != "sparselab" or parts[3] not in WATCHED:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec and spec.loader:
            if parts[3] == "checks":
                self.note(f"imported {name}")
            run = spec.loader.exec_module
            spec.loader.exec_module = lambda module: (run(module), self._tell(module))[0]
        return spec

    def _tell(self, module: Any) -> None:
        for name, function in list(vars(module).items()):
            if inspect.isfunction(function) and function.__module__ == module.__name__:
                setattr(module, name, self._telling(function, f"called {module.__name__}.{name}"))

    def _telling(self, function: Callable, what: str) -> Callable:
        @functools.wraps(function)
        def told(*args, **kwargs):
            if not sys._getframe(1).f_code.co_filename.startswith(PACKAGE):  # its modules call each other
                self.note(what)
            return function(*args, **kwargs)

        return told


def _asked_by_the_student() -> bool:
    """True where the student's own line is on the stack with no import between: libraries load libraries."""
    frame = sys._getframe()
    while frame := frame.f_back:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return False
        if frame.f_code.co_filename.startswith("<"):
            return True
    return False


if __name__ == "__main__":
    main()
