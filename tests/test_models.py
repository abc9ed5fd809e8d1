"""The models: shapes, functions plugged in, points, writing, and the weights that are shipped."""

import json

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sparselab import judge, train
from sparselab.models import (
    TinyLM,
    TinyViT,
    activations,
    bidirectional,
    card,
    causal,
    generate,
    load,
    named,
    names,
    points,
    reaching,
    weights,
)
from sparselab.models.blocks import rotary

SMALL = dict(width=16, layers=2, heads=2, neurons=24)


@pytest.fixture
def lm():
    torch.manual_seed(0)
    return TinyLM(**SMALL, context=12, vocab=40).eval()


@pytest.fixture
def tokens():
    return torch.randint(40, (3, 9), generator=torch.Generator().manual_seed(0))


def vit(**kwargs):
    torch.manual_seed(0)
    return TinyViT(**SMALL | kwargs).eval()


@pytest.mark.parametrize("ffn", ["relu", "gelu", "gated"])
def test_shapes(ffn, tokens):
    model = TinyLM(**SMALL, ffn=ffn)
    assert model(tokens).shape == (3, 9, 256)
    assert vit(ffn=ffn)(np.zeros((5, 8, 8))).shape == (5, 10)
    assert (model.blocks[0].ffn.gate is None) == (ffn != "gated")


def test_bytes_are_tokens(lm, tokens):
    assert judge.same(lm(tokens.numpy().astype(np.uint8)), lm(tokens))


def test_the_language_model_does_not_look_ahead(lm, tokens):
    changed = tokens.clone()
    changed[:, 5:] = (changed[:, 5:] + 1) % 40
    before, after = lm(tokens), lm(changed)
    assert judge.same(before[:, :5], after[:, :5], rtol=1e-5, atol=1e-6)
    assert not judge.same(before[:, 5], after[:, 5], rtol=1e-5, atol=1e-6)


def test_the_language_model_knows_the_order(lm):
    assert not judge.same(lm([[1, 2, 3]])[0, -1], lm([[2, 1, 3]])[0, -1], rtol=1e-4, atol=1e-6)


