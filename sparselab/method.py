"""What a method declares about itself, and how the declarations are found."""

import importlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Literal

FAMILIES = ("topk", "formats", "lazy", "gating", "sae", "attention", "pruning", "search")
BACKENDS = {"numpy": "reference", "torch": "fast", "triton": "kernel"}
CODE = {"reference": "numpy", "fast": "torch", "loops": "numba", "kernel": "triton"}
PACKAGE = Path(__file__).parent


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One sentence of the paper at laptop size: `low <= measure(seed)[metric] <= high`.

    A claim that the paper makes and this size does not show is declared with `reproduced=False`;
    it is measured and printed like any other. One that a stopwatch decides is `timed`: tests leave it out.
    """

    text: str
    metric: str
    at_least: float | None = None
    at_most: float | None = None
    reproduced: bool = True
    timed: bool = False

    def __post_init__(self):
        if self.at_least is None and self.at_most is None:
            raise ValueError(f"claim on {self.metric!r} needs at_least or at_most: it could not fail")

    def holds(self, value: float) -> bool:
        """True where the measured value lies inside the target; NaN lies inside none."""
        low = self.at_least is None or value >= self.at_least
        high = self.at_most is None or value <= self.at_most
        return low and high and value == value

    @property
    def target(self) -> str:
        """The target as a reader writes it: `>= 0.9`, `<= 1.1` or `0.9 to 1.1`."""
        if self.at_least is not None and self.at_most is not None:
            return f"{self.at_least:.4g} to {self.at_most:.4g}"
        return f">= {self.at_least:.4g}" if self.at_most is None else f"<= {self.at_most:.4g}"


@dataclass(frozen=True, kw_only=True)
class Method:
    """The card of one published system; the folder beside it is the system."""

    package: str
    title: str
    paper: str
    year: int
    chapter: str
    backends: tuple[Literal["numpy", "torch", "triton"], ...]
    gradient: Literal["exact", "straight-through", "none"]
    source: Literal["official", "partial", "reconstruction"]
    no_kernel: str = ""
    against: tuple[str, ...] = ()
    claims: tuple[Claim, ...] = ()
    claim_seconds: int = 0

    def __post_init__(self):
        if ("triton" in self.backends) == bool(self.no_kernel):
            raise ValueError(f"{self.package}: give a triton backend or the reason in no_kernel, not both")

    @property
    def family(self) -> str:
        return self.package.split(".")[-2]

    @property
    def name(self) -> str:
        return self.package.split(".")[-1]

    @property
    def folder(self) -> Path:
        return PACKAGE / self.family / self.name

    @property
    def summary(self) -> str:
        """First sentence of the card."""
        return " ".join((importlib.import_module(self.package).__doc__ or "").split("\n\n")[0].split())

    def part(self, name: str) -> ModuleType:
        """The module `reference`, `fast`, `loops`, `kernel`, `checks`, `claim` or `bench` of this method."""
        return importlib.import_module(f"{self.package}.{name}")

    def has(self, name: str) -> bool:
        return (self.folder / f"{name}.py").exists()

    @property
    def code(self) -> dict[str, str]:
        """The parts that compute, each with the library it is written for."""
        return {part: library for part, library in CODE.items() if self.has(part)}

    @property
    def ops(self) -> tuple[str, ...]:
        """Names of the interface, in the reference's own order."""
        return tuple(self.part("reference").__all__)


def folders() -> Iterator[tuple[str, str]]:
    """(family, name) of each folder with a card, without importing anything."""
    for family in FAMILIES:
        for card in sorted((PACKAGE / family).glob("*/__init__.py")):
            if "METHOD = Method(" in card.read_text(encoding="utf-8"):
                yield family, card.parent.name


@cache
def methods() -> tuple[Method, ...]:
    """Every method of the package, by family and name."""
    return tuple(importlib.import_module(f"sparselab.{family}.{name}").METHOD for family, name in folders())


def find(name: str) -> Method:
    """The method called `wanda` or `pruning/wanda`; ValueError names the nearest otherwise."""
    known = {f"{m.family}/{m.name}": m for m in methods()}
    hits = [m for path, m in known.items() if name.replace(".", "/") in (path, m.name)]
    if len(hits) == 1:
        return hits[0]
    if hits:
        both = " and ".join(f"{m.family}/{m.name}" for m in hits)
        raise ValueError(f"{name!r} is {both}: write the family too")
    raise ValueError(unknown("method", name, [*known, *(m.name for m in known.values())]))


def select(names: Sequence[str] = ()) -> list[Method]:
    """The methods that names of methods and of families mean, each once; all of them without names.

    Raises ValueError for an unknown name.
    """
    found = []
    for name in names or FAMILIES:
        meant = [m for m in methods() if m.family == name] if name in FAMILIES else [find(name)]
        found += [m for m in meant if m not in found]
    return found


def unknown(kind: str, name: str, known: list[str]) -> str:
    """One line for a name that does not exist, with the nearest one that does."""
    near = get_close_matches(name, known, n=1, cutoff=0.4)
    return f"no {kind} is called {name!r}" + (f"; did you mean {near[0]!r}?" if near else "")
