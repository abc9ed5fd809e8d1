"""Measured results as pictures: where each claim lies against its target, how each benchmark compares.

Everything drawn here is read from `book/results/*.json`, which `make claims` and `make bench` write.
"""

import json
import math
from collections.abc import Iterator
from html import escape

from sparselab import bench, frontier, plots
from sparselab import claims as stored
from sparselab.book import typeset
from sparselab.files import results
from sparselab.method import Method, methods

CLAIMS = """\
A claim that the paper makes and this size does not show stays in the list. The bar is the range over seeds,
its tick the median, the shaded side the target."""
SPEED = """\
Each fast path beside its peers on the same input, in turns, after the judge has passed it. Bars are speed-ups
over the first peer on a logarithmic scale; left of the line is slower. `floor` is the time that the machine
needs to move as many bytes; a star marks a peer that gives another answer."""


def page() -> str:
    """Every claim and every benchmark, losses included, with dates and machines."""
    known = _claims_file()
    held = [held for entry in known.values() for held, _ in _rows(entry)]
    parts = [
        "# Results",
        "What was measured, losses included. `make claims` and `make bench` measure it again.",
    ]
    parts += ["## Claims", f"**{sum(held)} of {len(held)}** hold in every seed at laptop size. {CLAIMS}"]
    claiming = [m for m in methods() if m.claims]
    for m in claiming:
        if f"{m.family}/{m.name}" in known:
            parts += [f"### {_link(m)}", claims(m)]
    if missing := [_link(m) for m in claiming if f"{m.family}/{m.name}" not in known]:
        parts += ["### Not measured yet", ", ".join(missing)]
    parts += ["## Quality against arithmetic", _frontier(frontier.stored())]
    benchmarks = list(_benchmarks())
    parts += ["## Speed", SPEED if benchmarks else "No benchmark is stored yet."]
    for entry in benchmarks:
        parts += [f"### {entry['id']}: {typeset.prose(entry['text'])}", _benchmark(entry)]
    return "\n\n".join(parts) + "\n"


def _link(m: Method) -> str:
    return f"[{m.title}](methods/{m.family}/{m.name}.md)"


def claims(method: Method) -> str:
    """The claims of one method, drawn; its seeds, date and machine below."""
    entry = _claims_file().get(f"{method.family}/{method.name}")
    if entry is None:
        texts = "\n".join(
            f"- {typeset.prose(claim.text)}, target {typeset.signs(claim.target)}" for claim in method.claims
        )
        return f"Not measured yet: `sparselab claim {method.name}`.\n\n{texts}"
    rows = "".join(html for _, html in _rows(entry))
    head = "".join(f'<th scope="col">{name}</th>' for name in ("claim", "target", "median", "range", "here"))
    return _raw(
        f'<div class="scroll" tabindex="0" role="group" aria-label="Claims of {escape(method.title)}">'
        f'<table class="claims"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
        f'<p class="facts">{len(entry["seeds"])} seeds, {entry["date"]}, {escape(entry["machine"])}; '
        f"<code>sparselab claim {method.name}</code></p>"
    )


def score(method: Method) -> str:
    """`6 of 10` for the table of methods."""
    entry = _claims_file().get(f"{method.family}/{method.name}")
    if entry is None:
        return "not measured" if method.claims else ""
    held = [held for held, _ in _rows(entry)]
    return f"{sum(held)} of {len(held)}"


def _claims_file() -> dict:
    file = stored.results_file()
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


def _rows(entry: dict) -> Iterator[tuple[bool, str]]:
    """(holds in every seed, its row) of each claim."""
    for row in entry["claims"]:
        verdict = stored.in_words(row, len(entry["seeds"]))
        held = row["seeds_that_hold"] == len(entry["seeds"])
        mark = '<span aria-hidden="true">●</span>' if held else '<span aria-hidden="true">○</span>'
        kind = "held" if held else "missed"
        yield (
            held,
            f"<tr><td>{escape(row['text'])}</td><td>{typeset.signs(row['target'])}</td><td>{row['median']:.3g}</td>"
            f'<td>{_interval(row)}</td><td class="{kind}">{mark}&nbsp;{verdict}</td></tr>',
        )


# ---------------------------------------------------------------- drawings

WIDE, HIGH = 130, 22


def _interval(row: dict) -> str:
    """The range over seeds as a bar on an axis whose target side is shaded."""
    low, high = _target(row["target"])
    points = [x for x in (row["low"], row["high"], low, high) if x is not None]
    centre, reach = (min(points) + max(points)) / 2, (max(points) - min(points)) / 2 or abs(points[0]) or 1

    def at(x: float) -> float:
        return round(WIDE * (0.5 + 0.38 * (x - centre) / reach), 1)

    left, right = 0 if low is None else at(low), WIDE if high is None else at(high)
    x0, x1 = at(row["low"]), at(row["high"])
    words = f"{row['low']:.3g} to {row['high']:.3g}, median {row['median']:.3g}, target {row['target']}"
    return (
        f'<svg class="interval" viewBox="0 0 {WIDE} {HIGH}" role="img" aria-label="{escape(words)}">'
        f"<title>{escape(words)}</title>"
        f'<rect class="goal" x="{left}" y="0" width="{max(right - left, 1.5):.1f}" height="{HIGH}"/>'
        f'<line class="axis" x1="0" x2="{WIDE}" y1="{HIGH / 2}" y2="{HIGH / 2}"/>'
        f'<rect class="bar" x="{x0 - 1.5:.1f}" y="8" width="{x1 - x0 + 3:.1f}" height="6" rx="3"/>'
        f'<rect class="tick" x="{at(row["median"]) - 1.5:.1f}" y="3" width="3" height="16"/></svg>'
    )


