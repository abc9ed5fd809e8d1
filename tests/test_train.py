"""The training loop: the same weights however it was interrupted, and nothing that was written is lost."""

import contextlib
import dataclasses
import errno
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch

from sparselab import judge, train
from sparselab.models import TinyLM, card, load
from sparselab.train import Recipe, Task

STEPS = 12


def counting(*, batch=4, dropout=0.1) -> Recipe:
    """A model that learns to count modulo 7, with dropout, so that every source of randomness is in play."""

    def count(starts):
        line = (starts[:, None] + np.arange(9)) % 7
        return line[:, :-1], line[:, 1:]

    task = Task(
        batch=lambda rng, n: count(rng.integers(0, 7, size=n)),
        train=count(np.arange(7)),
        held_out=count(np.arange(7)),
        unit="tokens",
        data={"name": "counting"},
    )
    model = dict(width=8, layers=1, heads=2, neurons=16, context=8, vocab=7)
    return Recipe(
        model=lambda: TinyLM(**model, dropout=dropout),
        task=lambda: task,
        steps=STEPS,
        batch=batch,
        rate=1e-2,
        warmup=3,
        every=5,
    )


@pytest.fixture(autouse=True)
def recipe(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(train.RECIPES, "tiny", counting())


def run(out, **kwargs):
    return train.run("tiny", **dict(out=out, progress=False) | kwargs)


def state(out):
    return torch.load(out / train.CHECKPOINT, weights_only=True)


def same_weights(one, other):
    return judge.same(state(one)["model"], state(other)["model"], rtol=0, atol=0)


def interrupt_at(step):
    def callback(now, model):
        if now == step:
            os.kill(os.getpid(), signal.SIGINT)

    return callback


def test_a_seed_gives_the_weights_and_another_gives_others(tmp_path):
    one, two, other = tmp_path / "one", tmp_path / "two", tmp_path / "other"
    run(one)
    torch.manual_seed(123)
    run(two)
    run(other, seed=1)
    assert same_weights(one, two) and not same_weights(one, other)


def test_every_step_draws_its_own_batch_and_dropout(tmp_path, monkeypatch):
    batches, masks = [], []
    plain = counting()
    task = plain.task()

    def batch(rng, n):
        x, y = task.batch(rng, n)
        batches.append(x.tobytes())
        return x, y

    class Watched(TinyLM):
        def forward(self, tokens):
            if self.training:
                masks.append(torch.rand(8).numpy().tobytes())
            return super().forward(tokens)

    recipe = dataclasses.replace(
        plain, model=lambda: Watched(**plain.model().config), task=lambda: task._replace(batch=batch)
    )
    monkeypatch.setitem(train.RECIPES, "tiny", recipe)
    run(tmp_path / "whole")
    assert len(set(batches)) > 9 and len(set(masks)) == STEPS
    run(tmp_path / "broken", callback=interrupt_at(4))
    run(tmp_path / "broken", resume=True)
    assert batches[:STEPS] == batches[STEPS:] and masks[:STEPS] == masks[STEPS:]


def test_training_learns_and_leaves_the_caller_s_randomness_alone(tmp_path):
    torch.manual_seed(5)
    want = torch.rand(1)
    torch.manual_seed(5)
    outcome = run(tmp_path / "run", steps=150)
    assert judge.same(torch.rand(1), want)
    assert outcome.finished and outcome.history[-1][2] < 0.5 < outcome.history[0][2]
    assert [row[0] for row in outcome.history] == list(range(5, 151, 5))


def test_the_default_folder_is_named_after_the_recipe(tmp_path):
    outcome = train.run("tiny", steps=1, progress=False)
    assert (tmp_path / ".sparselab/runs/tiny" / train.CHECKPOINT).exists() and outcome.step == 1


@pytest.mark.parametrize("stop", [1, 5, 7, 11])
def test_ctrl_c_and_resume_give_the_weights_of_an_unbroken_run(tmp_path, stop, capsys):
    whole, broken = tmp_path / "whole", tmp_path / "broken run"
    run(whole, steps=13, seed=2)
    before = signal.getsignal(signal.SIGINT)
    outcome = run(broken, steps=13, seed=2, callback=interrupt_at(stop))
    assert signal.getsignal(signal.SIGINT) is before
    assert outcome.step == stop and not outcome.finished
    said = capsys.readouterr().err
    assert f"Stopped at step {stop} of 13" in said
    assert f"python -m sparselab train tiny --out '{broken}' --seed 2 --steps 13 --resume" in said
    assert not same_weights(whole, broken)
    assert run(broken, seed=2, resume=True).finished
    assert same_weights(whole, broken)
    assert judge.same(state(whole)["optimiser"]["state"], state(broken)["optimiser"]["state"], rtol=0, atol=0)


def test_a_killed_run_loses_the_last_interval_only(tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    run(whole)

    def die(step, model):
        if step == 9:
            raise SystemExit  # what kill -9 leaves behind: no checkpoint of this step

    with pytest.raises(SystemExit):
        run(broken, callback=die)
    assert state(broken)["step"] == 5
    run(broken, resume=True)
    assert same_weights(whole, broken)


def test_a_second_ctrl_c_stops_at_once(tmp_path):
    def twice(step, model):
        if step == 7:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run", callback=twice)
    assert state(tmp_path / "run")["step"] == 5


def test_resuming_a_finished_run_changes_nothing(tmp_path):
    run(tmp_path)
    before = (tmp_path / train.CHECKPOINT).read_bytes()
    assert run(tmp_path, resume=True).finished
    assert (tmp_path / train.CHECKPOINT).read_bytes() == before


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_full_disk_keeps_the_checkpoint(tmp_path, monkeypatch, number):
    real, calls = os.fsync, []

    def full(file):
        calls.append(file)
        if len(calls) > 2:
            raise OSError(number, os.strerror(number))
        real(file)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=f"cannot write .*{os.strerror(number)}.*intact") as raised:
        run(tmp_path)
    assert "\n" not in str(raised.value)
    assert state(tmp_path)["step"] == 5 and os.listdir(tmp_path) == [train.CHECKPOINT]
    monkeypatch.setattr(os, "fsync", real)
    assert run(tmp_path, resume=True).finished


def test_a_kill_in_the_middle_of_writing_keeps_the_checkpoint(tmp_path, monkeypatch):
    real = os.replace

    def die(*args):
        if state(tmp_path)["step"] == 5:
            raise SystemExit
        real(*args)

    run(tmp_path, callback=interrupt_at(5))
    monkeypatch.setattr(os, "replace", die)
    with pytest.raises(SystemExit):
        run(tmp_path, resume=True)
    monkeypatch.setattr(os, "replace", real)
    assert state(tmp_path)["step"] == 5
    assert run(tmp_path, resume=True).finished and os.listdir(tmp_path) == [train.CHECKPOINT]


def test_a_run_is_not_overwritten_by_accident(tmp_path):
    run(tmp_path, steps=3)
    with pytest.raises(ValueError, match="holds a run already: go on with --resume or begin again"):
        run(tmp_path)
    assert run(tmp_path, restart=True, steps=4).step == 4


@pytest.mark.parametrize(
    ("kwargs", "kind", "says"),
    [
        (dict(resume=True, restart=True), ValueError, "give one of them"),
        (dict(steps=0), ValueError, "steps=0 must be at least 1"),
        (dict(seed=-1), ValueError, "seed=-1 at least 0"),
        (dict(resume=True, out="nowhere"), FileNotFoundError, "nowhere holds no run"),
        (dict(resume=True, seed=3), ValueError, "was begun with seed 0, not 3"),
        (dict(resume=True, steps=9), ValueError, "was begun with steps 3, not 9"),
    ],
)
def test_what_cannot_be_run_is_refused(tmp_path, kwargs, kind, says):
    run(tmp_path, steps=3)
    before = (tmp_path / train.CHECKPOINT).read_bytes()
    with pytest.raises(kind, match=says):
        run(**dict(out=tmp_path) | kwargs)
    assert (tmp_path / train.CHECKPOINT).read_bytes() == before


def test_unknown_recipes_and_folders_that_cannot_be_made(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="no recipe is called 'lm_rleu'; did you mean 'lm_relu'"):
        train.run("lm_rleu")
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="cannot make the folder .*file"):
        run(tmp_path / "file")
    run(tmp_path, steps=3)
    monkeypatch.setitem(train.RECIPES, "other", counting())
    with pytest.raises(ValueError, match="was begun with recipe tiny, not other"):
        train.run("other", out=tmp_path, resume=True)


