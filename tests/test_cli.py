"""The command line as a user meets it: one clear line for what can be mended, nothing heavy at the door."""

import json
import os
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest
from course_examples import write_course
from typer.testing import CliRunner

from sparselab import __version__, cli, doctor
from sparselab.course import lessons, workspace
from sparselab.method import methods

BLOCK = """
import sys
import typer.rich_utils  # so that nothing is imported late that a blocked name could disturb

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Block())
for name in [name for name in sys.modules if name.split(".")[0] in {blocked}]:
    del sys.modules[name]
from sparselab.__main__ import main
main()
"""


def run(*arguments, blocked=(), cwd=None, **environment):
    """A command in its own process, with modules that cannot be imported."""
    start = ["-c", BLOCK.format(blocked=set(blocked))] if blocked else ["-m", "sparselab"]
    settings = {**os.environ, "COLUMNS": "200", **environment}
    settings.pop("SPARSELAB_DEBUG", None) if "SPARSELAB_DEBUG" not in environment else None
    return subprocess.run(
        [sys.executable, *start, *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=settings,
        timeout=300,
    )


def one_line(ran, code):
    """The line on stderr of a command that ended as it should."""
    assert ran.returncode == code, (ran.stdout, ran.stderr)
    assert ran.stderr.count("\n") == 1 and "Traceback" not in ran.stderr + ran.stdout, ran.stderr
    return ran.stderr


@pytest.fixture
def course(tmp_path, monkeypatch):
    """The commands see a small course in place of the real one."""
    root = write_course(tmp_path / "course")
    load = lessons.load
    monkeypatch.setattr(lessons, "load", lambda *_, **options: load(root, **options))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return root


def invoke(*arguments):
    return CliRunner().invoke(cli.app, arguments)


# ---------------------------------------------------------------- the door


def test_the_package_runs_as_a_module():
    ran = run("version")
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, f"{__version__}\n", "")


def test_nothing_heavy_is_imported_at_the_door():
    look = "import sys, sparselab.cli; print(*{name.split('.')[0] for name in sys.modules})"
    ran = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    heavy = {
        "numpy",
        "torch",
        "matplotlib",
        "jupyterlab",
        "jupyter_client",
        "nbformat",
        "nbclient",
        "jupytext",
    }
    assert not heavy & set(ran.stdout.split())
    assert "typer" in ran.stdout.split()  # the list can name what is there


def test_every_command_has_help_with_an_example():
    commands = {command.name or command.callback.__name__ for command in cli.app.registered_commands}
    assert commands >= {
        "start",
        "list",
        "train",
        "bench",
        "claim",
        "audit",
        "build",
        "book",
        "doctor",
        "version",
    }
    for command in commands:
        shown = invoke(command, "--help")
        assert shown.exit_code == 0 and f"Example: sparselab {command}" in shown.output, command


def test_without_arguments_the_help_is_shown():
    assert "Usage" in run().stdout


# ---------------------------------------------------------------- errors that the user can mend


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["strat"], "'start'"),
        (["start", "--prot", "3"], "--port"),
        (["start", "--port", "0"], "'--port'"),
        (["train"], "Missing argument"),
        (["train", "nope"], "no recipe is called 'nope'"),
        (["audit", "wandda"], "did you mean 'wanda'"),
        (["claim", "wandda"], "did you mean 'wanda'"),
    ],
)
def test_a_name_that_does_not_exist_is_one_line_with_the_nearest(arguments, says):
    ran = invoke(*arguments)
    assert (ran.exit_code, ran.stdout, ran.stderr.count("\n")) == (2, "", 1) and says in ran.stderr


@pytest.mark.slow
def test_a_process_says_its_one_line_on_stderr():
    assert "'start'" in one_line(run("strat"), 2)
    assert "did you mean 'wanda'" in one_line(run("audit", "wandda"), 2)


def test_an_unknown_lesson_names_the_nearest(course):
    ran = invoke("start", "mine", "wandda", "--no-lab")
    assert (ran.exit_code, ran.stderr) == (2, "no lesson is called 'wandda'; did you mean 'wanda'?\n")


