"""Time fast paths beside their peers: judged first, then in turns, with the floor the machine sets.

A method's `bench.py` lists `CASES`. Each case runs on several laws of input, for the fastest code depends on
them. Before any timing, the judge grades our function on its own cases, and every peer that promises the same
answer must give it on the very input that is timed. Then all of them, and the machine's own reading and
writing of as many bytes, take turns in one process; a slower moment of the machine hits all alike. Each call
allocates its own output.
"""

import ctypes
import json as _json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from sparselab import judge
from sparselab.files import machine, results, write_atomically
from sparselab.method import Method
from sparselab.method import select as chosen

SECONDS, ROUNDS = 2.0, 7  # per case and law: at least so many rounds, and for at least so long
FLOOR, READ, WRITE, COMPUTE = "floor", "reading", "writing", "computing"
SIDE = 1024  # of the matrix product that tells how fast the machine computes
POLICY = (
    "every call allocates its output from memory that the process keeps, and finds its inputs where the last "
    "round left them; float32; ms"
)


@dataclass(frozen=True)
class Peer:
    """Another way to do the same; `same=False` where it gives another answer, and is timed for scale only.

    `read` is what this way reads where that is not the case's own number of bytes. `prepare` lays the inputs
    out as it wants them, before any timing.
    """

    run: Callable[..., Any]
    same: bool = True
    read: int | None = None
    prepare: Callable[[dict[str, Any]], dict[str, Any]] = dict


@dataclass(frozen=True, kw_only=True)
class Case:
    """One benchmark: `op` of the method's fast path, or `ours`, on every law of `inputs`, beside `peers`.

    `inputs[law](rng)` makes the arguments in NumPy; `read` and `written` are the bytes that any way moves,
    `flops` what it must compute; `levels` are speed-ups over the first peer, by name, rising. With `sets`
    above 1 a call goes through so many inputs of equal size, one after the other, and times are those of one:
    weights that a model reads once per token must not stay in a cache. `active` tells which shares of the
    layers' neurons or columns those inputs really make us read. A case with `cpu_only` makes its own inputs
    there.
    """

    id: str
    text: str
    op: str
    ours: Callable[..., Any] | None = None
    inputs: dict[str, Callable[[np.random.Generator], dict[str, Any]]]
    peers: dict[str, Peer]
    read: int
    written: int = 0
    flops: int = 0
    sets: int = 1
    active: Callable[..., Sequence[float]] | None = None
    cpu_only: bool = False
    levels: dict[str, float] = field(default_factory=dict)
    rtol: float = 1e-4
    atol: float = 1e-5


@dataclass(frozen=True)
class Row:
    """What one way took, in ms; `spread` is the 90th over the 10th percentile of the rounds.

    `by_bytes` is the speed-up that its bytes alone predict; `active` are the shares that were read, by layer.
    """

    name: str
    min: float
    median: float
    spread: float
    gb_per_s: float
    efficiency: float
    speedup: float
    by_bytes: float
    same_answer: bool
    active: list[float] = field(default_factory=list)


def run(
    names: Sequence[str] = (),
    *,
    device: str = "cpu",
    threads: int = 2,
    json: Path | None = None,
    progress: bool = True,
    seconds: float = SECONDS,
    clock: Callable[[], float] = time.perf_counter,
) -> list[dict[str, Any]]:
    """Benchmark methods or families (all without names), print a table for each case, save the results.

    They go to `json`, or to `bench_<family>.json` among the book's results; a case measured again replaces
    its entry, others stay. Raises ValueError for an unknown name, a device that is not there, and an answer
    of ours or of a peer that is wrong: its case is not timed then.
    """
    from rich.console import Console
    from rich.progress import Progress

    _check_device(device)
    cases = [(method, case) for method in select(names) for case in method.part("bench").CASES]
    chosen = [(method, case) for method, case in cases if device == "cpu" or not case.cpu_only]
    console, entries = Console(), []
    bar = Progress(console=Console(stderr=True), transient=True, disable=not progress)
    with _threads(threads), bar:
        task = bar.add_task("", total=sum(len(case.inputs) for _, case in chosen))
        for method, case in chosen:
            bar.update(task, description=f"{case.id} {method.name}: the judge")
            gate(method)
            entry = _entry(method, case, device, threads)
            for law in case.inputs:
                bar.update(task, description=f"{case.id} {method.name}: {law}")
                entry["laws"][law] = [
                    asdict(row) for row in measure(method, case, law, device, seconds, clock)
                ]
                bar.advance(task)
            entry["load"].append(_load())
            save(entry, json or results() / f"bench_{method.family}.json")
            console.print(table(entry))
            entries.append(entry)
    return entries


