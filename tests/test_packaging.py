"""What is installed is what is declared, in every place that declares it."""

import re
import subprocess
import sys
import tomllib
import zipfile

import pytest
import yaml

from sparselab import __version__
from sparselab.method import PACKAGE

ROOT = PACKAGE.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
ON_CONDA = {"torch": "pytorch"}


def declared(*extras: str) -> set[str]:
    requirements = [
        *PROJECT["dependencies"],
        *(r for e in extras for r in PROJECT["optional-dependencies"][e]),
    ]
    return {r.split(";")[0].strip() for r in requirements}


def test_conda_and_pip_ask_for_the_same():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    listed = {d for d in environment["dependencies"] if isinstance(d, str)} - {"pip"}
    listed.remove(f"python{PROJECT['requires-python']}")
    expected = {re.sub(r"^[\w-]+", lambda m: ON_CONDA.get(m[0], m[0]), r) for r in declared("course")}
    assert listed == expected


def test_constraints_pin_every_requirement_inside_its_range():
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    pins = {canonicalize_name(name): version for name, version in pins.items()}
    for text in declared("course", "book", "test", "gpu"):
        requirement = Requirement(text)
        version = pins.get(canonicalize_name(requirement.name))
        assert version, f"{requirement.name} is not pinned"
        assert requirement.specifier.contains(version, prereleases=True), f"{text} excludes {version}"


def test_the_version_stands_once():
    assert PROJECT["version"] == __version__


@pytest.mark.slow
def test_the_wheel_carries_lessons_solutions_weights_and_results(tmp_path):
    """`pip install "sparselab[course]" && sparselab start` works without the repository."""
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())

    def carried(folder: str, prefix: str) -> None:
        files = {p.relative_to(ROOT / folder).as_posix() for p in (ROOT / folder).rglob("*") if p.is_file()}
        files = {f for f in files if "__pycache__" not in f and not f.split("/")[-1].startswith(".")}
        assert files, folder
        assert {f"{prefix}/{f}" for f in files} <= names

    carried("chapters", "sparselab/_course/chapters")
    carried("solutions", "sparselab/_course/solutions")
    carried("book/results", "sparselab/_course/results")
    carried("sparselab/models/weights", "sparselab/models/weights")

    target = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(target)
    start = "from sparselab.cli import app; app()"
    made = subprocess.run(
        [sys.executable, "-c", start, "start", str(tmp_path / "mine"), "--no-lab"],
        env={"PYTHONPATH": str(target), "PATH": ""}, cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert made.returncode == 0, made.stdout + made.stderr
    sources = {
        p.with_suffix(".ipynb").relative_to(ROOT / "chapters") for p in (ROOT / "chapters").glob("*/*.py")
    }
    assert sources == {p.relative_to(tmp_path / "mine") for p in (tmp_path / "mine").glob("*/*.ipynb")}
