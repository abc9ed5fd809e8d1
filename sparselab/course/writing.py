"""Files that are written only where they must be, and never over another."""

import os
from contextlib import suppress
from pathlib import Path

from sparselab.files import write_atomically

OWN = ".sparselab"  # what a student's folder holds for us, and the student need not look at


def write_if_new(path: Path, content: bytes) -> bool:
    """Write in one step, unless the file holds this already; True where it was written."""
    if path.is_file() and path.read_bytes() == content:
        return False
    write_atomically(path, content)
    return True


def write_beside(path: Path, label: str, content: bytes) -> Path:
    """Write `content` under a name that no file has: `name.LABEL.ipynb`, `name.LABEL-2.ipynb`, ..."""
    path.parent.mkdir(parents=True, exist_ok=True)
    count = 1
    while True:
        number = "" if count == 1 else f"-{count}"
        beside = path.with_name(f"{path.stem}.{label}{number}{path.suffix}")
        try:
            file = open(beside, "xb")  # noqa: SIM115  closed below, after the name is ours
        except FileExistsError:
            count += 1
            continue
        try:
            with file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            with suppress(OSError):
                beside.unlink()
            raise
        return beside