def _target(text: str) -> tuple[float | None, float | None]:
    """(low, high) of a target as a claim writes it."""
    if text.startswith(">="):
        return float(text[2:]), None
    if text.startswith("<="):
        return None, float(text[2:])
    low, _, high = text.partition(" to ")
    return float(low), float(high)


def _frontier(entries: list[dict]) -> str:
    """Every small language model: its loss against the FLOPs of a byte, as a figure and as a table."""
    if not entries:
        return "Not measured yet: `sparselab frontier`."
    rows, first = frontier.summary(entries), entries[0]
    words = "; ".join(f"{row['title']} {row['loss']:.3f} at {row['flops'] / 1e6:.2f} million" for row in rows)
    picture = plots.html(frontier.draw(entries), alt=f"Held-out loss against FLOPs of a byte: {words}")
    head = "".join(
        f'<th scope="col">{name}</th>'
        for name in ("model", "FLOPs of a byte", "active", "nats per byte", "range", "weights")
    )
    body = "".join(
        f"<tr><td>{escape(row['title'])}</td><td>{row['flops']:,.0f}</td><td>{row['active']:.1%}</td>"
        f"<td>{row['loss']:.3f}</td><td>{row['low']:.3f} to {row['high']:.3f}</td>"
        f"<td>{row['parameters']:,}</td></tr>"
        for row in rows
    )
    text = (
        f"Small language models, alike but for their layers, after {first['bytes_seen']:,} bytes of Python's "
        "documentation. FLOPs are counted from the active share on held-out text; idle neurons are skipped "
        "where the method knows them. The dot is the median over seeds, the bar their range."
    )
    return f"{text}\n\n" + _raw(
        f'{picture}<div class="scroll" tabindex="0" role="group" aria-label="Quality against arithmetic">'
        f'<table class="claims"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
        f'<p class="facts">{rows[0]["seeds"]} seeds, {first["date"]}, {escape(first["machine"])}; '
        f"<code>sparselab frontier</code></p>"
    )


def _benchmarks() -> Iterator[dict]:
    for file in sorted(results().glob("bench_*.json")):
        yield from json.loads(file.read_text(encoding="utf-8"))


def _benchmark(entry: dict) -> str:
    """One table for a case: on each law of input a bar for every way."""
    ratios = [row["speedup"] for rows in entry["laws"].values() for row in rows]
    reach = max(abs(math.log2(max(ratio, 1e-9))) for ratio in ratios) or 1
    body = []
    for law, rows in entry["laws"].items():
        body.append(f'<tr><th scope="rowgroup" colspan="4">{escape(law + bench.shares(rows[0]))}</th></tr>')
        for row in rows:
            name = escape(row["name"]) + ("" if row["same_answer"] else " *")
            own = ' class="own"' if row["name"].startswith("sparselab") else ""
            body.append(
                f"<tr{own}><td>{name}</td><td>{row['min']:.3g} ms</td><td>{row['speedup']:.2f}</td>"
                f"<td>{_speedup(row['speedup'], reach)}</td></tr>"
            )
    head = "".join(
        f'<th scope="col">{name}</th>' for name in ("way", "fastest", f"over {entry['baseline']}", "speed-up")
    )
    load = " to ".join(f"{load:.1f}" for load in entry["load"])
    return _raw(
        f'<div class="scroll" tabindex="0" role="group" aria-label="Benchmark {escape(entry["id"])}">'
        f'<table class="bench"><thead><tr>{head}</tr></thead><tbody>{"".join(body)}</tbody></table></div>'
        f'<p class="facts">{entry["date"]}, {escape(entry["machine"])}, {escape(entry["device"])}, '
        f"threads: {entry['threads']}, load {load}; {escape(entry['policy'])}; "
        f"<code>sparselab bench {escape(entry['method'].split('/')[-1])}</code></p>"
    )


def _speedup(ratio: float, reach: float) -> str:
    middle = WIDE / 2
    end = middle + math.log2(max(ratio, 1e-9)) / reach * (middle - 2)
    kind, x, width = "bar" if ratio >= 1 else "bar slower", min(middle, end), max(abs(end - middle), 1)
    return (
        f'<svg class="interval" viewBox="0 0 {WIDE} {HIGH}" role="img" '
        f'aria-label="{ratio:.2f} times as fast">'
        f'<rect class="{kind}" x="{x:.1f}" y="6" width="{width:.1f}" height="10"/>'
        f'<line class="even" x1="{middle}" x2="{middle}" y1="0" y2="{HIGH}"/></svg>'
    )


def _raw(html: str) -> str:
    return f"```{{raw}} html\n{html}\n```"
