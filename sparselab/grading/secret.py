"""What the teacher keeps: seeds for the judge's cases, and cases of the teacher's own.

    seeds = [401927365, 98123]

    [[case]]
    exercise = "lazy_neuron.topk_ffn"
    seed = 5
    k = 3
    x = { normal = [7, 4] }
    K = { normal = [4, 9] }
    V = { normal = [4, 9] }

An array is `{ normal = [shape] }`, `{ uniform = [shape] }`, `{ integers = [low, high], shape = [...] }` or
`{ values = [...] }`; everything else is passed as it stands.
"""

import hashlib
import os
import secrets
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sparselab import judge

MOST_SEEDS = 100


@dataclass(frozen=True)
class Secret:
    """Seeds, extra cases by exercise, and a digest that stands for them in a stored result."""

    seeds: tuple[int, ...] = ()
    cases: tuple[tuple[str, dict[str, Any]], ...] = ()
    digest: str = ""

    def extra(self, exercise: str) -> list[dict[str, Any]]:
        """Arguments of the teacher's own cases of one exercise."""
        return [arguments for name, arguments in self.cases if name == exercise]


def read(path: Path) -> Secret:
    """Raises ValueError for what is no secret, with the place; the values themselves are never printed."""
    content = path.read_bytes()
    try:
        told = tomllib.loads(content.decode("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError):
        raise ValueError(f"{path} is not TOML; sparselab secret new makes one") from None
    if strangers := set(told) - {"seeds", "case"}:
        raise ValueError(f"{path}: unknown key {sorted(strangers)[0]!r}; a secret has seeds and [[case]]")
    seeds = told.get("seeds", [])
    if not isinstance(seeds, list) or not all(type(seed) is int and seed >= 0 for seed in seeds):
        raise ValueError(f"{path}: seeds is a list of whole numbers")
    if len(seeds) > MOST_SEEDS:
        raise ValueError(f"{path}: {len(seeds)} seeds, at most {MOST_SEEDS} are used")
    cases = tuple(_case(path, number, case) for number, case in enumerate(told.get("case", []), 1))
    if not seeds and not cases:
        raise ValueError(f"{path} holds no seed and no case")
    return Secret(tuple(seeds), cases, hashlib.sha256(content).hexdigest())


def new(path: Path, *, seeds: int = 3, exercises: Sequence[str] = ()) -> Secret:
    """Write a fresh secret that only its owner can read; ValueError where the file exists already.

    A seed with which the definition of one of `exercises` does not pass its own facts is drawn again.
    """
    if path.exists():
        raise ValueError(f"{path} exists already; a secret is never overwritten")
    drawn: list[int] = []
    while len(drawn) < seeds:
        seed = secrets.randbelow(2**31)
        if all(_fair(exercise, seed) for exercise in exercises):
            drawn.append(seed)
    lines = [
        "# Keep this file out of every student's reach: sparselab grade --secret THIS SUBMISSION...",
        f"seeds = {drawn}",
        "",
        "# Cases of your own:",
        "# [[case]]",
        '# exercise = "lazy_neuron.topk_ffn"',
        "# k = 3",
        "# x = { normal = [7, 4] }",
        "# K = { normal = [4, 9] }",
        "# V = { normal = [4, 9] }",
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "x", encoding="utf-8", opener=_private) as file:
        file.write("\n".join(lines) + "\n")
    return read(path)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _fair(exercise: str, seed: int) -> bool:
    method, op = judge.exercise(exercise)
    definition = getattr(method.part("reference"), op, None)
    return definition is None or judge.grade(method, op, definition, seed=seed).ok


def _case(path: Path, number: int, told: Any) -> tuple[str, dict[str, Any]]:
    at = f"{path}: case {number}"
    if not isinstance(told, dict) or not isinstance(told.get("exercise"), str):
        raise ValueError(f"{at} names no exercise")
    told = dict(told)
    exercise, rng = told.pop("exercise"), np.random.default_rng(told.pop("seed", 0))
    try:
        method, op = judge.exercise(exercise)
        arguments = {name: _argument(value, rng) for name, value in told.items()}
    except (TypeError, ValueError) as error:
        raise ValueError(f"{at}: {error}") from None
    if definition := getattr(method.part("reference"), op, None):
        got = judge.outcome(definition, arguments)
        # a ValueError makes it a case of bad input, which an answer must refuse, too
        if isinstance(got, judge.Raised) and not isinstance(got.error, ValueError):
            raise ValueError(f"{at}: {exercise} cannot take it: {type(got.error).__name__}")
    return exercise, arguments


def _argument(told: Any, rng: np.random.Generator) -> Any:
    match told:
        case {"normal": shape}:
            return rng.standard_normal(shape)
        case {"uniform": shape}:
            return rng.random(shape)
        case {"integers": [low, high], "shape": shape}:
            return rng.integers(low, high, shape)
        case {"values": values}:
            return np.array(values)
        case dict():
            raise ValueError(f"no array is made by {', '.join(told)}")
    return told
