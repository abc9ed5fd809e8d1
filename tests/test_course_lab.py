"""JupyterLab as a student gets it: this interpreter, this folder, no news."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
from course_examples import write_course

from sparselab.course import lab, lessons, workspace

NAME = "05_pruning/02_wanda.ipynb"


@pytest.fixture
def folder(tmp_path):
    workspace.prepare(tmp_path / "my folder", lessons.load(write_course(tmp_path / "course")))
    return tmp_path / "my folder"


def test_the_command_serves_the_folder_and_opens_the_lesson(folder):
    command = lab.command(folder, open_at=folder / NAME, browser=False, port=8899)
    assert command[:3] == [sys.executable, "-m", "jupyterlab"]
    assert f"--ServerApp.root_dir={folder.resolve()}" in command
    assert f"--LabApp.default_url=/lab/tree/{NAME}" in command
    assert {"--no-browser", "--ServerApp.port=8899", "--LabApp.news_url=None"} <= set(command)
    assert "--no-browser" not in lab.command(folder, open_at=folder / NAME)
    assert "--LabApp.default_url=/lab" in lab.command(folder, open_at=folder / "renamed.ipynb")


def test_the_python3_kernel_is_this_interpreter_whatever_the_user_has(folder, tmp_path):
    bad = tmp_path / "user/kernels/python3"
    bad.mkdir(parents=True)
    (bad / "kernel.json").write_text(
        json.dumps({"argv": ["/no/python"], "display_name": "x", "language": "python"})
    )
    look = "import jupyter_client.kernelspec as k; print(k.get_kernel_spec('python3').argv[0])"
    found = {}
    for name, settings in (("user", dict(os.environ)), ("ours", lab.environment(folder))):
        settings["JUPYTER_DATA_DIR"] = str(tmp_path / "user")
        settings["JUPYTER_PREFER_ENV_PATH"] = "0"
        ran = subprocess.run(
            [sys.executable, "-c", look], env=settings, capture_output=True, text=True, check=True
        )
        found[name] = ran.stdout.strip()
    assert found == {"user": "/no/python", "ours": sys.executable}


def test_settings_are_written_once_and_inside_the_folder(folder):
    lab.environment(folder)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    lab.environment(folder)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    (config,) = (folder / ".sparselab/jupyter/labconfig").iterdir()
    assert "@jupyterlab/apputils-extension:announcements" in config.read_text()


def test_settings_of_the_user_stay_on_the_path(folder, monkeypatch):
    monkeypatch.setenv("JUPYTER_PATH", "/theirs")
    assert lab.environment(folder)["JUPYTER_PATH"].split(os.pathsep)[1:] == ["/theirs"]


def test_without_jupyterlab_the_error_names_the_module(folder, monkeypatch):
    monkeypatch.setattr(lab, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError) as caught:
        lab.serve(folder, open_at=folder / NAME)
    assert caught.value.name == "jupyterlab"


def patiently(ask, times=60):
    """The address is printed a moment before it answers."""
    for _ in range(times):
        try:
            return ask()
        except urllib.error.URLError:
            time.sleep(1)
    return ask()


@pytest.mark.slow
def test_jupyterlab_starts_without_news_and_opens_the_lesson(folder):
    """The address that `--no-browser` prints leads to the lesson, on a page without the announcements."""
    command = lab.command(folder, open_at=folder / NAME, browser=False)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    command += [f"--ServerApp.port={port}"]
    server = subprocess.Popen(command, env=lab.environment(folder), stderr=subprocess.PIPE, text=True)
    try:
        address = next(line.strip() for line in server.stderr if "http://localhost" in line)
        assert f"/lab/tree/{NAME}?token=" in address
        direct = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPCookieProcessor()
        )
        text = patiently(lambda: direct.open(address.split()[-1], timeout=60).read().decode())
        config = json.loads(
            text.split('id="jupyter-config-data"', 1)[1].split(">", 1)[1].split("</script>")[0]
        )
        assert config["disabledExtensions"] and "announcements" in json.dumps(config["disabledExtensions"])
        assert config["news"]["disabled"] is True
    finally:
        server.terminate()
        server.communicate(timeout=30)
