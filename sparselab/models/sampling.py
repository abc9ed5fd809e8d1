"""Writing with a language model."""

from collections.abc import Callable
from typing import TypeVar

import torch

from .decode import Decoder
from .lm import TinyLM

Text = TypeVar("Text", bytes, str)


@torch.no_grad()
def generate(
    model: TinyLM | Decoder,
    prompt: Text,
    *,
    n: int = 200,
    temperature: float = 0.7,
    top_p: float = 1.0,
    seed: int = 0,
) -> Text:
    """The prompt with `n` bytes sampled after it, as bytes or as str like the prompt.

    Each byte is drawn from `softmax(logits / temperature)`, cut down to the most likely bytes that together
    hold `top_p` of it (arXiv:1904.09751); `temperature=0` takes the most likely. The model sees the last
    `context` bytes; a decoder keeps them all, and prompt and continuation must fit. Raises ValueError for a
    prompt that is empty, longer than the context, or outside the vocabulary, and for settings outside their
    range.
    """
    if n < 0 or temperature < 0 or not 0 < top_p <= 1:
        raise ValueError(f"{n=} and {temperature=} must not be negative and {top_p=} must lie in (0, 1]")
    written = bytearray(prompt.encode() if isinstance(prompt, str) else prompt)
    if not 0 < len(written) <= model.context:
        raise ValueError(f"a prompt of {len(written)} bytes: give 1 to {model.context}, the model's context")
    if max(written) >= model.vocab:
        raise ValueError(
            f"the prompt holds the byte {max(written)}, the vocabulary ends at {model.vocab - 1}"
        )
    if isinstance(model, Decoder) and len(written) + n > model.context + 1:
        raise ValueError(f"a prompt of {len(written)} bytes and {n=} exceed the context of {model.context}")
    draws = torch.rand(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    read = model if isinstance(model, Decoder) else _whole(model)
    for draw in draws:
        written.append(_pick(read(written).double().cpu(), draw, temperature, top_p))
    return written.decode(errors="replace") if isinstance(prompt, str) else bytes(written)


def _whole(model: TinyLM) -> Callable[[bytearray], torch.Tensor]:
    """The next byte's logits from all positions computed anew, in eval mode."""

    def read(written: bytearray) -> torch.Tensor:
        training = model.training
        logits = model.eval()(torch.tensor([list(written[-model.context :])]))[0, -1]
        model.train(training)
        return logits

    return read


def _pick(logits: torch.Tensor, draw: torch.Tensor, temperature: float, top_p: float) -> int:
    if temperature == 0:
        return int(logits.argmax())
    chance, byte = torch.softmax(logits / temperature, dim=-1).sort(descending=True, stable=True)
    before = chance.cumsum(0) - chance
    chance = chance * (before < top_p)
    upto = chance.cumsum(0)
    return int(byte[torch.searchsorted(upto, draw * upto[-1], right=True).clamp(max=len(byte) - 1)])
