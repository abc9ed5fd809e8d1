"""Spark in the byte model: as many weights as `lm_relu`, 8 % of the neurons, at most 32 bytes a head."""

from collections.abc import Callable

from torch import Tensor

from sparselab.lazy.spark import fast as spark
from sparselab.models import FFNWeights
from sparselab.train import dense_attention, lm

NEURONS, K, R = 512, 41, 64  # 8 % of 512; the predictor reads half of a width of 128
KEEP, HEAD_R = 32, 16  # keys that a head attends to; half of its width of 32


def hidden(x: Tensor, w: FFNWeights) -> Tensor:
    """`spark.hidden`: the first R columns of `up` are K1, the others K2."""
    return spark.hidden(x, w.up.T[:R], w.up.T[R:], k=K)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """`spark.attend` at this model's size."""
    return spark.attend(q, k, v, keep=KEEP, r=HEAD_R)


def rotate(x: Tensor, *, start: int = 0) -> Tensor:
    """Each half of a head turns by itself."""
    return spark.rotary_halves(x, r=HEAD_R, start=start)


def decode_ffn(w: FFNWeights) -> Callable[[Tensor], Tensor]:
    """The layer for one token at a time; its weights stored so that a neuron is a row of each."""
    K1, K2, V = w.up[:, :R].contiguous(), w.up[:, R:].contiguous(), w.down.T.contiguous()
    return lambda q: spark.decode(q, K1.T, K2.T, V.T, k=K)


def decode_attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """`spark.attend_one` at this model's size."""
    return spark.attend_one(q, k, v, keep=KEEP, r=HEAD_R)


def ffn_block(config: dict, active: float, keys: float) -> float:
    """FLOPs of one token: Spark's feed-forward layer after dense attention."""
    width, neurons = config["width"], config["neurons"]
    return dense_attention(config, keys) + spark.flops(
        width=width, entries=neurons, r=R, k=round(active * neurons)
    )


def block(config: dict, active: float, keys: float) -> float:
    """FLOPs of one token: Spark's layer after Spark's attention, whose projections are dense."""
    head = spark.flops(width=2 * HEAD_R, entries=keys, r=HEAD_R, k=KEEP)
    return ffn_block(config, active, 0) + config["heads"] * head


RECIPES = {
    "lm_spark": lm("Spark", ffn=hidden, attend=attend, rotate=rotate, neurons=NEURONS, flops=block),
    "lm_spark_ffn": lm("Spark, dense attention", ffn=hidden, neurons=NEURONS, flops=ffn_block),
}
