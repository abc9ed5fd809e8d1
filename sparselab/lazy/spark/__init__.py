"""Spark Transformer: top-k in the feed-forward layer and in attention, chosen by the first coordinates.

    ffn(q)    = V [gelu(soft(K1^T q[:r])) * (K2^T q[r:])]                K1 "r m", K2 "d-r m", V "d m"
    attend(q) = V [softmax(top(K1^T q[:r])) * softplus(K2^T q[r:])]      K1, K2: the keys, split like q

`soft` is statistical top-k: entries above theta = mean + std Q(1 - k/n), less theta; `top` sets the others
to -inf, and the shift by theta cancels in the softmax. The first r coordinates decide which of the n entries
count, the others what they are worth: no parameter is added, and K2 and V are read at about k entries. A
token costs 2 r n + 2 (d - r) k + 2 d k FLOPs, with r = d/2 and k = 8 % of n less than a third of what a gated
layer of as many weights does. Both are trained as they run; k = n is outside the formula: no dense limit.
"""

from sparselab.method import Claim, Method

METHOD = Method(
    package=__name__,
    title="Spark Transformer",
    paper="arXiv:2506.06644",
    year=2025,
    chapter="1.2",
    backends=("numpy", "torch", "triton"),
    gradient="exact",
    source="partial",
    against=("statistical", "lazy_neuron"),
    claims=(
        Claim(
            text="FLOPs of a dense layer of as many weights over Spark's", metric="flop_ratio", at_least=3.2
        ),
        Claim(
            text="8 % active: nats per byte above a ReLU layer of as many weights",
            metric="spark_over_relu",
            at_most=0,
        ),
        Claim(
            text="8 % active: nats per byte above a GELU layer of as many weights",
            metric="spark_over_gelu",
            at_most=0,
        ),
        Claim(
            text="8 % active: nats per byte above a gated GELU layer of as many weights",
            metric="spark_over_gated",
            at_most=0,
        ),
        Claim(
            text="the split pays: nats per byte above statistical top-k on the whole input",
            metric="spark_over_whole_input",
            at_most=0,
        ),
        Claim(
            text="soft beats hard: nats per byte above top-k with the survivors unshifted",
            metric="spark_over_hard",
            at_most=0,
        ),
        Claim(
            text="active share off its target of 0.08 in training and after, worst block",
            metric="stray",
            at_most=0.01,
            reproduced=False,
        ),
    ),
    claim_seconds=75,
)
