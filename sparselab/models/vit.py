"""A vision transformer for 8x8 digits."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from .blocks import Attend, Hidden, bidirectional, initialise, stack


class TinyViT(nn.Module):
    """Transformer over the patches of an image, read out from their mean: learnt positions, no class token.

    `attend`, `ffn` and `gate` are those of `TinyLM`; the attention here sees all patches.
    """

    def __init__(
        self,
        *,
        size: int = 8,
        patch: int = 2,
        classes: int = 10,
        width: int = 64,
        layers: int = 4,
        heads: int = 4,
        neurons: int = 256,
        ffn: str | Hidden | Sequence[str | Hidden] = "relu",
        gate: bool | None = None,
        attend: Attend | Sequence[Attend] = bidirectional,
        dropout: float = 0.0,
    ):
        super().__init__()
        if patch < 1 or size < 1 or size % patch:
            raise ValueError(f"patches of {patch}x{patch} do not tile an image of {size}x{size}")
        gate = ffn == "gated" if gate is None else gate
        sizes = dict(width=width, layers=layers, heads=heads, neurons=neurons)
        image = dict(size=size, patch=patch, classes=classes)
        self.config = dict(image, **sizes, ffn=ffn, gate=gate, dropout=dropout)
        self.size, self.patch = size, patch
        self.embedding = nn.Linear(patch * patch, width, bias=False)
        self.positions = nn.Parameter(torch.empty((size // patch) ** 2, width))
        self.embedded = nn.Identity()
        self.blocks = stack(**sizes, attend=attend, ffn=ffn, gate=gate, rotate=None, dropout=dropout)
        self.norm = nn.RMSNorm(width, eps=1e-6)
        self.read = nn.Linear(width, classes, bias=False)
        self.drop = nn.Dropout(dropout)
        self.normed, self.logits = nn.Identity(), nn.Identity()
        initialise(self)

    def forward(self, images: Float[Tensor | np.ndarray, "b y x"]) -> Float[Tensor, "b c"]:
        """Logits of the classes; ValueError for images of another size."""
        images = torch.as_tensor(images, device=self.positions.device).to(self.positions.dtype)
        if images.shape[1:] != (self.size, self.size):
            raise ValueError(f"images of shape {tuple(images.shape)} are not b {self.size} {self.size}")
        patches = images.unfold(1, self.patch, self.patch).unfold(2, self.patch, self.patch)
        tokens = self.embedding(patches.flatten(3).flatten(1, 2)) + self.positions
        x = self.embedded(self.drop(tokens))
        for block in self.blocks:
            x = block(x)
        return self.logits(self.read(self.normed(self.norm(x)).mean(dim=1)))