def test_rotary_turns_by_distance_only():
    q, k = torch.randn(2, 1, 1, 1, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    scores = rotary(q.expand(1, 1, 10, 8)) @ rotary(k.expand(1, 1, 10, 8)).mT
    for distance in range(-9, 10):
        diagonal = scores[0, 0].diagonal(distance)
        assert judge.same(diagonal, diagonal[:1].expand_as(diagonal))
    assert judge.same(scores[0, 0, 0, 0], (q * k).sum())
    turned = torch.stack([torch.tensor([[c, -s], [s, c]]) @ q[0, 0, 0, [0, 4]] for c, s in [cos_sin(3.0)]])[0]
    assert judge.same(rotary(q.expand(1, 1, 10, 8))[0, 0, 3, [0, 4]], turned)


def cos_sin(angle):
    return np.cos(angle), np.sin(angle)


def test_attention_sees_distances_only(lm):
    seen = activations(lm, [[5] * 9], ["blocks.0.attention.q", "blocks.0.attention.k"])
    scores = torch.matmul(*(x if name.endswith("q") else x.mT for name, x in seen.items()))[0, 0]
    for distance in range(-8, 1):
        diagonal = scores.diagonal(distance)
        assert judge.same(diagonal, diagonal[:1].expand_as(diagonal), rtol=1e-4, atol=1e-6)
    assert not judge.same(scores[8], scores[8, :1].expand(9), rtol=1e-3)


def test_the_vit_sees_where_a_patch_lies():
    image = torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert not judge.same(vit()(image), vit()(image.flip(1)), rtol=1e-4, atol=1e-6)
    patch = activations(nn.Sequential(vit()), image, "*embedded")["0.embedded"][0, 5]
    model = vit()
    assert judge.same(
        patch, model.embedding.weight @ image[0, 2:4, 2:4].flatten() + model.positions[5], rtol=1e-5
    )


def test_half_the_neurons_fire_at_the_start():
    torch.manual_seed(0)
    model = TinyLM(width=64, layers=3, heads=4, neurons=256)
    text = torch.randint(256, (8, 64))
    for hidden in activations(model, text, "blocks.*.ffn.hidden").values():
        assert abs((hidden > 0).float().mean() - 0.5) < 0.02


def test_a_function_takes_the_place_of_the_feed_forward(lm, tokens):
    def top(x, w):
        h = F.relu(x @ w.up.mT)
        return torch.zeros_like(h).scatter(-1, *reversed(h.topk(3, dim=-1)))

    sparse = TinyLM(**SMALL, context=12, vocab=40, ffn=top)
    sparse.load_state_dict(lm.state_dict())
    for h in activations(sparse, tokens, "*.hidden").values():
        assert (h > 0).sum(-1).max() == 3
    assert not judge.same(sparse(tokens), lm(tokens), rtol=1e-3)


def test_one_function_for_each_block(lm, tokens):
    off = TinyLM(**SMALL, context=12, vocab=40, ffn=["relu", lambda x, w: x @ w.up.mT * 0])
    off.load_state_dict(lm.state_dict())
    first, second = activations(off, tokens, "*.hidden").values()
    assert first.any() and not second.any()


def test_a_gate_can_be_given_to_a_function(tokens):
    model = TinyLM(**SMALL, gate=True, ffn=lambda x, w: F.gelu(x @ w.gate.mT) * (x @ w.up.mT))
    named = TinyLM(**SMALL, ffn="gated")
    named.load_state_dict(model.state_dict())
    assert judge.same(model(tokens), named(tokens))


def test_a_function_takes_the_place_of_attention(lm, tokens):
    shapes = []

    def own_value(q, k, v):
        shapes.append((q.shape, k.shape, v.shape))
        return v

    blind = TinyLM(**SMALL, context=12, vocab=40, attend=own_value)
    blind.load_state_dict(lm.state_dict())
    same_last = tokens.clone()
    same_last[:, :-1] = 0
    assert judge.same(blind(tokens)[:, -1], blind(same_last)[:, -1], rtol=1e-5, atol=1e-6)
    assert set(shapes) == {((3, 2, 9, 8),) * 3}
    mixed = TinyLM(**SMALL, context=12, vocab=40, attend=[causal, own_value])
    mixed.load_state_dict(lm.state_dict())
    assert not judge.same(mixed(tokens), blind(tokens), rtol=1e-3)


def test_the_dense_attentions_are_softmax():
    q, k, v = torch.randn(3, 2, 2, 5, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    scores = q @ k.mT / 8**0.5
    assert judge.same(bidirectional(q, k, v), scores.softmax(-1) @ v)
    masked = scores.masked_fill(torch.ones(5, 5).triu(1).bool(), -torch.inf)
    assert judge.same(causal(q, k, v), masked.softmax(-1) @ v)


def test_dropout_is_off_in_eval_mode_and_never_touches_the_hidden(tokens):
    model = TinyLM(**SMALL, dropout=0.9)
    assert not judge.same(model(tokens), model(tokens), rtol=1e-3)
    torch.manual_seed(0)
    hidden = activations(model, tokens, "blocks.0.ffn.hidden")["blocks.0.ffn.hidden"]
    assert (hidden > 0).float().mean() > 0.3
    model.eval()
    assert judge.same(model(tokens), model(tokens))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: TinyLM(ffn="rleu"), "no feed-forward is called 'rleu'; did you mean 'relu'"),
        (lambda: TinyLM(ffn="gated", gate=False), "'gated' needs the weights of gate=True"),
        (lambda: TinyLM(width=10, heads=4), "width=10 does not give heads=4 of an even width"),
        (lambda: TinyLM(width=12, heads=4), "width=12 does not give heads=4 of an even width"),
        (lambda: TinyViT(width=10, heads=4), "width=10 does not give heads=4 of a whole width"),
        (lambda: TinyLM(layers=0), "layers=0"),
        (lambda: TinyLM(context=0), "context=0"),
        (lambda: TinyLM(layers=3, attend=[causal]), "attend lists 1 functions for 3 layers"),
        (lambda: TinyViT(patch=3), "patches of 3x3 do not tile an image of 8x8"),
        (lambda: TinyLM(context=4)([[1] * 5]), r"tokens of shape \(1, 5\): want b t with t <= 4"),
        (lambda: TinyLM()([1, 2]), r"tokens of shape \(2,\)"),
        (lambda: TinyLM(vocab=4)([[4]]), "tokens 4 to 4 leave the vocabulary of 4"),
        (lambda: TinyViT()(np.zeros((2, 9, 8))), r"images of shape \(2, 9, 8\) are not b 8 8"),
    ],
)
def test_what_does_not_fit_is_refused(make, says):
    with pytest.raises(ValueError, match=says):
        make()


