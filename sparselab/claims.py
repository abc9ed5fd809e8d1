"""Measure what the papers claim, at laptop size, over seeds; keep the results for the book."""

import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

from sparselab.files import machine, write_atomically
from sparselab.method import Claim, Method


def results_file() -> Path:
    """Where the book finds measured claims: `book/results/claims.json` of a repository checkout."""
    from sparselab.files import results

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
    """One row: the claim, its target, the measured median and range, and whether it holds at this size."""
    median = statistics.median(values)
    return {
        "text": claim.text,
        "metric": claim.metric,
        "target": claim.target,
        "median": median,
        "low": min(values),
        "high": max(values),
        "holds": claim.holds(median),
        "expected": claim.reproduced,
    }


def save(measured: Sequence[dict], file: Path) -> None:
    """Put new measurements beside the old ones, one entry per method."""
    known = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    known |= {entry["method"]: entry for entry in measured}
    write_atomically(file, json.dumps(dict(sorted(known.items())), indent=1) + "\n")
