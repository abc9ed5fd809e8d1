"""A class: a repository for students with lessons and checks, and beside it a folder that only teachers see.

DIR/student/      notebooks, README.md, workflows of GitHub and GitLab; the public checks
DIR/instructor/   the secret, HOWTO.md, the autograder for Gradescope; never in the student's repository
"""

import hashlib
import io
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path

from sparselab import __version__
from sparselab.course import workspace, writing
from sparselab.course.lessons import Lesson
from sparselab.files import write_atomically
from sparselab.grading import secret

TEMPLATES = Path(__file__).with_name("templates")
STUDENT = {
    "README.md": "student.md",
    "requirements.txt": "requirements.txt",
    ".gitignore": "gitignore",
    ".github/workflows/grade.yml": "github.yml",
    ".gitlab-ci.yml": "gitlab.yml",
}
SECRET = "instructor/secret.toml"
DELIVERED = "instructor/delivered.json"


def write(folder: Path, course: Sequence[Lesson], *, chosen: Sequence[str] = ()) -> list[str]:
    """Make both folders for these lessons, or bring them up to date; what is worth telling, a line each.

    `chosen` is how the lessons were named, none for the whole course. A file that was edited is kept, and
    the secret is never written again. ValueError where `folder` cannot be one, or the secret is damaged.
    """
    for place in (folder, folder / "instructor"):
        if place.is_symlink() or (place.exists() and not place.is_dir()):
            raise ValueError(
                f"{place} is no folder, and one of that name is needed; move it or choose another"
            )
    told = [f"student/{line}" for line in workspace.prepare(folder / "student", course)]
    (folder / "instructor").mkdir(mode=0o700, exist_ok=True)
    if (folder / SECRET).exists():
        secret.read(folder / SECRET)
    else:
        secret.new(folder / SECRET, exercises=[one.name for lesson in course for one in lesson.exercises])
    words = _words(folder, course, chosen)
    fresh = {f"student/{name}": _filled(template, words) for name, template in STUDENT.items()}
    fresh["instructor/.gitignore"] = b"*\n"
    fresh["instructor/HOWTO.md"] = _filled("instructor.md", words)
    known = _delivered(folder)
    for name, content in fresh.items():
        told += _deliver(folder, name, content, known)
    told += _deliver(folder, "instructor/gradescope.zip", _autograder(folder, words), known)
    writing.write_if_new(folder / DELIVERED, (json.dumps(known, indent=1) + "\n").encode())
    return told


def _words(folder: Path, course: Sequence[Lesson], chosen: Sequence[str]) -> dict[str, str]:
    rows = [f"| [{one.number} {one.title}]({one.path}.ipynb) | {one.minutes} |" for one in course]
    return {
        "version": __version__,
        "lessons": "\n".join(["| lesson | minutes |", "|---|---|", *rows]),
        "options": " ".join(f"--lesson {lesson.number}" for lesson in course if lesson.exercises),
        "folder": folder.name,
        "open": "jupyter lab" if chosen else "sparselab start .",
        "chosen": "".join(f" {name}" for name in chosen),
    }


def _filled(template: str, words: dict[str, str]) -> bytes:
    text = (TEMPLATES / template).read_text(encoding="utf-8")
    for word, value in words.items():
        text = text.replace(f"@{word}@", value)
    return text.encode("utf-8")


def _autograder(folder: Path, words: dict[str, str]) -> bytes:
    """The zip that Gradescope takes: the same bytes for the same content."""
    members = {name: _filled(name, words) for name in ("setup.sh", "run_autograder")}
    members["requirements.txt"] = (folder / "student/requirements.txt").read_bytes()
    members["secret.toml"] = (folder / SECRET).read_bytes()
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, data in members.items():
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            entry.external_attr = (0o100755 if data.startswith(b"#!") else 0o100644) << 16
            archive.writestr(entry, data)
    return content.getvalue()


# ---------------------------------------------------------------- files that may have been edited


def _deliver(folder: Path, name: str, content: bytes, known: dict[str, str]) -> list[str]:
    """Write a file unless somebody has edited it; `known` holds the digest of what was delivered last."""
    path, before, now = folder / name, known.get(name), hashlib.sha256(content).hexdigest()
    if reason := workspace.not_ours_to_write(folder, path):
        return [f"{name}: {reason}; left as it is"]
    known[name] = now
    if not path.exists():
        write_atomically(path, content)
        return [f"{name}: was deleted; a fresh one is in its place"] if before else []
    mine = path.read_bytes()
    if mine == content:
        return []
    if hashlib.sha256(mine).hexdigest() == before:
        write_atomically(path, content)
        return [f"{name}: brought up to date"]
    if before == now:
        return []
    beside = writing.write_beside(folder / "instructor/fresh" / name, "fresh", content)
    return [f"{name}: yours is kept as it is; the new version is {beside.relative_to(folder).as_posix()}"]


def _delivered(folder: Path) -> dict[str, str]:
    """Without a record every file counts as edited."""
    try:
        known = json.loads((folder / DELIVERED).read_bytes())
    except (OSError, ValueError):
        return {}
    return {str(name): str(digest) for name, digest in known.items()} if isinstance(known, dict) else {}