def test_activations_are_what_the_model_computes(lm, tokens):
    seen = activations(
        lm, tokens, ["logits", "blocks.*.ffn.hidden", "blocks.1.ffn.x", "blocks.*.attention.q"]
    )
    assert list(seen) == [
        "blocks.0.attention.q",
        "blocks.0.ffn.hidden",
        "blocks.1.attention.q",
        "blocks.1.ffn.x",
        "blocks.1.ffn.hidden",
        "logits",
    ]
    assert list(points(lm))[0] == "embedded" and list(points(lm))[-2:] == ["normed", "logits"]
    assert judge.same(seen["logits"], lm(tokens))
    assert judge.same(
        seen["blocks.1.ffn.hidden"], F.relu(seen["blocks.1.ffn.x"] @ lm.blocks[1].ffn.up.mT), rtol=1e-5
    )
    assert seen["blocks.0.attention.q"].shape == (3, 2, 9, 8)
    assert seen["logits"].requires_grad


def hooks(model):
    return sum(len(module._forward_hooks) for module in model.modules())


def test_no_hook_stays_behind(lm, tokens):
    activations(lm, tokens, "*")
    assert hooks(lm) == 0
    with pytest.raises(ValueError, match="want b t"):
        activations(lm, tokens[0], "*")
    assert hooks(lm) == 0
    with pytest.raises(ValueError, match="called 'blocks.0.ffn.hiden'; did you mean 'blocks.0.ffn.hidden'"):
        activations(lm, tokens, ["logits", "blocks.0.ffn.hiden"])
    assert hooks(lm) == 0


def test_reaching_into_a_point_changes_what_follows(lm, tokens):
    before = lm(tokens)
    with reaching(lm, {"blocks.*.residual": torch.zeros_like}) as model:
        assert hooks(lm) == 2
        changed = activations(model, tokens, ["normed", "blocks.0.residual"])
    assert not changed["normed"].any() and not changed["blocks.0.residual"].any()
    assert hooks(lm) == 0 and judge.same(lm(tokens), before)
    with reaching(lm, {"logits": lambda _: None}) as model:
        assert judge.same(model(tokens), before)


def test_writing_repeats_itself_and_follows_the_prompt(lm):
    one = generate(lm, b"\x01\x02\x03", n=30, seed=1)
    assert one[:3] == b"\x01\x02\x03" and len(one) == 33 and max(one) < 40
    assert one == generate(lm, b"\x01\x02\x03", n=30, seed=1) != generate(lm, b"\x01\x02\x03", n=30, seed=2)
    assert generate(lm, b"\x01", n=0) == b"\x01"
    assert isinstance(generate(lm, "\n", n=3), str)
    assert not lm.training and lm.train() and generate(lm, b"\x01", n=1) and lm.training


def test_writing_takes_the_most_likely_at_no_temperature(lm):
    written = generate(lm, b"\x05", n=5, temperature=0)
    for i in range(1, 6):
        assert written[i] == lm([list(written[:i])])[0, -1].argmax()
    assert written == generate(lm, b"\x05", n=5, top_p=1e-9, temperature=1.0, seed=3)


def test_writing_draws_from_the_softmax(lm):
    with reaching(lm, {"logits": lambda x: torch.zeros_like(x).index_fill(-1, torch.arange(4, 40), -50.0)}):
        counts = np.bincount(list(generate(lm, b"\x00", n=400, temperature=1.0)[1:]), minlength=4)
        cut = generate(lm, b"\x00", n=100, temperature=1.0, top_p=0.6)[1:]
    assert len(counts) == 4 and counts.min() > 60
    assert set(cut) == {0, 1, 2}


@pytest.mark.parametrize(("temperature", "chance"), [(1.0, 0.269), (0.5, 0.119), (4.0, 0.438)])
def test_temperature_flattens_the_softmax(lm, temperature, chance):
    logits = torch.full((40,), -1000.0).index_put((torch.tensor([0, 1]),), torch.tensor([0.0, -1.0]))
    with reaching(lm, {"logits": lambda x: logits.expand_as(x)}):
        written = generate(lm, b"\x00", n=600, temperature=temperature)[1:]
    assert abs(np.mean(list(written)) - chance) < 0.06