def test_a_lesson_in_the_place_of_the_folder_is_explained(course):
    ran = invoke("start", "5.2", "--no-lab")
    assert (ran.exit_code, ran.stderr.count("\n")) == (2, 1) and "sparselab-course 5.2" in ran.stderr


def test_a_folder_that_is_a_file_is_one_line(course, tmp_path):
    (tmp_path / "mine").write_text("x")
    ran = invoke("start", "mine", "--no-lab")
    assert (ran.exit_code, ran.stderr.count("\n")) == (2, 1) and "is a file" in ran.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="needs a folder that nobody can write")
def test_a_folder_that_cannot_be_made_is_one_line(course):
    ran = invoke("start", "/proc/none/mine", "--no-lab")
    assert (ran.exit_code, ran.stderr.count("\n")) == (2, 1) and "/proc/none" in ran.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments, module, extra",
    [
        (["train", "lm"], "torch", "course"),
        (["build"], "nbclient", "course"),
        (["start", "mine"], "jupyterlab", "course"),
    ],
)
def test_a_missing_extra_is_named_with_its_command(tmp_path, arguments, module, extra):
    said = one_line(run(*arguments, blocked={module}, cwd=tmp_path), 2)
    assert said == f'{module} is not installed: pip install "sparselab[{extra}]"\n'


def failing(error):
    def fail(*_, **__):
        raise error

    return fail


@pytest.mark.parametrize(
    "error, code, says",
    [
        (ValueError("keep=5 exceeds\n4 blocks"), 2, "keep=5 exceeds 4 blocks\n"),
        (FileNotFoundError(2, "No such file or directory", "/a/b"), 2, "No such file or directory: /a/b\n"),
        (PermissionError(13, "Permission denied", "/a/b"), 2, "Permission denied: /a/b\n"),
        (OSError(28, "No space left on device"), 2, "No space left on device\n"),
        (FileNotFoundError("no lessons here"), 2, "no lessons here\n"),
        (ImportError("no GPU: use fast"), 2, "no GPU: use fast\n"),
        (ModuleNotFoundError("No module named 'triton'", name="triton.language"), 2,
         'triton is not installed: pip install "sparselab[gpu]"\n'),
        (KeyboardInterrupt(), 1, "stopped; what was finished is kept\n"),
    ],
)  # fmt: skip
def test_an_error_is_one_line(course, monkeypatch, error, code, says):
    monkeypatch.setattr(workspace, "prepare", failing(error))
    ran = invoke("start", "mine", "--no-lab")
    assert (ran.exit_code, ran.stderr, ran.stdout) == (code, says, "")


def test_debug_shows_where_an_error_came_from(course, monkeypatch):
    monkeypatch.setattr(workspace, "prepare", failing(ValueError("keep=5")))
    monkeypatch.setenv("SPARSELAB_DEBUG", "1")
    ran = invoke("start", "mine", "--no-lab")
    assert ran.exit_code == 2 and "Traceback" in ran.stderr and ran.stderr.endswith("\nkeep=5\n")


@pytest.mark.parametrize("error", [KeyError("x"), ModuleNotFoundError("x", name="sparselab.gone")])
def test_a_defect_keeps_its_traceback_and_asks_for_a_report(course, monkeypatch, error):
    monkeypatch.setattr(workspace, "prepare", failing(error))
    ran = invoke("start", "mine", "--no-lab")
    assert ran.exit_code == 1 and "Traceback" in ran.stderr and "please report it" in ran.stderr


# ---------------------------------------------------------------- what the commands do


def test_start_prepares_the_folder_and_says_what_it_did(course, tmp_path):
    ran = invoke("start", "mine", "--no-lab")
    assert (ran.exit_code, ran.stdout) == (0, "1 lesson in mine\n")
    notebook = tmp_path / "mine/05_pruning/02_wanda.ipynb"
    notebook.write_text("")
    ran = invoke("start", "mine", "--no-lab")
    assert ran.stdout.startswith(
        "05_pruning/02_wanda.ipynb: the file is empty; it is now 02_wanda.damaged.ipynb"
    )