def test_a_damaged_checkpoint_is_one_line(tmp_path):
    run(tmp_path, steps=3)
    path = tmp_path / train.CHECKPOINT
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(
        ValueError, match="is damaged and cannot be read: begin again with --restart"
    ) as raised:
        run(tmp_path, resume=True)
    assert "\n" not in str(raised.value)


def test_a_recipe_that_has_changed_is_one_line(tmp_path, monkeypatch):
    run(tmp_path, steps=3)
    model = TinyLM(width=16, layers=1, heads=2, neurons=16, context=8, vocab=7)
    monkeypatch.setitem(train.RECIPES, "tiny", dataclasses.replace(counting(), model=lambda: model))
    for again in (lambda: run(tmp_path, resume=True), lambda: train.export(tmp_path, tmp_path)):
        with pytest.raises(ValueError, match="was trained by another version of tiny: restart it"):
            again()


def test_a_loss_that_is_not_a_number_stops_the_run(tmp_path):
    def spoil(step, model):
        if step == 7:
            model.norm.weight.data.fill_(torch.nan)

    with pytest.raises(ValueError, match="the loss is nan at step 8; .* keeps step 5"):
        run(tmp_path, callback=spoil)
    assert state(tmp_path)["step"] == 5


def test_the_callback_sees_every_step_in_eval_mode(tmp_path):
    seen = []
    run(tmp_path, callback=lambda step, model: seen.append((step, model.training)))
    assert seen == [(step, False) for step in range(STEPS + 1)]


