"""One training loop for all models: recipes by name, checkpoints that survive, any number of processes.

A run is a function of (recipe, steps, seed) alone: what is random at a step is drawn from (seed, step), so a
run that was stopped and resumed ends with the same weights, bit for bit, as one that was not. It trains on
the CPU; started by `torchrun` each process takes its share of the same batch and the gradients are averaged.
"""

import datetime
import hashlib
import io
import json
import math
import os
import platform
import shlex
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import safetensors.torch
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn import functional as F

from sparselab.data import fingerprint, images, text
from sparselab.files import write_atomically
from sparselab.method import methods, unknown
from sparselab.models import TinyLM, TinyViT, named

CHECKPOINT = "checkpoint.pt"


class Task(NamedTuple):
    """What is learnt: batches `(x, y)` drawn with a generator, sets to measure on, a unit to count in."""

    batch: Callable[[np.random.Generator, int], tuple[np.ndarray, np.ndarray]]
    train: tuple[np.ndarray, np.ndarray]
    held_out: tuple[np.ndarray, np.ndarray]
    unit: str
    data: dict


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How one model is trained: AdamW, `rate` warmed up over `warmup` steps, then a cosine down to zero.

    `title` names it in a figure. `flops(config, active, keys)` is what one token costs in one block of a
    language model, with the share `active` of its neurons at work and `keys` tokens in sight.
    """

    model: Callable[..., nn.Module]
    task: Callable[..., Task]
    steps: int
    batch: int
    rate: float
    decay: float = 0.1
    warmup: int = 100
    clip: float = 1.0
    every: int = 100
    flops: Callable[[dict, float, float], float] | None = None
    title: str = ""


class Score(NamedTuple):
    """Mean cross-entropy in nats and share of right predictions, over `count` predictions."""

    loss: float
    accuracy: float
    count: int


class Outcome(NamedTuple):
    """Where a run's checkpoint lies, how far it came, its (step, training loss, held-out loss) so far."""

    folder: Path
    step: int
    steps: int
    history: list[tuple[int, float, float]]

    @property
    def finished(self) -> bool:
        return self.step == self.steps

    def __str__(self) -> str:
        loss = f", held-out loss {self.history[-1][2]:.3f}" if self.history else ""
        return f"step {self.step} of {self.steps}{loss}, in {self.folder}"


def pydocs(*, context: int = 256) -> Task:
    """Next-byte prediction on the Python language reference."""
    train, held_out = text.pydocs("train"), text.pydocs("held_out")

    def pairs(windows):
        return windows[:, :-1], windows[:, 1:]

    return Task(
        batch=lambda rng, n: pairs(text.windows(train, length=context + 1, n=n, rng=rng)),
        train=pairs(text.tiles(train, length=context + 1)),
        held_out=pairs(text.tiles(held_out, length=context + 1)),
        unit="bytes",
        data={"name": "pydocs", "train": fingerprint(train), "held_out": fingerprint(held_out)},
    )


def digits() -> Task:
    """Classification of 8x8 digits, each training image moved by up to one pixel each way."""
    train, held_out = images.digits("train"), images.digits("held_out")

    def batch(rng, n):
        pick = rng.integers(0, len(train.labels), size=n)
        return images.shifted(train.images[pick], rng.integers(-1, 2, size=(n, 2))), train.labels[pick]

    data = {"name": "digits", "train": fingerprint(train.images), "held_out": fingerprint(held_out.images)}
    return Task(batch=batch, train=train, held_out=held_out, unit="images", data=data)


def dense_attention(config: dict, keys: float) -> float:
    """FLOPs of one token in dense attention: 8 d^2 for the four projections, 4 d n for n keys."""
    return 8 * config["width"] ** 2 + 4 * config["width"] * keys


def dense_block(config: dict, active: float, keys: float) -> float:
    """FLOPs of one token in a dense block: attention, and 4 d m for its neurons, gated 6 d m."""
    matrices = 3 if config["gate"] else 2
    return dense_attention(config, keys) + 2 * matrices * config["width"] * config["neurons"]


def idle_down_block(config: dict, active: float, keys: float) -> float:
    """FLOPs of one token where the down-projection skips the idle neurons: 2 d m + 2 d m active."""
    return dense_attention(config, keys) + 2 * config["width"] * config["neurons"] * (1 + active)