def select(names: Sequence[str]) -> list[Method]:
    """The methods with a benchmark that `names` of methods and families mean; all of them without names.

    Raises ValueError for an unknown name and for one without a benchmark.
    """
    for name in names:
        if not any(m.has("bench") for m in chosen([name])):
            raise ValueError(f"{name!r} has 0 benchmarks: there is no bench.py")
    return [m for m in chosen(names) if m.has("bench")]


def gate(method: Method) -> None:
    """ValueError, in the judge's words, unless the fast path is right in every case of every op."""
    for op in method.ops:
        grade = judge.grade(method, op, getattr(method.part("fast"), op))
        if not grade.ok:
            raise ValueError(f"{method.name} is not timed: " + " ".join(str(grade).split()))


def measure(
    method: Method, case: Case, law: str, device: str, seconds: float, clock: Callable[[], float]
) -> list[Row]:
    """Ours and the peers on one law of input: each checked, then timed in turns with the machine itself."""
    ways = {"sparselab": Peer(case.ours or getattr(method.part("fast"), case.op))}
    if device == "cuda" and "triton" in method.backends and case.op in method.part("kernel").__all__:
        ways["sparselab (Triton)"] = Peer(getattr(method.part("kernel"), case.op))
    ways |= case.peers
    sets = [_tensors(case.inputs[law](np.random.default_rng(i)), device) for i in range(case.sets)]
    given = {name: [way.prepare(one) for one in sets] for name, way in ways.items()}
    ranks = getattr(method.part("checks"), "SCORES", {}).get(case.op)
    scores = ranks(**sets[0]) if ranks else None
    got = {name: way.run(**given[name][0]) for name, way in ways.items()}
    want = got["sparselab"]
    for name, way in ways.items():
        reason = judge.difference(got[name], want, scores=scores, rtol=case.rtol, atol=case.atol)
        if way.same and reason:
            raise ValueError(f"{case.id} is not timed: on {law}, {name} and sparselab disagree: {reason}")
    calls = {name: partial(_each, way.run, given[name]) for name, way in ways.items()}
    calls |= _machine_calls(case, device)
    with _kept_memory():
        taken = take_turns(calls, seconds=seconds, clock=clock, wait=_wait(device))
    floor = min(taken[READ]) + (min(taken[WRITE]) if case.written else 0)
    if case.flops:
        floor = max(floor, min(taken[COMPUTE]) * case.sets * case.flops / (2 * SIDE**3))
    first = next(iter(case.peers), "sparselab")
    base, most = min(taken[first]), _bytes(ways[first], case)
    rows = [_row(name, way, taken[name], case, floor, base, most) for name, way in ways.items()]
    if case.active:
        rows[0] = replace(rows[0], active=list(case.active(**given["sparselab"][0])))
    return [*rows, _row(FLOOR, Peer(case.op), [floor], case, floor, base, most)]


def _each(run: Callable[..., Any], sets: Sequence[dict[str, Any]]) -> None:
    for given in sets:
        run(**given)


def _bytes(way: Peer, case: Case) -> int:
    """What one way reads and writes for one set of inputs."""
    return (case.read if way.read is None else way.read) + case.written


