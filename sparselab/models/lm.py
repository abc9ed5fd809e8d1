"""A byte-level language model."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn

from .blocks import Attend, Hidden, Rotate, causal, initialise, rotary, stack


class TinyLM(nn.Module):
    """Causal transformer over bytes: pre-norm (RMSNorm), rotary positions, tied embeddings, no biases.

    `attend` and `ffn` are functions, one for all blocks or a list with one for each; `ffn` may also be
    named "relu", "gelu" or "gated" (`gelu(x gate^T) * (x up^T)`). `gate` says whether gate weights exist,
    by default for "gated" only; `rotate` gives queries and keys their positions. Every tensor worth a look
    passes a named point: see `activations`.
    """

    def __init__(
        self,
        *,
        width: int = 128,
        layers: int = 4,
        heads: int = 4,
        neurons: int = 512,
        context: int = 256,
        vocab: int = 256,
        ffn: str | Hidden | Sequence[str | Hidden] = "relu",
        gate: bool | None = None,
        attend: Attend | Sequence[Attend] = causal,
        rotate: Rotate = rotary,
        dropout: float = 0.0,
    ):
        super().__init__()
        if min(context, vocab) < 1:
            raise ValueError(f"{context=} and {vocab=} must be at least 1")
        gate = ffn == "gated" if gate is None else gate
        sizes = dict(width=width, layers=layers, heads=heads, neurons=neurons)
        functions = dict(ffn=ffn, attend=attend, rotate=rotate)
        self.config = dict(sizes, context=context, vocab=vocab, **functions, gate=gate, dropout=dropout)
        self.context, self.vocab = context, vocab
        self.embedding = nn.Embedding(vocab, width)
        self.embedded = nn.Identity()
        self.blocks = stack(**sizes, **functions, gate=gate, dropout=dropout)
        self.norm = nn.RMSNorm(width, eps=1e-6)
        self.drop = nn.Dropout(dropout)
        self.normed, self.logits = nn.Identity(), nn.Identity()
        initialise(self)

    def forward(self, tokens: Integer[Tensor | np.ndarray, "b t"]) -> Float[Tensor, "b t v"]:
        """Logits of the next byte; ValueError for a text longer than the context and for unknown tokens."""
        tokens = torch.as_tensor(tokens, device=self.embedding.weight.device).long()
        if tokens.ndim != 2 or tokens.shape[1] > self.context:
            raise ValueError(
                f"tokens of shape {tuple(tokens.shape)}: want b t with t <= {self.context}, the context"
            )
        if tokens.numel() and not 0 <= int(tokens.min()) <= int(tokens.max()) < self.vocab:
            raise ValueError(f"tokens {tokens.min()} to {tokens.max()} leave the vocabulary of {self.vocab}")
        x = self.embedded(self.drop(self.embedding(tokens)))
        for block in self.blocks:
            x = block(x)
        return self.logits(self.normed(self.norm(x)) @ self.embedding.weight.mT)
