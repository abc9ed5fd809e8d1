"""Where things lie, and writing that cannot lose what was there."""

import datetime
import os
import platform
import tempfile
from contextlib import suppress
from importlib import metadata
from pathlib import Path

from sparselab.method import PACKAGE


def root() -> Path:
    """The folder that holds `chapters/` and `solutions/`: the repository, or what the wheel carries."""
    repository = PACKAGE.parent
    if (repository / "chapters").is_dir() and (repository / "pyproject.toml").is_file():
        return repository
    return PACKAGE / "_course"


def results() -> Path:
    """Measured results, as JSON: `book/results` of the repository, `results` in a wheel."""
    return root() / "book" / "results" if root() == PACKAGE.parent else root() / "results"


def write_atomically(file: Path, content: str | bytes) -> None:
    """Write beside the file, then replace it: a full disk or a kill leaves the old content whole."""
    data = content.encode("utf-8") if isinstance(content, str) else content
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, draft = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(draft, file.stat().st_mode & 0o777 if file.exists() else 0o666 & ~_umask())
        os.replace(draft, file)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def machine() -> dict[str, str]:
    """What a measured figure is worth without: the date, the processor and the versions."""
    import numpy

    found = {
        "date": datetime.date.today().isoformat(),
        "machine": f"{_processor()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "numpy": numpy.__version__,
    }
    for library in ("torch", "numba"):
        with suppress(metadata.PackageNotFoundError):
            found[library] = metadata.version(library)
    return found


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