def lm(title: str, *, flops: Callable[[dict, float, float], float] = dense_block, **kwargs) -> Recipe:
    """The recipe of every language model on the documentation: they differ in their functions only."""
    sizes = dict(width=128, layers=6, heads=4, context=256, dropout=0.2)
    model, pace = partial(TinyLM, **sizes | kwargs), dict(steps=2500, batch=16, rate=2e-3)
    return Recipe(model=model, task=pydocs, **pace, flops=flops, title=title)


def small(recipe: Recipe) -> Recipe:
    """The same language model with two blocks, 128 bytes of context and fewer steps: trained in minutes."""
    model = partial(recipe.model, layers=2, context=128)
    return replace(recipe, model=model, task=partial(recipe.task, context=128), steps=1000)


RECIPES = {
    "lm_relu": lm("ReLU", ffn="relu", neurons=512, flops=idle_down_block),
    "lm_gelu": lm("GELU", ffn="gelu", neurons=512),
    "lm_gated": lm("gated GELU", ffn="gated", neurons=352),
    "lm_narrow": lm("GELU, fewer neurons", ffn="gelu", neurons=160),
    "vit_relu": Recipe(model=lambda: TinyViT(ffn="relu"), task=digits, steps=3000, batch=64, rate=2e-3),
}


def recipes() -> dict[str, Recipe]:
    """Every recipe by name: those here, those of the methods' `model.py`, `NAME_small` of language models."""
    found = dict(RECIPES)
    for method in methods():
        found |= getattr(method.part("model"), "RECIPES", {}) if method.has("model") else {}
    return found | {f"{name}_small": small(recipe) for name, recipe in found.items() if recipe.flops}


def run(
    name: str,
    *,
    out: str | Path | None = None,
    steps: int | None = None,
    seed: int = 0,
    resume: bool = False,
    restart: bool = False,
    progress: bool = True,
    callback: Callable[[int, nn.Module], None] | None = None,
) -> Outcome:
    """Train the recipe `name` in the folder `out`, by default `.sparselab/runs/NAME`.

    A checkpoint is written every `Recipe.every` steps and on Ctrl-C. `callback(step, model)` sees the model,
    in eval mode, before the first step and after each. Raises ValueError for an unknown recipe, for a folder
    that holds a run unless `resume` or `restart` is given, and for a `resume` that asks for another run;
    FileNotFoundError where there is nothing to resume; OSError, with the last checkpoint intact, where a
    checkpoint cannot be written.
    """
    recipe = _recipe(name)
    folder = Path(out) if out is not None else Path(".sparselab", "runs", name)
    state = _begin(folder, name, recipe, steps, seed, resume, restart)
    step, steps, history, losses, stop = state["step"], state["steps"], state["history"], [], False
    with torch.random.fork_rng(devices=[]), _processes() as (rank, world), _interrupts() as interrupted:
        if recipe.batch % world:
            raise ValueError(f"a batch of {recipe.batch} does not split over {world} processes")
        torch.manual_seed(_draw(seed))
        model, task = recipe.model(), recipe.task()
        optimiser = _optimiser(model, recipe)
        if resume:
            _restore(model, state, folder)
            optimiser.load_state_dict(state["optimiser"])
        net = nn.parallel.DistributedDataParallel(model) if world > 1 else model
        spent, start = state["seconds"], time.monotonic()

        def keep(step):
            if losses:
                history.append((step, float(np.mean(losses)), evaluate(model, *task.held_out).loss))
                losses.clear()
            state.update(step=step, seconds=spent + time.monotonic() - start)
            state.update(model=model.state_dict(), optimiser=optimiser.state_dict())
            _save(folder, state)

        if rank == 0 and not resume:
            keep(0)
        if callback and rank == 0 and step == 0:
            callback(0, model.eval())
        with _bar(name, state, task.unit, shown=progress and rank == 0) as show:
            while step < steps and not stop:
                step += 1
                x, y = task.batch(np.random.default_rng([seed, step]), recipe.batch)
                torch.manual_seed(_draw(seed, step, rank))
                rate = recipe.rate * _schedule(step, steps, recipe.warmup)
                losses.append(_update(net, optimiser, x[rank::world], y[rank::world], rate, recipe.clip))
                if not math.isfinite(losses[-1]):
                    kept = state["step"]
                    raise ValueError(f"the loss is {losses[-1]} at step {step}; {folder} keeps step {kept}")
                show(step, losses[-1], y.size)
                if callback and rank == 0:
                    callback(step, model.eval())
                stop = _any(interrupted(), world)
                if rank == 0 and (stop or step % recipe.every == 0 or step == steps):
                    keep(step)
    if step < steps and rank == 0:
        again = _command(state, out, "--resume")
        _console().print(f"Stopped at step {step} of {steps}, saved in {folder}. Go on with: {again}")
    return Outcome(folder, step, steps, history)


