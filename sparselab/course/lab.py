"""JupyterLab for a student: this interpreter, this folder, no news and no network."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from sparselab.course import workspace, writing

QUIET = {"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": True}}


def command(folder: Path, *, open_at: Path, browser: bool = True, port: int | None = None) -> list[str]:
    """The command line that serves `folder` and opens `open_at`, where a notebook is still called that."""
    page = f"/lab/tree/{open_at.relative_to(folder).as_posix()}" if open_at.exists() else "/lab"
    options = [
        f"--ServerApp.root_dir={folder.resolve()}",
        f"--LabApp.default_url={page}",
        "--LabApp.extension_manager=readonly",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
        "--LabApp.news_url=None",
        "--ServerApp.log_level=ERROR",
        "--LabApp.log_level=ERROR",
    ]
    if port is not None:
        options.append(f"--ServerApp.port={port}")
    if (
        hasattr(os, "geteuid") and os.geteuid() == 0
    ):  # in a container one is root, and Jupyter would not start
        options.append("--allow-root")
    if not browser:
        options.append("--no-browser")
    return [sys.executable, "-m", "jupyterlab", *options]


def environment(folder: Path) -> dict[str, str]:
    """This environment, in which JupyterLab shows no news and `python3` is the interpreter that runs now.

    Both are said by files in the student's folder; the settings of the user stay as they are.
    """
    from ipykernel.kernelspec import get_kernel_dict

    own = folder.resolve() / workspace.OWN / "jupyter"
    kernel = {**get_kernel_dict(["--log-level=40"]), "display_name": "Python 3"}
    for name, content in (("labconfig/page_config.json", QUIET), ("kernels/python3/kernel.json", kernel)):
        writing.write_if_new(own / name, (json.dumps(content, indent=1) + "\n").encode())
    changed = dict(os.environ)
    for variable in ("JUPYTER_CONFIG_PATH", "JUPYTER_PATH"):
        changed[variable] = os.pathsep.join(filter(None, [str(own), os.environ.get(variable)]))
    return changed


def serve(folder: Path, *, open_at: Path, browser: bool = True, port: int | None = None) -> int:
    """Become JupyterLab; the exit code, where the system cannot replace a process. ImportError without it."""
    if find_spec("jupyterlab") is None:
        raise ModuleNotFoundError("JupyterLab is not installed", name="jupyterlab")
    arguments, settings = command(folder, open_at=open_at, browser=browser, port=port), environment(folder)
    if os.name == "posix":
        sys.stdout.flush()
        os.execve(arguments[0], arguments, settings)
    return subprocess.call(arguments, env=settings)
