"""What the lazy methods skip in decoding, and that the text is that of the masked dense model."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial

import numpy as np
import pytest
import torch

from sparselab import judge, train
from sparselab.data import text
from sparselab.formats.rows import fast as rows_fast
from sparselab.lazy.cats import fast as cats_fast
from sparselab.lazy.cats import model as cats
from sparselab.lazy.deja_vu import fast as deja_vu_fast
from sparselab.lazy.deja_vu import model as deja_vu
from sparselab.lazy.lazy_neuron import model as lazy_neuron
from sparselab.lazy.teal import model as teal
from sparselab.models import Decoder, TinyLM, activations, generate, load, reaching
from sparselab.models.meter import Meter

PROMPT = b"The function returns "
PASSAGE = PROMPT + b'the value of "x", or None.'
KEEP = 24


@cache
def weights(name: str) -> TinyLM:
    """In float64, where only a wrong neuron can part two ways to compute the same."""
    return load(name).double()


def with_ffn(name: str, **replace) -> TinyLM:
    model = load(name, **replace).double()
    model.load_state_dict(weights(name).state_dict())
    return model


@cache
def tokens() -> torch.Tensor:
    windows = text.windows(text.pydocs("train"), length=128, n=4, rng=np.random.default_rng(0))
    return torch.from_numpy(windows).long()


@cache
def predictors() -> tuple[deja_vu_fast.Params, ...]:
    """Of rank 8 and untrained: whom they select does not matter here."""
    config, draw = weights("lm_relu").config, torch.Generator().manual_seed(0)
    d, m = config["width"], config["neurons"]
    shapes = [((d, 8), (8, m))] * config["layers"]
    return tuple(
        deja_vu_fast.Params(*(torch.randn(s, generator=draw, dtype=torch.float64) for s in pair))
        for pair in shapes
    )


@contextmanager
def idle(_) -> Iterator[tuple[Decoder, TinyLM]]:
    yield Decoder(weights("lm_relu"), ffn=lazy_neuron.decode_ffn), weights("lm_relu")


@contextmanager
def by_teal(sparsity: float) -> Iterator[tuple[Decoder, TinyLM]]:
    model = weights("lm_gated")
    cuts = teal.calibrate(model, tokens(), sparsity=sparsity)
    with reaching(model, teal.masks(cuts)):
        yield teal.decoder(model, cuts), model


@contextmanager
def by_cats(sparsity: float) -> Iterator[tuple[Decoder, TinyLM]]:
    cuts = cats.calibrate(weights("lm_gated"), tokens(), sparsity=sparsity)
    masked = with_ffn("lm_gated", ffn=[partial(cats.hidden, cut=cut) for cut in cuts], gate=True)
    yield Decoder(masked, ffn=[partial(cats.decode_ffn, cut=cut) for cut in cuts]), masked


@contextmanager
def by_deja_vu(keep: int) -> Iterator[tuple[Decoder, TinyLM]]:
    settings = [dict(params=params, keep=keep) for params in predictors()]
    masked = with_ffn("lm_relu", ffn=[partial(deja_vu.hidden, **setting) for setting in settings])
    yield Decoder(masked, ffn=[partial(deja_vu.decode_ffn, **setting) for setting in settings]), masked


WAYS = {
    "idle neurons": partial(idle, None),
    "TEAL at 50 %": partial(by_teal, 0.5),
    "TEAL at 90 %": partial(by_teal, 0.9),
    "TEAL, everything": partial(by_teal, 1.0),
    "CATS at 50 %": partial(by_cats, 0.5),
    "CATS at 95 %": partial(by_cats, 0.95),
    "Deja Vu": partial(by_deja_vu, KEEP),
    "Deja Vu, nothing": partial(by_deja_vu, 0),
}
each_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


def logits(model: TinyLM | Decoder, read: bytes) -> torch.Tensor:
    if isinstance(model, Decoder):
        return model(read)
    with torch.no_grad():
        return model(torch.tensor([list(read)]))[0, -1]


@each_way
def test_the_engine_says_what_the_masked_model_says(way):
    with way() as (decoder, masked):
        for end in (1, 2, len(PROMPT), len(PASSAGE)):
            assert judge.same(logits(decoder, PASSAGE[:end]), logits(masked, PASSAGE[:end]))


@each_way
def test_the_engine_writes_what_the_masked_model_writes(way):
    with way() as (decoder, masked):
        for temperature in (0, 0.7):
            written = generate(decoder, PROMPT, n=40, temperature=temperature)
            assert written == generate(masked, PROMPT, n=40, temperature=temperature)


@pytest.mark.parametrize("name", [name for name in WAYS if name != "idle neurons"])
def test_what_is_left_out_matters(name):
    """Otherwise the tests above would pass for an engine that skips nothing."""
    with WAYS[name]() as (decoder, _):
        sparse = logits(decoder, PASSAGE)
    dense = logits(weights("lm_relu" if "Deja" in name else "lm_gated"), PASSAGE)
    assert not judge.same(sparse, dense, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "decoder",
    [
        lambda: teal.decoder(weights("lm_gated"), [teal.Cuts(*[torch.tensor(-1.0)] * 4)] * 6),
        lambda: Decoder(
            weights("lm_gated"), ffn=[partial(cats.decode_ffn, cut=torch.tensor(-1.0).double())] * 6
        ),
    ],
    ids=["TEAL", "CATS"],
)
def test_a_cut_below_everything_is_the_dense_model(decoder):
    assert judge.same(logits(decoder(), PASSAGE), logits(weights("lm_gated"), PASSAGE))


def test_all_neurons_predicted_is_the_dense_model():
    m = weights("lm_relu").config["neurons"]
    with by_deja_vu(m) as (decoder, _):
        assert judge.same(logits(decoder, PASSAGE), logits(weights("lm_relu"), PASSAGE))


def test_blocks_keep_their_own_cuts():
    model = weights("lm_gated")
    cuts = teal.calibrate(model, tokens(), sparsity=0.5)
    assert not judge.same(
        logits(teal.decoder(model, cuts[::-1]), PASSAGE), logits(teal.decoder(model, cuts), PASSAGE)
    )


def test_the_model_is_left_as_it_was():
    model, before = weights("lm_gated"), logits(weights("lm_gated"), PASSAGE)
    logits(teal.decoder(model, teal.calibrate(model, tokens(), sparsity=0.9)), PASSAGE)
    assert judge.same(logits(model, PASSAGE), before)


def test_cuts_drop_their_share_of_the_calibration_text():
    model = weights("lm_gated")
    for sparsity in (0.5, 0.9):
        into = teal.masks(teal.calibrate(model, tokens(), sparsity=sparsity))
        seen = activations(model, tokens(), list(into))
        shares = [float((f(seen[name]) == 0).double().mean()) for name, f in into.items()]
        assert len(shares) == 24 and max(abs(share - sparsity) for share in shares) < 0.05
    gates = [
        torch.nn.functional.gelu(x @ block.ffn.gate.T)
        for x, block in zip(
            activations(model, tokens(), "blocks.*.ffn.x").values(), model.blocks, strict=True
        )
    ]
    for gate, cut in zip(gates, cats.calibrate(model, tokens(), sparsity=0.7), strict=True):
        assert abs(float((gate.abs() <= cut).double().mean()) - 0.7) < 0.01


def test_a_list_of_functions_must_fit_the_blocks():
    with pytest.raises(ValueError, match="ffn lists 5 functions for 6 layers"):
        Decoder(weights("lm_relu"), ffn=[lazy_neuron.decode_ffn] * 5)


def test_a_model_file_without_recipes_leaves_the_recipes_alone():
    assert {"lm_relu", "lm_topk"} <= set(train.recipes())


# ---------------------------------------------------------------- bytes


def read_by(decoder: Decoder, passage: bytes = PASSAGE) -> int:
    """Bytes of weights for reading a passage byte by byte, the logits after each."""
    with Meter() as meter:
        for end in range(1, len(passage) + 1):
            decoder(passage[:end])
    return meter.bytes


def dense_bytes(model: TinyLM, *, attention: float = 1, ffn: float = 1) -> float:
    """What the shapes say, 8 bytes a weight; the shares that attention and feed-forward layers read."""
    c = model.config
    matrices = 3 if c["gate"] else 2
    layer = attention * 4 * c["width"] ** 2 + ffn * matrices * c["width"] * c["neurons"]
    return 8 * len(PASSAGE) * (c["layers"] * layer + c["vocab"] * c["width"])


@pytest.mark.parametrize("name", ["lm_relu", "lm_gated"])
def test_the_dense_engine_reads_every_weight_once_per_byte(name):
    assert read_by(Decoder(weights(name))) == dense_bytes(weights(name))


def test_idle_neurons_are_read_in_the_first_matrix_only():
    model = weights("lm_relu")
    maps = activations(model, torch.tensor([list(PASSAGE)]), "blocks.*.ffn.hidden")
    density = float(torch.stack([(h > 0).double().mean() for h in maps.values()]).mean())
    with idle(None) as (decoder, _):
        assert judge.same(float(read_by(decoder)), dense_bytes(model, ffn=0.5 + density / 2))


@pytest.mark.parametrize("sparsity", [0.5, 0.9])
def test_teal_reads_the_columns_that_survive(sparsity):
    model = weights("lm_gated")
    with by_teal(sparsity) as (decoder, masked):
        seen = activations(masked, torch.tensor([list(PASSAGE)]), [f"blocks.*.{p}" for p in teal.POINTS])
        d, m = model.config["width"], model.config["neurons"]
        rows = {"attention.x": 3 * d, "attention.mixed": d, "ffn.x": 2 * m, "ffn.hidden": d}
        kept = sum(int((x != 0).sum()) * rows[name.split(".", 2)[2]] for name, x in seen.items())
        unembedding = 8 * len(PASSAGE) * model.config["vocab"] * d
        assert read_by(decoder) == 8 * kept + unembedding


def test_cats_reads_what_its_formula_says():
    model = weights("lm_gated")
    with by_cats(0.7) as (decoder, masked):
        maps = activations(masked, torch.tensor([list(PASSAGE)]), "blocks.*.ffn.hidden")
        width = model.config["width"]
        read = sum(int(cats_fast.bytes_read(h[0] != 0, width=width, each=8).sum()) for h in maps.values())
        assert read_by(decoder) == read + dense_bytes(model, ffn=0)


def test_deja_vu_reads_what_its_formula_says():
    with by_deja_vu(KEEP) as (decoder, masked):
        share = float(deja_vu_fast.weights_read(predictors()[0], keep=KEEP))
        assert judge.same(float(read_by(decoder)), dense_bytes(masked, ffn=share))


W = torch.ones(6, 4)


@pytest.mark.parametrize(
    ("read", "rows"),
    [
        (lambda x: W @ x, 6),
        (lambda x: x[None] @ W.T, 6),
        (lambda x: W.T[:, :2].T @ x, 2),
        (lambda x: torch.nn.functional.linear(x, W), 6),
        (lambda x: W[torch.tensor([1, 1, 5])] @ x, 3),
        (lambda x: W.index_select(0, torch.tensor([2])), 1),
        (lambda x: W.contiguous().T.contiguous().T @ x, 0),
        (lambda x: torch.nn.functional.embedding_bag(torch.tensor([0, 3]), W, torch.tensor([0])), 2),
        (lambda x: torch.nn.functional.embedding(torch.tensor([[0, 3]]), W), 2),
        (lambda x: rows_fast.total(W, torch.tensor([1, 1, 5]), x[:3]), 3),
        (lambda x: rows_fast.dot(W, torch.tensor([1, 5]), x), 2),
        (lambda x: W[2] + x, 0),
        (lambda x: torch.outer(x, x) @ x, 0),
        (lambda x: x.relu_().add_(1), 0),
    ],
    ids=[
        "product", "from the left", "a part", "linear", "gathered once, not again in the product",
        "selected", "a copy", "summed", "looked up", "rows.total", "rows.dot",
        "one row", "a product of its own making",
        "no matrix",
    ],
)  # fmt: skip
def test_the_meter_counts_rows_of_weights_and_nothing_else(read, rows):
    x = torch.ones(4)
    with Meter() as meter:
        read(x)
    assert meter.bytes == rows * 4 * 4


def test_the_meter_counts_each_time_anew_and_while_it_lasts():
    with Meter() as meter:
        W @ torch.ones(4)
        W @ torch.ones(4)
    W @ torch.ones(4)
    assert meter.bytes == 2 * W.nbytes
