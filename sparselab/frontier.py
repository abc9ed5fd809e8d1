"""Quality against arithmetic: the language models of all recipes, trained alike at a small size.

Every model reads the same bytes in the same order and, `lm_narrow` apart, has as many weights to within 2 %;
what differs is how many FLOPs a byte costs. They are counted from the active share that each block shows on
held-out text, not from the share it was built for. `frontier.json` has an entry for each recipe and seed.
"""

import json
import statistics
from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib.figure import Figure

from sparselab import train
from sparselab.files import machine, results, write_atomically
from sparselab.method import unknown
from sparselab.models import activations
from sparselab.plots import DENSE, FAINT, SPARSE, figure, note

RUNS = Path(".sparselab", "runs", "frontier")


def measure(
    names: Sequence[str] = (),
    *,
    seeds: Sequence[int] = (0, 1, 2),
    file: Path | None = None,
    progress: bool = True,
) -> list[dict]:
    """Train what `file` does not hold yet and save it entry by entry; returns all entries.

    Ctrl-C keeps the checkpoint of the run under way, and the next call goes on from there. Raises ValueError
    for a recipe that is not a language model's.
    """
    file = file or results() / "frontier.json"
    for name in names:
        if name not in recipes():
            raise ValueError(unknown("language model", name, recipes()))
    known = {(e["recipe"], e["seed"]): e for e in stored(file)}
    for seed in seeds:
        for name in names or recipes():
            if (name, seed) in known:
                continue
            out = RUNS / f"{name}-{seed}"
            begun = (out / train.CHECKPOINT).exists()
            outcome = train.run(name, out=out, seed=seed, resume=begun, progress=progress)
            if not outcome.finished:
                return list(known.values())
            known[name, seed] = entry(name, seed, outcome)
            write_atomically(file, json.dumps(list(known.values()), indent=1) + "\n")
    return list(known.values())


def recipes() -> list[str]:
    """The small language models, by name."""
    return [name for name in train.recipes() if name.endswith("_small")]


def stored(file: Path | None = None) -> list[dict]:
    """The entries measured so far."""
    file = file or results() / "frontier.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else []


def entry(name: str, seed: int, outcome: train.Outcome) -> dict:
    """One trained model: held-out loss, the active share of each block, FLOPs of one byte, weights."""
    recipe = train.recipes()[name]
    model, task = recipe.model().eval(), recipe.task()
    model.load_state_dict(torch.load(outcome.folder / train.CHECKPOINT, weights_only=True)["model"])
    active = shares(model, task.held_out[0])
    return {
        "recipe": name,
        "title": recipe.title,
        "seed": seed,
        "loss": train.evaluate(model, *task.held_out).loss,
        "active": active,
        "flops": flops(recipe, model.config, active),
        "parameters": sum(p.numel() for p in model.parameters()),
        "steps": outcome.steps,
        "bytes_seen": outcome.steps * recipe.batch * model.context,
        "command": f"sparselab train {name}" + (f" --seed {seed}" if seed else ""),
        **machine(),
    }


@torch.no_grad()
def shares(model, texts, *, batch: int = 64) -> list[float]:
    """The share of nonzero neurons in each block over all tokens of the texts."""
    totals = torch.zeros(len(model.blocks), dtype=torch.float64)
    for i in range(0, len(texts), batch):
        seen = activations(model, texts[i : i + batch], "blocks.*.ffn.hidden").values()
        totals += torch.stack([(a != 0).double().mean() * len(a) for a in seen])
    return (totals / len(texts)).tolist()


def flops(recipe: train.Recipe, config: dict, active: Sequence[float]) -> float:
    """FLOPs of one byte, averaged over its place in the context; the read-out is 2 d v of them."""
    places = range(1, config["context"] + 1)
    blocks = sum(recipe.flops(config, share, keys) for share in active for keys in places)
    return blocks / len(places) + 2 * config["width"] * config["vocab"]


def summary(entries: Sequence[dict]) -> list[dict]:
    """Median and range over the seeds for each recipe, cheapest first."""
    rows = []
    for name in dict.fromkeys(e["recipe"] for e in entries):
        own = [e for e in entries if e["recipe"] == name]
        losses = [e["loss"] for e in own]
        spread = {"loss": statistics.median(losses), "low": min(losses), "high": max(losses)}
        shared = {key: own[0][key] for key in ("recipe", "title", "parameters")}
        cost = statistics.median(e["flops"] for e in own)
        active = statistics.median(statistics.mean(e["active"]) for e in own)
        rows.append(dict(shared, **spread, flops=cost, active=active, seeds=len(own)))
    return sorted(rows, key=lambda row: row["flops"])


def draw(entries: Sequence[dict], *, title: str = "", alt: str = "") -> Figure:
    """Held-out loss against FLOPs of one byte: dots at the medians, bars over the seeds, the best so far."""
    fig, ax = figure(title, alt=alt, size=(7.6, 4.2))
    rows, stairs, above = summary(entries), [], False
    for row in rows:
        color, cost = SPARSE if row["active"] < 0.5 else DENSE, row["flops"] / 1e6
        ax.plot([cost, cost], [row["low"], row["high"]], color=color, linewidth=4, alpha=0.4)
        ax.plot(cost, row["loss"], "o", color=color, markersize=9)
        place = dict(dx=9)
        if any(_in_the_way(other, row, rows) for other in rows):
            above = not above
            place = dict(dx=0, dy=15 if above else -22)
        note(ax, row["title"], cost, row["loss"], color=color, **place)
        if not stairs or row["loss"] < stairs[-1][1]:
            stairs.append((cost, row["loss"]))
    ax.step(*zip(*stairs, strict=True), where="post", color=FAINT, zorder=0)
    ax.set(xlabel="million FLOPs for one byte", ylabel="held-out loss, nats per byte")
    ax.margins(x=0.2, y=0.1)
    return fig


def _in_the_way(other: dict, row: dict, rows: Sequence[dict]) -> bool:
    """Whether another dot lies to the right of this one, where its name would stand."""
    wide, high = (max(r[key] for r in rows) - min(r[key] for r in rows) for key in ("flops", "loss"))
    right, apart = other["flops"] - row["flops"], abs(other["loss"] - row["loss"])
    return 0 < right < 0.35 * wide and apart < 0.1 * high
