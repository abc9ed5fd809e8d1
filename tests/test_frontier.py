"""The frontier: FLOPs that anybody can count again, shares as they are, runs that are kept."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from sparselab import frontier, train
from sparselab.models import TinyLM

TINY = dict(width=8, layers=2, heads=2, neurons=16, context=12, vocab=7)


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    """Two recipes that learn to count, and a folder of its own."""

    def count(starts):
        line = (starts[:, None] + np.arange(13)) % 7
        return line[:, :-1], line[:, 1:]

    whole = count(np.arange(7))
    task = train.Task(lambda rng, n: count(rng.integers(0, 7, n)), whole, whole, "tokens", {})
    plain = train.Recipe(
        model=lambda **kwargs: TinyLM(**TINY | kwargs),
        task=lambda: task,
        steps=6,
        batch=2,
        rate=1e-2,
        every=3,
    )
    plain = dataclasses.replace(plain, flops=train.dense_block, title="plain")
    lean = dataclasses.replace(plain, flops=train.idle_down_block, title="lean")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(train, "recipes", lambda: {"a_small": plain, "b_small": lean, "whole": plain})
    return tmp_path / "results" / "frontier.json"


def measure(file, **options):
    return frontier.measure(file=file, progress=False, **options)


def test_every_small_recipe_and_seed_is_trained_once(tiny, monkeypatch):
    entries = measure(tiny, seeds=[0, 1])
    assert [(e["recipe"], e["seed"]) for e in entries] == [
        ("a_small", 0),
        ("b_small", 0),
        ("a_small", 1),
        ("b_small", 1),
    ]
    assert json.loads(tiny.read_text()) == entries
    a, b = entries[:2]
    assert (a["loss"], a["active"]) == (b["loss"], b["active"]) and a["flops"] > b["flops"]
    assert a["steps"] == 6 and a["bytes_seen"] == 6 * 2 * 12
    monkeypatch.setattr(train, "run", lambda *args, **kwargs: pytest.fail("trained again"))
    assert measure(tiny, seeds=[0, 1]) == entries


def test_a_stopped_run_is_not_an_entry_and_goes_on(tiny, monkeypatch):
    real = train.run
    stopped = lambda *args, **kwargs: real(*args, **kwargs)._replace(step=3)  # noqa: E731
    monkeypatch.setattr(train, "run", stopped)
    assert measure(tiny, seeds=[0]) == [] and not tiny.exists()
    monkeypatch.setattr(train, "run", real)
    assert len(measure(tiny, seeds=[0])) == 2


def test_an_unknown_model_is_refused(tiny):
    with pytest.raises(ValueError, match="no language model is called 'c_small'; did you mean"):
        measure(tiny, names=["a_small", "c_small"])
    assert not tiny.exists()  # refused before anything is trained


def test_flops_are_those_of_a_dense_transformer():
    config = dict(width=8, neurons=16, gate=False, context=3, vocab=7)
    plain = dataclasses.replace(train.RECIPES["lm_gelu"], flops=train.dense_block)
    keys = (1 + 2 + 3) / 3
    block = 8 * 8**2 + 4 * 8 * keys + 4 * 8 * 16
    assert frontier.flops(plain, config, [1.0, 0.5]) == pytest.approx(2 * block + 2 * 8 * 7)
    gated = frontier.flops(plain, config | {"gate": True}, [1.0])
    assert gated - (block + 2 * 8 * 7) == pytest.approx(2 * 8 * 16)


def test_shares_are_the_nonzero_neurons_of_each_block():
    def half(x, w):
        return torch.ones(*x.shape[:-1], 16) * (torch.arange(16) < 8)

    model = TinyLM(**TINY, ffn=[half, "gelu"])
    assert frontier.shares(model, np.zeros((5, 12), int), batch=2) == [0.5, 1.0]


def test_the_summary_is_the_median_and_the_range():
    row = dict(title="t", parameters=9, flops=10.0, active=[0.1, 0.3])
    entries = [row | dict(recipe="a", seed=i, loss=loss) for i, loss in enumerate((3.0, 1.0, 2.0))]
    entries += [row | dict(recipe="b", seed=0, loss=5.0, flops=4.0)]
    cheap, dear = frontier.summary(entries)
    assert (cheap["recipe"], dear["recipe"]) == ("b", "a")
    assert (dear["loss"], dear["low"], dear["high"], dear["seeds"]) == (2.0, 1.0, 3.0, 3)
    assert dear["active"] == pytest.approx(0.2)


def test_the_figure_shows_every_model_and_the_best_so_far():
    row = dict(title="t", parameters=9, active=[0.1])
    entries = [row | dict(recipe=str(i), seed=0, loss=x, flops=1e6 * i) for i, x in enumerate((3, 4, 2), 1)]
    ax = frontier.draw(entries, title="T", alt="A").axes[0]
    dots = [line for line in ax.lines if line.get_marker() == "o"]
    assert [float(d.get_xdata()[0]) for d in dots] == [1.0, 2.0, 3.0]
    stairs = ax.lines[-1]
    assert list(stairs.get_ydata()) == [3, 2]


@pytest.mark.parametrize("entry", frontier.stored(), ids=lambda e: f"{e['recipe']}-{e['seed']}")
def test_stored_entries_are_those_of_today_s_recipes(entry):
    recipe = train.recipes()[entry["recipe"]]
    model = recipe.model()
    assert entry["title"] == recipe.title and entry["steps"] == recipe.steps
    assert entry["parameters"] == sum(p.numel() for p in model.parameters())
    assert entry["flops"] == pytest.approx(frontier.flops(recipe, model.config, entry["active"]))
