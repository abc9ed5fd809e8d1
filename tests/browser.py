"""A headless Chromium without a network, driven over its own DevTools protocol."""

import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def find() -> str | None:
    """The browser to use: $CHROMIUM, or the first on the path."""
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


class Tab:
    """One tab; `events` holds what the protocol told since the last `open`."""

    def __init__(self, socket):
        self._socket, self._last, self.events = socket, 0, []
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **arguments) -> dict[str, Any]:
        """Send one command and wait for its answer; RuntimeError says what the browser refused."""
        self._last += 1
        self._socket.send(json.dumps({"id": self._last, "method": method, "params": arguments}))
        while True:
            message = json.loads(self._socket.recv())
            if message.get("id") == self._last:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']['message']}")
                return message["result"]
            self.events.append(message)

    def js(self, expression: str) -> Any:
        """The value of an expression, promises awaited; RuntimeError for an exception in the page."""
        found = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in found:
            details = found["exceptionDetails"]
            raise RuntimeError(details.get("exception", {}).get("description", details["text"]))
        return found["result"].get("value")

    def open(self, url: str, *, seconds: float = 60) -> None:
        """Go there and wait until the page is loaded and its formulas are set."""
        self.events.clear()
        self.call("Page.navigate", url=url)
        self.until(
            f"document.readyState === 'complete' && location.href !== 'about:blank' && ({SETTLED})", seconds
        )

    def until(self, condition: str, seconds: float = 60) -> None:
        """Wait until a JavaScript value, or what a promise brings, is true; TimeoutError names it."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                if self.js(f"Promise.resolve({condition}).then(Boolean)"):
                    return
            except RuntimeError:  # the page that was asked is being replaced
                pass
            time.sleep(0.1)
        raise TimeoutError(f"not within {seconds} s: {condition}")

    def look(self, *, width: int = 1280, height: int = 800, dark: bool = False) -> None:
        """The window's size and the colours that the reader's system prefers."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=width < 600,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def picture(self, file: Path, *, whole: bool = False) -> None:
        """A PNG of what is seen, or of the whole page."""
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        file.write_bytes(base64.b64decode(shot["data"]))

    def type(self, text: str) -> None:
        """Write text where the focus is."""
        self.call("Input.insertText", text=text)

    def press(self, key: str, *, code: int, modifiers: int = 0) -> None:
        """Press one key; modifiers: 2 control, 8 shift."""
        for kind in ("rawKeyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                code=key,
                windowsVirtualKeyCode=code,
                modifiers=modifiers,
            )

    def requests(self) -> list[str]:
        """Every address that was asked for since `open`."""
        sent = [e["params"] for e in self.events if e["method"] == "Network.requestWillBeSent"]
        return [one["request"]["url"] for one in sent]

    def complaints(self) -> list[str]:
        """Errors and warnings of the console, exceptions, and requests that failed since `open`."""
        found, asked = [], {}
        for event in self.events:
            what, told = event["method"], event.get("params", {})
            if what == "Network.requestWillBeSent":
                asked[told["requestId"]] = told["request"]["url"]
            elif what == "Network.loadingFailed" and not told.get("canceled"):
                found.append(f"{asked.get(told['requestId'])}: {told['errorText']}")
            elif what == "Runtime.exceptionThrown":
                found.append(told["exceptionDetails"].get("exception", {}).get("description", "exception"))
            elif what == "Runtime.consoleAPICalled" and told["type"] in {"error", "warning", "assert"}:
                found.append(" ".join(str(arg.get("value", arg.get("description"))) for arg in told["args"]))
            elif what == "Log.entryAdded" and told["entry"]["level"] in {"error", "warning"}:
                found.append(f"{told['entry']['text']} {told['entry'].get('url', '')}".strip())
        return found


SETTLED = (
    "!document.querySelector('.math') || "
    "(window.MathJax?.startup?.promise?.then(() => true) ?? Promise.resolve(false))"
)


@contextmanager
def tab(*, offline: bool = True) -> Iterator[Tab]:
    """A new browser with one tab and a profile of its own; offline, no name resolves but this machine's."""
    import websocket

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [
            find(), "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
            "--no-first-run", "--disable-background-networking", "--disable-component-update",
            "--disable-sync", "--disable-extensions", "--remote-debugging-port=0",
            "--remote-allow-origins=*", f"--user-data-dir={profile}",
        ]  # fmt: skip
        if offline:
            command.append("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost")
        browser = subprocess.Popen(
            [*command, "about:blank"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            port = _port(Path(profile) / "DevToolsActivePort", browser)
            address = _first_page(port)
            socket = websocket.create_connection(address, timeout=120)
            try:
                yield Tab(socket)
            finally:
                socket.close()
        finally:
            browser.terminate()
            try:
                browser.wait(10)
            except subprocess.TimeoutExpired:
                browser.kill()
                browser.wait()


def _port(file: Path, browser: subprocess.Popen) -> int:
    end = time.monotonic() + 60
    while time.monotonic() < end and browser.poll() is None:
        if file.exists() and (lines := file.read_text().splitlines()):
            return int(lines[0])
        time.sleep(0.1)
    raise RuntimeError(f"the browser did not start within 60 s (exit code {browser.poll()})")


def _first_page(port: int) -> str:
    import urllib.request

    with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=60) as answer:
        pages = [page for page in json.load(answer) if page["type"] == "page"]
    return pages[0]["webSocketDebuggerUrl"]
