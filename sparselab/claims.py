"""Measure what the papers claim, at laptop size, over seeds; keep the results for the book."""

import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

from sparselab.files import machine, results, write_atomically
from sparselab.method import Claim, Method, find


def results_file() -> Path:
    """Where measured claims are kept and the book finds them: `claims.json` among the results."""
    return results() / "claims.json"


def measure(method: Method, *, seeds: Sequence[int] = (0, 1, 2)) -> dict:
    """Every metric of one method over the seeds, and the verdict on each of its claims.

    Raises ValueError for a method without claims and for a claim whose metric is not measured.
    """
    if not method.claims:
        raise ValueError(f"{method.name} declares no claim: 0 metrics to measure")
    start = time.perf_counter()
    runs = [method.part("claim").measure(seed) for seed in seeds]
    missing = sorted({c.metric for c in method.claims} - set(runs[0]))
    if missing:
        raise ValueError(f"{method.name}: measure(seed) returns {sorted(runs[0])}, not {missing}")
    metrics = {name: [float(run[name]) for run in runs] for name in runs[0]}
    return {
        "method": f"{method.family}/{method.name}",
        "seeds": list(seeds),
        "metrics": metrics,
        "claims": [verdict(claim, metrics[claim.metric]) for claim in method.claims],
        "seconds": round(time.perf_counter() - start, 1),
        **machine(),
    }


def verdict(claim: Claim, values: list[float]) -> dict:
    """One row: the claim, its target, the measured median and range, and in how many seeds it holds."""
    return {
        "text": claim.text,
        "metric": claim.metric,
        "target": claim.target,
        "median": statistics.median(values),
        "low": min(values),
        "high": max(values),
        "seeds_that_hold": sum(map(claim.holds, values)),
    }


def save(measured: Sequence[dict], file: Path) -> None:
    """Put new measurements beside the old ones, one entry per method."""
    known = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    known |= {entry["method"]: entry for entry in measured}
    write_atomically(file, json.dumps(dict(sorted(known.items())), indent=1) + "\n")


def stored(name: str) -> dict:
    """The stored measurement of one method; ValueError names the command that makes it."""
    method = find(name)
    known = json.loads(results_file().read_text(encoding="utf-8")) if results_file().exists() else {}
    if (entry := known.get(f"{method.family}/{method.name}")) is None:
        raise ValueError(f"0 stored measurements of {name}: run `sparselab claim {name}`")
    return entry


def table(name: str) -> str:
    """Claim, target, measured median with its range over seeds, and whether it holds at this size."""
    rows = [("claim", "target", "median (range)", "at this size")]
    entry = stored(name)
    for row in entry["claims"]:
        spread = f"{row['median']:.3g} ({row['low']:.3g} to {row['high']:.3g})"
        rows.append((row["text"], row["target"], spread, in_words(row, len(entry["seeds"]))))
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(line.rstrip() for line in [lines[0], "-" * len(lines[0]), *lines[1:]])


def in_words(row: dict, seeds: int) -> str:
    """A claim holds where every seed agrees; a range on both sides of the target is neither."""
    held = row["seeds_that_hold"]
    return "holds" if held == seeds else "does not hold" if held == 0 else f"holds in {held} of {seeds} seeds"
