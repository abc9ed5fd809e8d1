"""What is installed, what is missing, and the command that mends it; runs with little more than the core."""

import importlib
import os
import platform
import re
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from sparselab.method import PACKAGE

EXTRAS = {
    "course": "lessons, training and every PyTorch path",
    "gpu": "Triton kernels, on a GPU or in its interpreter",
    "book": "building the site",
    "test": "running the tests",
    "class": "grading a class on several machines",
    "hub": "loading published checkpoints",
}


@dataclass(frozen=True)
class Finding:
    """One line of the report; `mend` is the command or the sentence that puts it right."""

    what: str
    ok: bool
    detail: str
    mend: str = ""
    required: bool = False


def examine() -> list[Finding]:
    """Every finding; an examination that itself breaks is a finding too."""
    found: list[Finding] = []
    for look in (_python, _core, _extras, _torch, _triton, _kernel, _folder, _memory, _disk):
        try:
            found += look()
        except Exception as error:  # a doctor that falls ill with the patient is no help
            found.append(Finding(look.__name__.strip("_"), False, f"{type(error).__name__}: {error}"))
    return found


def requirements() -> dict[str, list[str]]:
    """What each extra asks for, the core under "": from the project file, else from the installed package."""
    project = PACKAGE.parent / "pyproject.toml"
    if project.is_file():
        declared = tomllib.loads(project.read_text(encoding="utf-8"))["project"]
        return {"": declared["dependencies"], **declared["optional-dependencies"]}
    try:
        lines = metadata.requires("sparselab") or []
    except metadata.PackageNotFoundError:
        lines = []
    found: dict[str, list[str]] = {"": []}
    for line in lines:
        extra = re.search(r"extra == ['\"](\w+)['\"]", line)
        found.setdefault(extra[1] if extra else "", []).append(line)
    return found


def _python() -> Iterator[Finding]:
    version = platform.python_version()
    yield Finding(
        "Python", sys.version_info >= (3, 11), f"{version}, {sys.executable}",
        "install Python 3.11 or newer", required=True,
    )  # fmt: skip


def _core() -> Iterator[Finding]:
    for line in requirements()[""]:
        name, problem, version = _installed(line)
        if not problem:
            try:
                importlib.import_module(name)
            except Exception as error:
                problem = f"{version} does not import: {error}"
        mend = f'pip install --force-reinstall "{line.split(";")[0].strip()}"'
        yield Finding(name, not problem, problem or version, mend, required=True)


def _extras() -> Iterator[Finding]:
    declared = requirements()
    for extra, purpose in EXTRAS.items():
        problems = []
        for line in declared.get(extra, []):
            if "sys_platform == 'linux'" in line and sys.platform != "linux":
                continue
            name, problem, _ = _installed(line)
            if problem:
                problems.append(f"{name} {problem}")
        detail = f"{purpose}: {', '.join(problems) or 'all there'}"
        yield Finding(f"[{extra}]", not problems, detail, f'pip install "sparselab[{extra}]"')


def _torch() -> Iterator[Finding]:
    if find_spec("torch") is None:
        return
    torch = importlib.import_module("torch")
    where = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "CPU"
    yield Finding("torch", True, f"{torch.__version__} on {where}, {torch.get_num_threads()} threads")


def _triton() -> Iterator[Finding]:
    if find_spec("triton") is None or find_spec("torch") is None:
        return
    version, torch = metadata.version("triton"), importlib.import_module("torch")
    if torch.cuda.is_available():
        yield Finding("triton", True, f"{version}, kernels run on the GPU")
    elif os.environ.get("TRITON_INTERPRET") == "1":
        yield Finding("triton", True, f"{version}, kernels run in its interpreter")
    else:
        yield Finding(
            "triton", True, f"{version}; no GPU: kernels run in its interpreter, TRITON_INTERPRET=1"
        )


def _kernel() -> Iterator[Finding]:
    """The kernel that a notebook outside `sparselab start` gets; `start` brings its own."""
    if find_spec("jupyter_client") is None:
        return
    specs = importlib.import_module("jupyter_client.kernelspec")
    mend = f"{sys.executable} -m ipykernel install --sys-prefix --name python3"
    try:
        runs = specs.KernelSpecManager().get_kernel_spec("python3").argv[0]
    except specs.NoSuchKernel:
        yield Finding("kernel python3", False, "there is none", mend)
        return
    # Jupyter runs a bare `python` with the interpreter that it runs in itself.
    same = re.fullmatch(r"python[\d.]*", runs) or os.path.realpath(runs) == os.path.realpath(sys.executable)
    yield Finding(
        "kernel python3", bool(same), "runs this Python" if same else f"runs {runs}, not this Python", mend
    )


def _folder() -> Iterator[Finding]:
    here = Path.cwd()
    try:
        with tempfile.TemporaryFile(dir=here):
            yield Finding("this folder", True, f"{here} can be written")
    except OSError as error:
        yield Finding("this folder", False, f"{here}: {error.strerror}", "cd into a folder of your own")


def _memory() -> Iterator[Finding]:
    if find_spec("psutil"):
        free = importlib.import_module("psutil").virtual_memory().available
    elif "SC_AVPHYS_PAGES" in os.sysconf_names:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    else:
        return
    yield _room("free memory", free, 2, "close other programs")


def _disk() -> Iterator[Finding]:
    yield _room("free disk", shutil.disk_usage(Path.cwd()).free, 1, "delete what you no longer need")


def _room(what: str, size: int, wanted: int, mend: str) -> Finding:
    gib = size / 2**30
    return Finding(what, gib >= wanted, f"{gib:.1f} GiB; lessons want {wanted} GiB", mend)


def _installed(requirement: str) -> tuple[str, str, str]:
    """(name, what is wrong with it or nothing, version) of one requirement such as `numpy>=2.0`."""
    name = re.match(r"[\w.-]+", requirement)[0]
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return name, "is missing", ""
    for bound, wanted in re.findall(r"(>=|<)\s*([\d.]+)", requirement.split(";")[0]):
        at_least = _order(version) >= _order(wanted)
        if at_least != (bound == ">="):
            return name, f"is {version}, {bound}{wanted} is needed", version
    return name, "", version


def _order(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.split("+")[0])[:3])