def test_start_opens_the_lesson_that_is_named(course, monkeypatch, tmp_path):
    from sparselab.course import lab

    asked = {}
    monkeypatch.setattr(lab, "serve", lambda folder, **how: asked.update(folder=folder, **how) or 3)
    ran = invoke("start", "mine", "wanda", "--no-browser", "--port", "8899")
    assert ran.exit_code == 3
    assert asked["open_at"] == workspace.path_of(asked["folder"], lessons.load()[0])
    assert (asked["browser"], asked["port"]) == (False, 8899)


def test_list_shows_lessons_and_methods(course):
    ran = invoke("list")
    assert "Weights and inputs" in ran.stdout and "pruning/wanda" in ran.stdout


def test_list_breaks_no_arxiv_number_in_a_narrow_terminal(course, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    shown = invoke("list").stdout
    assert all(m.paper in shown for m in methods() if m.paper.startswith("arXiv"))


def test_build_check_names_what_is_out_of_date(course, monkeypatch):
    from sparselab.course import build

    monkeypatch.setattr(build, "default_root", lambda: course)
    ran = invoke("build", "--check")
    assert ran.exit_code == 1 and ran.stdout.endswith("02_wanda.ipynb: missing\n")
    monkeypatch.setattr(build, "stale", list)
    assert invoke("build", "--check").exit_code == 0


def test_audit_judges_the_lessons_own_solution_and_stub(course, monkeypatch):
    from sparselab import audit, files

    monkeypatch.setattr(files, "root", lambda: course)
    seen = {}

    def gate(method, op, *, solution=None, stub=None):
        seen[op] = (solution, stub)
        return audit.Audit(f"{method.name}.{op}", faults=("a fault",) if op == "mask" else ())

    monkeypatch.setattr(audit, "audit", gate)
    ran = invoke("audit", "wanda")
    assert ran.exit_code == 1 and "ok   wanda.score" in ran.stdout and "FAIL wanda.mask" in ran.stdout
    assert [function.__name__ for function in seen["score"]] == ["score", "score"]
    assert seen["mask"] == (None, None)


@pytest.mark.parametrize("held, code, said", [(3, 0, "holds"), (2, 1, "holds in 2 of 3 seeds, against its")])
def test_claim_measures_and_says_whether_it_holds(course, monkeypatch, held, code, said):
    from sparselab import claims

    row = dict(text="wins", median=1.0, low=0.5, high=2.0, target=">= 0.9", seeds_that_hold=held)
    monkeypatch.setattr(claims, "measure", lambda method, seeds: {"method": method.name, "claims": [row]})
    monkeypatch.setattr(claims, "save", lambda *_: None)
    ran = invoke("claim", "wanda")
    assert ran.exit_code == code and f"wanda: wins: 1 (0.5 to 2), target >= 0.9: {said}" in ran.stdout


@pytest.mark.parametrize("step, code", [(9, 0), (4, 1)])
def test_train_passes_its_options_on_and_says_where_it_stopped(course, monkeypatch, tmp_path, step, code):
    from sparselab import train

    asked, exported = {}, []

    def trained(name, **options):
        asked.update(name=name, **options)
        return train.Outcome(tmp_path, step, 9, [(step, 1.0, 2.0)])

    monkeypatch.setattr(train, "run", trained)
    monkeypatch.setattr(train, "export", lambda *where: exported.append(where))
    ran = invoke("train", "lm", "--out", "run", "--steps", "9", "--seed", "3", "--resume", "--weights", "w")
    assert (ran.exit_code, ran.stdout) == (code, f"step {step} of 9, held-out loss 2.000, in {tmp_path}\n")
    assert asked == dict(
        name="lm", out=Path("run"), steps=9, seed=3, resume=True, restart=False, progress=True
    )
    assert exported == ([(tmp_path, Path("w"))] if code == 0 else [])


def test_bench_and_book_pass_their_options_on(course, monkeypatch):
    from sparselab import bench, book

    asked = {}
    monkeypatch.setattr(bench, "run", lambda names, **options: asked.update(names=names, **options))
    monkeypatch.setattr(book, "build", lambda: Path("site/index.html"))
    ran = invoke("bench", "wanda", "--device", "cuda", "--threads", "1", "--json", "x.json")
    assert ran.exit_code == 0
    assert asked == dict(names=["wanda"], device="cuda", threads=1, json=Path("x.json"))
    assert invoke("book").stdout == "site/index.html\n"


# ---------------------------------------------------------------- the doctor


def findings():
    return {finding.what: finding for finding in doctor.examine()}


def test_a_healthy_core_is_healthy():
    found = findings()
    assert {"Python", "numpy", "jaxtyping", "typer", "rich", "[course]", "this folder", "free disk"} <= set(
        found
    )
    assert all(finding.ok for finding in found.values() if finding.required)
    assert sum(finding.required for finding in found.values()) == 5


@pytest.mark.slow
def test_the_doctor_runs_without_torch_and_the_course():
    blocked = {"torch", "triton", "jupyter_client", "psutil", "matplotlib"}
    ran = run("doctor", blocked=blocked)
    assert ran.returncode == 0 and "Traceback" not in ran.stderr and "numpy" in ran.stdout


@pytest.mark.slow
def test_the_doctor_is_polite_without_numpy():
    ran = run("doctor", blocked={"numpy"})
    assert ran.returncode == 1 and "Traceback" not in ran.stdout + ran.stderr
    assert 'numpy: pip install --force-reinstall "numpy>=2.0"' in ran.stdout


def test_missing_and_old_packages_are_named_with_the_command(monkeypatch):
    versions = {"torch": "2.8.9+cpu", "jupyter-book": "2.1.7"}
    real = doctor.metadata.version

    def version(name):
        if name == "nbclient":
            raise doctor.metadata.PackageNotFoundError(name)
        return versions.get(name) or real(name)

    monkeypatch.setattr(doctor.metadata, "version", version)
    found = findings()
    assert "torch is 2.8.9+cpu, >=2.9 is needed" in found["[course]"].detail
    assert "nbclient is missing" in found["[course]"].detail
    assert found["[course]"].mend == 'pip install "sparselab[course]"' and not found["[course]"].required
    assert "jupyter-book is 2.1.7, <2 is needed" in found["[book]"].detail


def test_requirements_come_from_the_installed_package_too(monkeypatch, tmp_path):
    declared = doctor.requirements()
    monkeypatch.setattr(doctor, "PACKAGE", tmp_path / "site-packages/sparselab")
    installed = doctor.requirements()
    names = {extra: {doctor._installed(line)[0] for line in lines} for extra, lines in installed.items()}
    assert {
        extra: {doctor._installed(line)[0] for line in lines} for extra, lines in declared.items()
    } == names


@pytest.mark.parametrize(
    "argv, ok",
    [
        ([sys.executable], True),
        (["python"], True),
        (["python3.11"], True),
        (["/no/python"], False),
        (None, False),
    ],
)
def test_the_kernel_must_run_this_interpreter(tmp_path, monkeypatch, argv, ok):
    if argv:
        (tmp_path / "kernels/python3").mkdir(parents=True)
        kernel = {"argv": argv, "display_name": "Python 3", "language": "python"}
        (tmp_path / "kernels/python3/kernel.json").write_text(json.dumps(kernel))
        monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    else:
        from jupyter_client import kernelspec

        monkeypatch.setattr(
            kernelspec.KernelSpecManager, "get_kernel_spec", failing(kernelspec.NoSuchKernel("x"))
        )
    found = findings()["kernel python3"]
    assert found.ok == ok and found.mend.startswith(sys.executable)


def test_little_memory_and_a_folder_that_is_not_yours_are_said(monkeypatch):
    Usage = namedtuple("Usage", "total used free")
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: Usage(1, 1, 2**20))
    monkeypatch.setattr(doctor.tempfile, "TemporaryFile", failing(PermissionError(13, "Permission denied")))
    found = findings()
    assert not found["free disk"].ok and "0.0 GiB" in found["free disk"].detail
    assert not found["this folder"].ok and "Permission denied" in found["this folder"].detail


def test_a_look_that_breaks_is_a_finding(monkeypatch):
    monkeypatch.setattr(doctor, "_disk", failing(RuntimeError("no")))
    assert "<lambda>" not in [finding.what for finding in doctor.examine()]
    assert any(finding.detail == "RuntimeError: no" and not finding.ok for finding in doctor.examine())