@pytest.mark.parametrize(
    ("prompt", "kwargs", "says"),
    [
        ("", {}, "a prompt of 0 bytes: give 1 to 12"),
        (b"\x01" * 13, {}, "a prompt of 13 bytes: give 1 to 12"),
        ("(", {}, "the prompt holds the byte 40, the vocabulary ends at 39"),
        (b"\x01", dict(n=-1), "n=-1"),
        (b"\x01", dict(temperature=-1.0), "temperature=-1"),
        (b"\x01", dict(top_p=0.0), "top_p=0"),
    ],
)
def test_a_prompt_that_cannot_be_continued(lm, prompt, kwargs, says):
    with pytest.raises(ValueError, match=says):
        generate(lm, prompt, **kwargs)


@pytest.mark.parametrize("name", names())
def test_the_shipped_losses_are_those_of_the_card(name):
    about, model = card(name), load(name)
    task = train.recipes()[name].task()
    got = train.evaluate(model, *task.held_out)
    # Another Python has another text: the loss moves a little, and a broken model is far off.
    slack = 1e-3 if task.data == about["data"] else 0.3
    assert abs(got.loss - about["held_out"]["loss"]) < slack
    assert abs(got.accuracy - about["held_out"]["accuracy"]) < max(slack, 2 / got.count)
    assert abs(about["held_out"]["loss"] - about["held_out_float32"]["loss"]) < 2e-3
    assert about["parameters"] == sum(p.numel() for p in model.parameters())
    assert about["bytes"] < 4e6 and not model.training
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_the_shipped_relu_models_are_lazy():
    model = load("lm_relu")
    task = train.RECIPES["lm_relu"].task()
    with torch.no_grad():
        for hidden in activations(model, task.held_out[0][:8], "blocks.*.ffn.hidden").values():
            assert (hidden > 0).float().mean() < 0.35


def test_a_shipped_model_takes_a_function():
    def relu(x, w):
        return F.relu(x @ w.up.mT).clamp(max=0)

    tokens = [list(b"The statement")]
    assert not activations(load("lm_relu", ffn=relu), tokens, "*.hidden")["blocks.0.ffn.hidden"].any()
    gated = load("lm_gated", ffn=lambda x, w: F.gelu(x @ w.gate.mT) * (x @ w.up.mT))
    assert judge.same(gated(tokens), load("lm_gated")(tokens))


def test_weights_that_are_not_the_card_s(tmp_path, lm):
    for suffix in (".json", ".safetensors"):
        (tmp_path / f"vit_relu{suffix}").write_bytes((weights.FOLDER / f"vit_relu{suffix}").read_bytes())
    assert names(folder=tmp_path) == ["vit_relu"] and load("vit_relu", folder=tmp_path)
    file = tmp_path / "vit_relu.safetensors"
    blob = file.read_bytes()
    with pytest.raises(ValueError, match="of vit_relu do not fit TinyViT with {'width': 32}"):
        load("vit_relu", folder=tmp_path, width=32)
    altered = bytearray(blob)
    altered[-1] ^= 1
    for bad in (blob[:1000], b"", bytes(altered)):
        file.write_bytes(bad)
        with pytest.raises(
            ValueError, match=rf"not the file its card describes \({len(bad)} of {len(blob)} bytes"
        ):
            load("vit_relu", folder=tmp_path)
    file.unlink()
    with pytest.raises(FileNotFoundError, match="missing though its card is there"):
        load("vit_relu", folder=tmp_path)
    with pytest.raises(ValueError, match="no model is called 'vit_rleu'; did you mean 'vit_relu'"):
        load("vit_rleu", folder=tmp_path)
    (tmp_path / "vit_relu.json").write_text("{")
    with pytest.raises(ValueError, match="is damaged"):
        card("vit_relu", folder=tmp_path)


def test_functions_are_stored_by_the_name_that_finds_them():
    stored = named(TinyLM(attend=causal, ffn="gelu").config)
    assert (stored["ffn"], stored["attend"]) == ("gelu", "sparselab.models.blocks:causal")
    assert json.loads(json.dumps(stored)) == stored
    with pytest.raises(ValueError, match="ffn=.*lambda.* cannot be stored"):
        named(TinyLM(ffn=lambda x, w: x @ w.up.mT).config)


@pytest.mark.parametrize("name", names())
def test_a_card_says_how_the_model_came_about(name):
    about = card(name)
    assert about["command"] == f"python -m sparselab train {name} --weights sparselab/models/weights"
    assert about["model"] in ("TinyLM", "TinyViT") and about["steps"] == train.recipes()[name].steps
    assert {"seed", "batch", "train", "minutes", "date", "torch", "python", "sha256"} <= set(about)
    assert about["config"] == json.loads(json.dumps(named(train.recipes()[name].model().config)))
