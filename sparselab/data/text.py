"""Text as bytes: the Python language reference and the standard library, both part of every CPython."""

import hashlib
import sysconfig
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import UInt8

from sparselab.method import unknown

SEPARATOR = "\n\n\n"
HELD_OUT = 1 / 8
SKIPPED = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"}


def topics() -> dict[str, str]:
    """The topics of the Python language reference by name, without those that repeat a longer one.

    `help()` prints many sections twice, alone and inside their chapter ("for" inside "compound"). A topic
    with less than half of text of its own is left out, so that a split by topic splits the text.
    Raises ImportError where this Python came without its documentation.
    """
    try:
        from pydoc_data.topics import topics as every
    except ImportError:
        raise ImportError("this Python has no pydoc_data.topics (on Debian: python3-doc)") from None
    kept, seen = {}, set()
    for name in sorted(every, key=lambda name: (-len(every[name]), name)):
        paragraphs = {" ".join(p.split()) for p in every[name].split("\n\n")}
        if sum(map(len, paragraphs - seen)) > 0.5 * sum(map(len, paragraphs)):
            kept[name] = every[name].strip()
            seen |= paragraphs
    return dict(sorted(kept.items()))


def split_of(name: str) -> Literal["train", "held_out"]:
    """The side a topic falls on, by the SHA3-256 of its name: about one topic in eight is held out."""
    share = int.from_bytes(hashlib.sha3_256(name.encode()).digest()[:4], "big") / 2**32
    return "held_out" if share < HELD_OUT else "train"


def pydocs(split: Literal["train", "held_out"] = "train") -> UInt8[np.ndarray, " n"]:
    """Bytes of the Python language reference, split by whole topic; raises ValueError for another split.

    The text depends on the Python version and on nothing else; `fingerprint` names it.
    """
    if split not in ("train", "held_out"):
        raise ValueError(f"split {split!r} is neither 'train' nor 'held_out'")
    return _bytes(text for name, text in topics().items() if split_of(name) == split)


def stdlib(*modules: str, limit: int | None = None) -> UInt8[np.ndarray, " n"]:
    """Bytes of the standard library's Python sources, or of the named modules and packages only.

    Files come in the order of their paths, without tests, line ends as "\\n"; `limit` cuts the text after
    that many bytes. The text depends on the Python version. Raises ValueError for an unknown module, naming
    the nearest, and for a negative limit; FileNotFoundError where this Python came without its sources.
    """
    if limit is not None and limit < 0:
        raise ValueError(f"{limit=} is negative")
    root = Path(sysconfig.get_path("stdlib"))
    files = {path.relative_to(root): path for path in root.rglob("*.py")}
    files = {inside: path for inside, path in files.items() if not SKIPPED & set(inside.parts)}
    if not files:
        raise FileNotFoundError(f"this Python came without its sources: no .py files in {root}")
    owner = {inside: inside.parts[0].removesuffix(".py") for inside in files}
    for module in modules:
        if module not in owner.values():
            raise ValueError(unknown("module of the standard library", module, sorted(set(owner.values()))))
    chosen = [inside for inside in files if not modules or owner[inside] in modules]
    texts = []
    for inside in sorted(chosen, key=lambda inside: inside.parts):
        texts.append(files[inside].read_bytes().decode("utf-8", errors="replace"))
        if limit is not None and sum(map(len, texts)) >= limit:
            break
    return _bytes(texts)[:limit]


def windows(
    data: UInt8[np.ndarray, " n"], *, length: int, n: int, rng: np.random.Generator
) -> UInt8[np.ndarray, "b t"]:
    """`n` windows of `length` bytes, each at a uniform place; ValueError where the text is shorter."""
    if not 0 < length <= len(data):
        raise ValueError(f"no window of {length} bytes in a text of {len(data)}")
    starts = rng.integers(0, len(data) - length, size=n, endpoint=True)
    return data[starts[:, None] + np.arange(length)]


def tiles(data: UInt8[np.ndarray, " n"], *, length: int) -> UInt8[np.ndarray, "b t"]:
    """The text cut into windows that do not overlap; the rest that does not fill one is left out."""
    if not 0 < length <= len(data):
        raise ValueError(f"no window of {length} bytes in a text of {len(data)}")
    return data[: len(data) // length * length].reshape(-1, length)


def _bytes(texts: Iterable[str]) -> UInt8[np.ndarray, " n"]:
    whole = SEPARATOR.join(text.replace("\r\n", "\n") for text in texts)
    return np.frombuffer(bytearray(whole, "utf-8"), np.uint8)
