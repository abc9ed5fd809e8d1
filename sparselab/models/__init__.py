"""Small real models that take a method as a function, and the weights trained for them."""

from .blocks import FFNWeights, bidirectional, causal
from .decode import Decoder
from .lm import TinyLM
from .points import activations, points, reaching
from .sampling import generate
from .vit import TinyViT
from .weights import card, load, named, names

__all__ = [
    "Decoder",
    "FFNWeights",
    "TinyLM",
    "TinyViT",
    "activations",
    "bidirectional",
    "card",
    "causal",
    "generate",
    "load",
    "named",
    "names",
    "points",
    "reaching",
]
