"""Decoding one byte at a time with a cache, where skipped work is really not done.

`TinyLM` computes all positions of a batch and hides what is not used; here one token comes at a time, keys
and values of the earlier ones are kept, and the feed-forward layer and the attention are functions that may
leave weights and keys unread. What they leave out, they must leave out in the model too: the two then write
the same text.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from .blocks import FFNWeights, one_each
from .lm import TinyLM

PrepareFFN = Callable[[FFNWeights], Callable[[Float[Tensor, " d"]], Float[Tensor, " d"]]]
AttendOne = Callable[
    [Float[Tensor, "h d"], Float[Tensor, "h s d"], Float[Tensor, "h s d"]], Float[Tensor, "h d"]
]


def attend_one(
    q: Float[Tensor, "h d"], k: Float[Tensor, "h s d"], v: Float[Tensor, "h s d"]
) -> Float[Tensor, "h d"]:
    """Dense attention of the newest token: `softmax(k q / sqrt(d)) v` over the s tokens so far."""
    return F.scaled_dot_product_attention(q[:, None], k, v)[:, 0]


class Decoder:
    """A language model that reads its text once: `decoder(text)` is `model(text)[0, -1]`, the next logits.

    Keys and values of the text are kept; a text that goes on from the last one costs its new bytes only, any
    other text starts anew. `ffn(weights)` is called once for each block, to lay the weights out as it wants,
    and returns the function of one token, or lists one such for each block; without it the model's own layer
    runs dense. `attend` sees the query of the newest token and the keys and values so far. Prompt and
    continuation go through the same functions: every token is as sparse as they make it. Raises ValueError
    for a text that is empty, longer than the context, or outside the vocabulary.
    """

    def __init__(
        self,
        model: TinyLM,
        *,
        ffn: PrepareFFN | Sequence[PrepareFFN] | None = None,
        attend: AttendOne = attend_one,
    ):
        self.model, self.attend = model.eval(), attend
        self.context, self.vocab = model.context, model.vocab
        with torch.no_grad():
            self.ffns = [
                prepare(block.ffn.weights) if prepare else _own(block.ffn)
                for prepare, block in zip(one_each("ffn", ffn, len(model.blocks)), model.blocks, strict=True)
            ]
        weight = model.embedding.weight
        heads = model.blocks[0].attention.heads
        cache = 2, len(model.blocks), heads, model.context, weight.shape[1] // heads
        self.keys, self.values = torch.empty(cache, dtype=weight.dtype, device=weight.device)
        self.text: list[int] = []

    @torch.no_grad()
    def __call__(self, text: Sequence[int]) -> Float[Tensor, " v"]:
        text = list(text)
        if not 0 < len(text) <= self.context:
            raise ValueError(f"a text of {len(text)} bytes: give 1 to {self.context}, the model's context")
        if not 0 <= min(text) <= max(text) < self.vocab:
            raise ValueError(f"tokens {min(text)} to {max(text)} leave the vocabulary of {self.vocab}")
        known = len(self.text) if text[: len(self.text)] == self.text and len(text) > len(self.text) else 0
        self.text = text[:known]
        for token in text[known:]:
            x = self._read(token)
        return self.model.embedding.weight @ self.model.norm(x)

    def _read(self, token: int) -> Float[Tensor, " d"]:
        """The last block's output for a token at the next place, whose keys and values join the cache."""
        at = len(self.text)
        x = self.model.embedding.weight[token]
        for layer, (block, ffn) in enumerate(zip(self.model.blocks, self.ffns, strict=True)):
            attention = block.attention
            q, k, v = attention.qkv(block.attention_norm(x)).view(3, attention.heads, 1, -1)
            if attention.rotate:
                q, k = attention.rotate(q, start=at), attention.rotate(k, start=at)
            self.keys[layer, :, at], self.values[layer, :, at] = k[:, 0], v[:, 0]
            seen = self.keys[layer, :, : at + 1], self.values[layer, :, : at + 1]
            x = x + attention.project(self.attend(q[:, 0], *seen).flatten())
            x = x + ffn(block.ffn_norm(x))
        self.text.append(token)
        return x


def _own(ffn) -> Callable[[Tensor], Tensor]:
    """The layer as it stands in the model, on one token."""
    return lambda x: ffn.activation(x, ffn.weights) @ ffn.down.mT