def evaluate(model: nn.Module, x, y, *, batch: int = 64) -> Score:
    """Loss and accuracy of a model, in eval mode, over all of `x` and `y`."""
    training, total, right = model.training, 0.0, 0
    model.eval()
    with torch.no_grad():
        for i in range(0, len(x), batch):
            logits, wanted = model(x[i : i + batch]), y[i : i + batch]
            total += _cross_entropy(logits, wanted).item() * wanted.size
            right += int((logits.argmax(-1).numpy() == wanted).sum())
    model.train(training)
    return Score(total / y.size, right / y.size, y.size)


def export(folder: str | Path, weights_dir: str | Path) -> Path:
    """Write the weights of a finished run, in half precision, and the card that says how they came about.

    The losses on the card are those of the weights as stored; `held_out_float32` is before rounding to half.
    Raises FileNotFoundError where the folder holds no run, ValueError where the run is not finished.
    """
    state = _checkpoint(Path(folder))
    name, recipe = state["recipe"], _recipe(state["recipe"])
    if state["step"] < state["steps"]:
        raise ValueError(
            f"the run in {folder} is at step {state['step']} of {state['steps']}: finish it first"
        )
    model, task = recipe.model(), recipe.task()
    _restore(model, state, Path(folder))
    exact = evaluate(model, *task.held_out)
    stored = {key: tensor.half().contiguous() for key, tensor in model.state_dict().items()}
    model.load_state_dict(stored)
    train, held_out = evaluate(model, *task.train), evaluate(model, *task.held_out)
    blob = safetensors.torch.save(stored)
    y = task.held_out[1]
    card = {
        "model": type(model).__name__,
        "config": named(model.config),
        "parameters": sum(p.numel() for p in model.parameters()),
        "data": task.data,
        "train": train._asdict(),
        "held_out": held_out._asdict(),
        "held_out_float32": exact._asdict(),
        "seed": state["seed"],
        "steps": state["steps"],
        "batch": recipe.batch,
        f"{task.unit}_seen": state["steps"] * recipe.batch * (y.size // len(y)),
        "history": state["history"],
        "command": _command(state, None, f"--weights {shlex.quote(Path(weights_dir).as_posix())}"),
        "minutes": round(state["seconds"] / 60, 1),
        "date": datetime.date.today().isoformat(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "bytes": len(blob),
        "sha256": hashlib.sha256(blob).hexdigest(),
    }
    path = Path(weights_dir) / f"{name}.safetensors"
    _folder(path.parent)
    _write(path, blob)
    _write(path.with_suffix(".json"), (json.dumps(card, indent=1) + "\n").encode())
    return path


def _recipe(name: str) -> Recipe:
    known = recipes()
    if name not in known:
        raise ValueError(unknown("recipe", name, list(known)))
    return known[name]


def _begin(folder, name, recipe, steps, seed, resume, restart) -> dict:
    if resume and restart:
        raise ValueError("resume goes on with a run, restart begins it again: give one of them")
    if seed < 0 or (steps is not None and steps < 1):
        raise ValueError(f"{steps=} must be at least 1 and {seed=} at least 0")
    if not resume:
        if not restart and (folder / CHECKPOINT).exists():
            raise ValueError(
                f"{folder} holds a run already: go on with --resume or begin again with --restart"
            )
        _folder(folder)
        return dict(recipe=name, seed=seed, steps=steps or recipe.steps, step=0, seconds=0.0, history=[])
    state = _checkpoint(folder)
    asked = dict(recipe=name, seed=seed, steps=steps or state["steps"])
    for key, value in asked.items():
        if state[key] != value:
            raise ValueError(
                f"{folder} was begun with {key} {state[key]}, not {value}: resume it as it began"
            )
    return state


def _checkpoint(folder: Path) -> dict:
    path = folder / CHECKPOINT
    if not path.exists():
        raise FileNotFoundError(f"{folder} holds no run: start one without --resume")
    try:
        return torch.load(path, weights_only=True)
    except Exception:
        raise ValueError(f"{path} is damaged and cannot be read: begin again with --restart") from None


def _restore(model: nn.Module, state: dict, folder: Path) -> None:
    try:
        model.load_state_dict(state["model"])
    except RuntimeError:
        raise ValueError(
            f"{folder} was trained by another version of {state['recipe']}: restart it"
        ) from None


def _write(path: Path, data: bytes) -> None:
    try:
        write_atomically(path, data)
    except OSError as error:
        raise OSError(f"cannot write {path} ({error.strerror}); what was there before is intact") from None


def _save(folder: Path, state: dict) -> None:
    # Serialised in memory first: torch.save reports a full disk as an internal error of its zip writer.
    buffer = io.BytesIO()
    torch.save(state, buffer)
    _write(folder / CHECKPOINT, buffer.getvalue())


def _folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"cannot make the folder {folder} ({error.strerror})") from None


def _command(state: dict, out, action: str) -> str:
    options = [f"--out {shlex.quote(str(out))}"] if out is not None else []
    options += [f"--seed {state['seed']}"] if state["seed"] else []
    options += [f"--steps {state['steps']}"] if state["steps"] != _recipe(state["recipe"]).steps else []
    return " ".join(["python -m sparselab train", state["recipe"], *options, action])


def _draw(*key: int) -> int:
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])