def test_watching_does_not_change_the_run(tmp_path):
    run(tmp_path / "one")
    run(tmp_path / "two", callback=lambda step, model: torch.rand(3))
    assert same_weights(tmp_path / "one", tmp_path / "two")


def test_the_bar_is_drawn_only_when_asked_for(tmp_path, capsys):
    run(tmp_path / "quiet")
    quiet = capsys.readouterr()
    run(tmp_path / "shown", progress=True)
    shown = capsys.readouterr()
    assert quiet.out == quiet.err == shown.out == "" and "12/12" in shown.err and "tokens/s" in shown.err


def test_evaluate_weighs_every_prediction_the_same():
    model = counting().model()
    x, y = counting().task().held_out
    logits = model.eval()(x)
    want = torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.as_tensor(y).flatten())
    model.train()
    for batch in (2, 3, 7, 50):
        got = train.evaluate(model, x, y, batch=batch)
        assert judge.same(got.loss, want.item(), rtol=1e-6) and got.count == 56 and model.training
        assert got.accuracy == (logits.argmax(-1).numpy() == y).mean()


def test_the_rate_warms_up_and_falls_to_nothing():
    rates = [train._schedule(step, 100, 10) for step in range(1, 101)]
    assert judge.same(np.array(rates[:9]), np.arange(1, 10) / 10, rtol=1e-9)
    assert np.argmax(rates) == 9 and (np.diff(rates[9:]) < 0).all() and 0 < rates[-1] < 0.001


def test_export_writes_what_load_reads(tmp_path, monkeypatch):
    run(tmp_path / "run", seed=4, steps=40)
    path = train.export("run", "weights")
    assert path.resolve() == tmp_path / "weights/tiny.safetensors"
    model, about = load("tiny", folder=path.parent), card("tiny", folder=path.parent)
    kept = state(tmp_path / "run")["model"]
    assert judge.same(model.state_dict(), {k: v.half().float() for k, v in kept.items()}, rtol=0, atol=0)
    got = train.evaluate(model, *counting().task().held_out)
    assert judge.same(about["held_out"], got._asdict(), rtol=1e-6)
    assert about["command"] == "python -m sparselab train tiny --seed 4 --steps 40 --weights weights"
    assert (about["seed"], about["steps"], about["batch"], about["tokens_seen"]) == (4, 40, 4, 40 * 4 * 8)
    assert about["history"][-1][0] == 40 and about["data"] == {"name": "counting"}
    assert path.stat().st_size == about["bytes"]


def test_export_refuses_a_run_that_is_not_finished(tmp_path):
    run(tmp_path / "run", callback=interrupt_at(4))
    with pytest.raises(ValueError, match="is at step 4 of 12: finish it first"):
        train.export(tmp_path / "run", tmp_path / "weights")
    with pytest.raises(FileNotFoundError, match="holds no run"):
        train.export(tmp_path / "none", tmp_path / "weights")
    assert not (tmp_path / "weights").exists()


SCRIPT = """
import sys
import torch
sys.path[:0] = sys.argv[3:]
from sparselab import train
from test_train import counting, interrupt_at
torch.set_num_threads(1)
train.RECIPES["tiny"] = counting(batch=8, dropout=0.0)
train.run("tiny", out=sys.argv[1], progress=False, resume=sys.argv[2] == "resume", callback=interrupt_at(3))
"""


@pytest.mark.slow
def test_two_processes_stopped_and_resumed_train_like_one(tmp_path, monkeypatch):
    monkeypatch.setitem(train.RECIPES, "tiny", counting(batch=8, dropout=0.0))
    run(tmp_path / "one")
    (tmp_path / "script.py").write_text(SCRIPT)
    here = os.path.dirname(__file__)
    for action, step in (("start", 3), ("resume", STEPS)):
        torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
        arguments = [tmp_path / "script.py", tmp_path / "two", action, here, os.path.dirname(here)]
        subprocess.run([sys.executable, *torchrun, *map(str, arguments)], check=True, timeout=120)
        assert state(tmp_path / "two")["step"] == step
    assert judge.same(
        state(tmp_path / "one")["model"], state(tmp_path / "two")["model"], rtol=1e-4, atol=1e-5
    )


def test_a_batch_that_the_processes_cannot_share(tmp_path, monkeypatch):
    monkeypatch.setattr(train, "_processes", lambda: contextlib.nullcontext((0, 3)))
    with pytest.raises(ValueError, match="a batch of 4 does not split over 3 processes"):
        run(tmp_path)