def _tensors(given: dict[str, Any], device: str) -> dict[str, Any]:
    import torch

    def tensor(a: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(a.astype(np.float32, copy=False) if a.dtype.kind == "f" else a).to(device)

    return judge.map_leaves(lambda a: tensor(a) if isinstance(a, np.ndarray) else a, given)


@contextmanager
def _kept_memory() -> Iterator[None]:
    """Freed memory stays with the process: else chance decides whose outputs are pages zeroed one by one."""
    trim_threshold, mmap_max = -1, -4  # names of <malloc.h>
    glibc = ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None
    if glibc:
        glibc.mallopt(trim_threshold, -1)
        glibc.mallopt(mmap_max, 0)
    try:
        yield
    finally:
        if glibc:
            glibc.mallopt(trim_threshold, 2**17)  # its defaults
            glibc.mallopt(mmap_max, 2**16)


def _machine_calls(case: Case, device: str) -> dict[str, Callable[[], Any]]:
    """As many bytes read and written, and a matrix product, by torch itself: what the machine can do."""
    import torch

    calls = {READ: torch.ones(max(1, case.sets * case.read // 4), device=device).sum}
    if case.written:
        calls[WRITE] = partial(torch.zeros, case.sets * case.written // 4, device=device)
    if case.flops:
        square = torch.ones(SIDE, SIDE, device=device)
        calls[COMPUTE] = partial(torch.mm, square, square)
    return calls


def take_turns(
    calls: dict[str, Callable[[], Any]],
    *,
    seconds: float,
    clock: Callable[[], float],
    wait: Callable[[], None] = lambda: None,
) -> dict[str, list[float]]:
    """Milliseconds of every call in every round: A B C, A B C, ... after one round that does not count."""
    taken = {name: [] for name in calls}
    for call in calls.values():
        call()
    wait()
    begin = clock()
    while len(next(iter(taken.values()))) < ROUNDS or clock() - begin < seconds:
        for name, call in calls.items():
            start = clock()
            call()
            wait()
            taken[name].append(1e3 * (clock() - start))
    return taken


def _row(name: str, way: Peer, times: list[float], case: Case, floor: float, base: float, most: int) -> Row:
    """`times`, `floor` and `base`, of a peer that moves `most` bytes, are ms for all sets."""
    low, high = np.quantile(times, [0.1, 0.9])
    best = min(times)
    return Row(
        name=name,
        min=best / case.sets,
        median=statistics.median(times) / case.sets,
        spread=float(high / low),
        gb_per_s=_bytes(way, case) * case.sets / best / 1e6,
        efficiency=floor / best,
        speedup=base / best,
        by_bytes=most / _bytes(way, case),
        same_answer=way.same,
    )


def _entry(method: Method, case: Case, device: str, threads: int) -> dict[str, Any]:
    return {
        "id": case.id,
        "method": f"{method.family}/{method.name}",
        "text": case.text,
        "levels": case.levels,
        "baseline": next(iter(case.peers), "sparselab"),
        "policy": POLICY,
        "device": _device_name(device),
        "threads": threads,
        "load": [_load()],
        **machine(),
        "laws": {},
    }


def level(entry: dict[str, Any], speedup: float) -> str:
    """The highest level of the case that a speed-up reaches; a loss is called one."""
    reached = [name for name, needed in entry["levels"].items() if speedup >= needed]
    return reached[-1] if reached else "slower" if speedup < 1 else ""


def shares(row: dict[str, Any]) -> str:
    """What was active, in words: `, 8.1 % active`, or the range over layers; empty where nobody counted."""
    found = [f"{100 * share:.1f}" for share in sorted(row.get("active", ()))]
    if not found:
        return ""
    return f", {found[0]} % active" if found[0] == found[-1] else f", {found[0]} to {found[-1]} % active"


def table(entry: dict[str, Any]):
    """A rich table of one entry: a row for each way on each law, losses included."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    load = " to ".join(f"{x:.1f}" for x in entry["load"])
    grid = Table(
        title=f"{entry['id']} {entry['method']}: {entry['text']}",
        caption=f"{entry['device']}, threads: {entry['threads']}, load {load}; {entry['policy']}; "
        f"{FLOOR}: the machine reads and writes as many bytes in the same rounds, and its share of min; "
        f"ratio: {entry['baseline']} over this, and what the bytes alone predict; *: gives another answer",
        title_justify="left",
        caption_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    grid.add_column("", min_width=20)  # in a narrow terminal names wrap, numbers never
    for column in ("min", "median", "p90/p10", "GB/s", "floor", "ratio", "by bytes"):
        grid.add_column(column, justify="right", no_wrap=True)
    every = [row for rows in entry["laws"].values() for row in rows]
    promising = any(row["by_bytes"] != 1 for row in every)  # not where all ways read the same
    for law, rows in entry["laws"].items():
        reached = level(entry, rows[0]["speedup"])
        grid.add_row(f"[bold]{law}" + shares(rows[0]) + (f": {reached}" if reached else ""))
        for i, row in enumerate(rows):
            grid.add_row(
                row["name"] + ("" if row["same_answer"] else " *"),
                f"{row['min']:.2f}",
                f"{row['median']:.2f}",
                f"{row['spread']:.2f}",
                f"{row['gb_per_s']:.1f}",
                f"{row['efficiency']:.0%}",
                f"{row['speedup']:.2f}",
                f"{row['by_bytes']:.2f}" if promising else "",
                end_section=i == len(rows) - 1,
            )
    return grid


def stored(family: str, *, threads: int = 1, device: str = "cpu") -> dict[str, dict[str, Any]]:
    """The stored entries of a family by the id of their case; empty where nothing is stored."""
    file = results() / f"bench_{family}.json"
    known = _json.loads(file.read_text(encoding="utf-8")) if file.exists() else []
    return {e["id"]: e for e in known if (e["device"], e["threads"]) == (device, threads)}


def draw_densities(entries: dict[str, dict[str, Any]], *, title: str = "", alt: str = ""):
    """Speed-up of a whole model's decode against the share of its neurons, beside what the bytes promise.

    The cases are those called `E1 NN %`; sparse wins above the line at 1.
    """
    from sparselab.plots import DENSE, GREY, SPARSE, figure, note

    cases = sorted((int(id.split()[1]), e) for id, e in entries.items() if id.startswith("E1 "))
    ours = [next(iter(entry["laws"].values()))[0] for _, entry in cases]
    percent = [p for p, _ in cases]
    fig, ax = figure(title, alt=alt, size=(7.6, 3.8))
    ax.plot(percent, [row["by_bytes"] for row in ours], color=GREY, linestyle=":")
    ax.plot(percent, [row["speedup"] for row in ours], color=SPARSE, marker="o")
    ax.axhline(1, color=DENSE)
    ax.set(xscale="log", xlabel="percent of the neurons in each layer", ylabel="times as fast as dense")
    ax.set_xticks(percent, [str(p) for p in percent])
    ax.minorticks_off()
    ax.set_ylim(0, 1.15 * max(row["by_bytes"] for row in ours))
    note(ax, "promised by bytes", percent[0], ours[0]["by_bytes"], dx=4, dy=12, color=GREY)
    note(ax, "measured", percent[0], ours[0]["speedup"], dx=4, dy=-14, color=SPARSE)
    note(ax, "dense", percent[0], 1, dx=4, dy=-10, color=DENSE)
    return fig


def save(entry: dict[str, Any], file: Path) -> None:
    """Put one entry into `file` in place of the one with its id, device and threads; the others stay."""

    def key(e: dict[str, Any]) -> tuple[str, str, int]:
        return e["id"], e["device"], e["threads"]

    known = _json.loads(file.read_text(encoding="utf-8")) if file.exists() else []
    kept = [e for e in known if key(e) != key(entry)]
    write_atomically(file, _json.dumps(sorted([*kept, entry], key=key), indent=1) + "\n")


@contextmanager
def _threads(count: int) -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _check_device(device: str) -> None:
    import torch

    if device not in ("cpu", "cuda"):
        raise ValueError(f"device {device!r} is neither cpu nor cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device cuda: torch sees 0 GPUs here; use --device cpu")


def _device_name(device: str) -> str:
    import torch

    return "cpu" if device == "cpu" else torch.cuda.get_device_name()


def _wait(device: str) -> Callable[[], None]:
    import torch

    return torch.cuda.synchronize if device == "cuda" else lambda: None


def _load() -> float:
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else float("nan")