def _optimiser(model: nn.Module, recipe: Recipe) -> torch.optim.AdamW:
    matrices = [p for p in model.parameters() if p.ndim > 1]
    scales = [p for p in model.parameters() if p.ndim < 2]
    groups = [dict(params=matrices, weight_decay=recipe.decay), dict(params=scales, weight_decay=0.0)]
    return torch.optim.AdamW(groups, lr=recipe.rate, betas=(0.9, 0.99), fused=True)


def _update(net: nn.Module, optimiser: torch.optim.Optimizer, x, y, rate: float, clip: float) -> float:
    for group in optimiser.param_groups:
        group["lr"] = rate
    loss = _cross_entropy(net.train()(x), y)
    optimiser.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(net.parameters(), clip)
    optimiser.step()
    return loss.item()


def _schedule(step: int, steps: int, warmup: int) -> float:
    return min(step / warmup, (1 + math.cos(math.pi * (step - 1) / steps)) / 2)


def _cross_entropy(logits: Tensor, wanted: np.ndarray) -> Tensor:
    return F.cross_entropy(logits.flatten(0, -2), torch.as_tensor(wanted).long().flatten())


@contextmanager
def _processes() -> Iterator[tuple[int, int]]:
    """Rank and number of processes: those of `torchrun`, or (0, 1)."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield 0, 1
        return
    dist.init_process_group("gloo")
    try:
        yield dist.get_rank(), dist.get_world_size()
        dist.barrier()  # no process goes on, perhaps to resume, before the last checkpoint is written
    finally:
        dist.destroy_process_group()


def _any(flag: bool, world: int) -> bool:
    """Whether the flag is up in any process, so that all of them stop at the same step."""
    if world == 1:
        return flag
    flags = torch.tensor(int(flag))
    dist.all_reduce(flags)
    return bool(flags)


@contextmanager
def _interrupts() -> Iterator[Callable[[], bool]]:
    """Lets the step under way finish after Ctrl-C; a second Ctrl-C stops at once."""
    pressed = []

    def press(number, frame):
        if pressed:
            raise KeyboardInterrupt
        pressed.append(number)

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = {number: signal.signal(number, press) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(pressed)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _bar(name: str, state: dict, unit: str, *, shown: bool) -> Iterator[Callable[[int, float, int], None]]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.3f}  {task.fields[pace]:,.0f} " + f"{unit}/s"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=_console(), disable=not shown) as progress:
        bar = progress.add_task(name, total=state["steps"], completed=state["step"], loss=math.nan, pace=0.0)
        start, done = time.monotonic(), 0

        def show(step, loss, count):
            nonlocal done
            done += count
            progress.update(bar, completed=step, loss=loss, pace=done / (time.monotonic() - start))

        yield show


def _console() -> Console:
    return Console(stderr=True, highlight=False, soft_wrap=True, markup=False)
