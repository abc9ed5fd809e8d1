"""A student's first hour in a real browser: JupyterLab, a wrong answer, a right one, a slider."""

import re
import socket
import subprocess
import sys
import threading
import time

import browser
import pytest

from sparselab.course import lessons

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not browser.find(), reason="no Chromium on the path, and $CHROMIUM is not set"),
]

LESSON = lessons.find("1.1", lessons.load())
WAITS = "[...document.querySelectorAll('.jp-InputPrompt')].some(prompt => prompt.textContent.includes('*'))"
RESTS = f"document.querySelector('.jp-Notebook-ExecutionIndicator').dataset.status === 'idle' && !{WAITS}"
CELLS = "[...document.querySelectorAll('.jp-Notebook .jp-Cell')]"


@pytest.fixture
def address(tmp_path):
    """The address of JupyterLab as `sparselab start` prints it, open at lesson 1.1."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "sparselab", "start", str(tmp_path / "course"), LESSON.number]
    server = subprocess.Popen(
        [*command, "--no-browser", "--port", str(port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    said, known = [], threading.Event()

    def read():
        for line in server.stdout:
            said.append(line)
            if re.search(r"http://\S+token=", line):
                known.set()

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        assert known.wait(120), "".join(said)
        yield re.search(r"http://(?:127\.0\.0\.1|localhost)\S+", "".join(said))[0]
    finally:
        server.terminate()
        server.wait(30)
        reader.join(30)
        server.stdout.close()


class Notebook:
    """The notebook on the screen; a long one is drawn in parts, so its cells are searched by scrolling."""

    def __init__(self, tab: browser.Tab):
        self.tab = tab
        tab.until(f"{CELLS}.length > 5", 120)
        tab.until("/^[1-9]/.test(document.querySelector('#jp-main-statusbar')?.textContent)", 120)  # kernels
        tab.until(RESTS, 120)

    def show(self, text: str) -> int:
        """Bring the code cell that holds `text` to the screen; its place among the cells that are drawn."""
        return self.seek(f"c.querySelector('.cm-content')?.textContent.includes({text!r})")

    def seek(self, condition: str) -> int:
        """The same for the first cell `c` of which a condition holds."""
        place = f"{CELLS}.findIndex(c => {condition})"
        scroller = "document.querySelector('.jp-Notebook .jp-WindowedPanel-outer')"
        for step in range(200):
            if (found := self.tab.js(place)) >= 0:
                self.tab.js(f"{CELLS}[{found}].scrollIntoView({{block: 'start'}})")
                time.sleep(0.3)
                return self.tab.js(place)
            self.tab.js(f"{scroller}.scrollTop = {step * 400}")
            time.sleep(0.1)
        raise AssertionError(f"there is no cell with {condition}")

    def write(self, text: str, code: str) -> None:
        """Replace the source of the cell that holds `text`, as a reader does: click, select all, type."""
        place = self.show(text)
        self.click(f"{CELLS}[{place}].querySelector('.cm-line')")
        self.tab.press("a", code=65, modifiers=2)
        self.tab.type(code)
        lines = [line for line in code.split("\n") if line.strip()]
        assert lines[-1] in self.tab.js(
            f"{CELLS}[{self.show(lines[0])}].querySelector('.cm-content').innerText"
        )

    def run(self, text: str) -> None:
        """Run one cell and wait until the kernel rests."""
        self.click(f"{CELLS}[{self.show(text)}].querySelector('.cm-line')")
        self.tab.press("Enter", code=13, modifiers=2)
        self.rest()

    def run_all(self) -> None:
        """Run > Run All Cells, by the menu."""
        self.click(
            "[...document.querySelectorAll('.lm-MenuBar-item')].find(i => i.textContent.trim() === 'Run')"
        )
        self.tab.until("document.querySelector('.lm-Menu-item[data-command=\"runmenu:run-all\"]')")
        self.click("document.querySelector('.lm-Menu-item[data-command=\"runmenu:run-all\"]')")
        self.tab.until(WAITS)
        self.rest()

    def rest(self) -> None:
        """Wait until the kernel has been idle for a while."""
        time.sleep(1)
        quiet = 0
        end = time.monotonic() + 300
        while quiet < 3:
            assert time.monotonic() < end, "the kernel is still busy"
            quiet = quiet + 1 if self.tab.js(RESTS) else 0
            time.sleep(0.4)

    def output(self, text: str) -> str:
        """What is written below the cell that holds `text`."""
        return self.tab.js(f"{CELLS}[{self.show(text)}].querySelector('.jp-Cell-outputArea').innerText")

    def click(self, element: str) -> None:
        """A click of the mouse in the middle of an element."""
        middle = "b => [b.x + Math.min(b.width / 2, 40), b.y + b.height / 2]"
        x, y = self.tab.js(f"({middle})(({element}).getBoundingClientRect())")
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.tab.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)


def test_lesson_1_1_on_the_screen(address):
    with browser.tab() as tab:
        tab.look(width=1400, height=1000)
        tab.open(address, seconds=120)
        lesson = Notebook(tab)
        first, *others = LESSON.exercises
        grade = f'grade("{first.name}", {first.function})'

        lesson.run_all()  # stops where the first exercise is needed
        assert f"{first.name}: not written yet" in lesson.output(grade)

        wrong = first.solution.replace("a[real] > 0", "a[real] >= 0")
        assert wrong != first.solution
        lesson.write(f"def {first.function}(", wrong)
        lesson.run(f"def {first.function}(")
        lesson.run(grade)
        message = lesson.output(grade)
        assert f"{first.name}, case " in message and "expected" in message

        lesson.write(f"def {first.function}(", first.solution)
        lesson.run(f"def {first.function}(")
        lesson.run(grade)
        assert re.search(rf"{first.name}: all \d+ public checks passed", lesson.output(grade))

        for exercise in others:
            lesson.write(f"def {exercise.function}(", exercise.solution)
        lesson.run_all()
        for exercise in others:
            assert "public checks passed" in lesson.output(f'grade("{exercise.name}"')

        slider = "c.querySelector('.widget-slider [role=slider]')"
        cell = f"{CELLS}[{lesson.seek(slider)}]"
        picture = f"{cell}.querySelector('.jp-OutputArea img').src"
        before = tab.js(picture)
        tab.js(f"{cell}.querySelector('[role=slider]').focus()")
        tab.press("ArrowRight", code=39)
        tab.until(f"{picture} !== {before!r}")
