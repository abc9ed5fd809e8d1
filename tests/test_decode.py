"""The decoder writes what the model writes, and what it skips is really not read."""

import pytest
import torch

from sparselab import judge, train
from sparselab.lazy.lazy_neuron import model as lazy
from sparselab.lazy.spark import model as spark
from sparselab.models import Decoder, TinyLM, generate, load

TEXT = list(b"The while statement is used for repeated execution as long as an expression is true")
DECODERS = {"lm_topk_small": dict(ffn=lazy.decode_topk_ffn), "lm_spark_ffn_small": dict(ffn=spark.decode_ffn)}
DECODERS["lm_spark_small"] = dict(ffn=spark.decode_ffn, attend=spark.decode_attend)


@pytest.fixture(params=["lm_relu_small", "lm_gated_small", *DECODERS])
def pair(request):
    """A model whose layers matter, in float64, and its decoder."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = train.recipes()[request.param].model().double().eval()
        with torch.no_grad():
            for weight in model.parameters():
                weight.mul_(3 if weight.ndim > 1 else 1)
    return model, Decoder(model, **DECODERS.get(request.param, {}))


def last_logits(model, text):
    return model(torch.tensor([text]))[0, -1].detach().numpy()


def test_the_decoder_gives_the_model_s_logits(pair):
    model, decoder = pair
    for length in (1, 2, 40, len(TEXT)):
        got, want = decoder(TEXT[:length]).numpy(), last_logits(model, TEXT[:length])
        assert judge.same(got, want, rtol=1e-9, atol=1e-9), length


def test_the_decoder_writes_the_model_s_text(pair):
    model, decoder = pair
    assert generate(decoder, b"def f", n=60, temperature=0) == generate(model, b"def f", n=60, temperature=0)
    sampled = dict(n=40, temperature=1.0, top_p=0.9, seed=3)
    assert generate(decoder, "def f", **sampled) == generate(model, "def f", **sampled)


def test_another_text_starts_anew(pair):
    model, decoder = pair
    decoder(TEXT)
    for text in (TEXT[:30], TEXT[5:50], TEXT[5:50], TEXT[5:60]):
        assert judge.same(decoder(text).numpy(), last_logits(model, text), rtol=1e-9, atol=1e-9)


def test_a_longer_text_reads_its_new_bytes_only():
    seen = []
    decoder = Decoder(
        TinyLM(width=8, layers=1, heads=2, neurons=16),
        ffn=lambda w: lambda x: seen.append(1) or x,
    )
    decoder(TEXT[:10])
    decoder(TEXT[:13])
    assert len(seen) == 13


def test_idle_neurons_are_not_read():
    model = load("lm_relu")
    text = TEXT[:20]
    want = Decoder(model, ffn=lazy.decode_ffn)(text)
    active = torch.zeros(len(model.blocks), model.config["neurons"], dtype=torch.bool)
    layers = iter(list(range(len(model.blocks))) * len(text))

    def watching(w):
        def ffn(x):
            a = torch.relu(w.up @ x)
            active[next(layers)] |= a > 0
            return w.down @ a

        return ffn

    Decoder(model, ffn=watching)(text)
    assert 0.02 < active.double().mean() < 0.9
    with torch.no_grad():
        for block, used in zip(model.blocks, active, strict=True):
            block.ffn.down[:, ~used] = torch.nan
    assert judge.same(Decoder(model, ffn=lazy.decode_ffn)(text).numpy(), want.numpy(), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ([], "a text of 0 bytes: give 1 to 4, the model's context"),
        ([1, 2, 3, 4, 5], "a text of 5 bytes: give 1 to 4, the model's context"),
        ([1, 9], "tokens 1 to 9 leave the vocabulary of 7"),
        ([-1], "tokens -1 to -1 leave the vocabulary of 7"),
    ],
)
def test_a_text_that_cannot_be_read(text, says):
    decoder = Decoder(TinyLM(width=8, layers=1, heads=2, neurons=16, context=4, vocab=7))
    with pytest.raises(ValueError, match=says):
        decoder(text)
    assert decoder([1, 2]).shape == (7,)


def test_writing_past_the_context_is_refused_before_it_starts():
    decoder = Decoder(TinyLM(width=8, layers=1, heads=2, neurons=16, context=9))
    assert len(generate(decoder, b"abc", n=7)) == 10
    with pytest.raises(ValueError, match="a prompt of 3 bytes and n=8 exceed the context of 9"):
        generate(decoder, b"abc", n=8)
