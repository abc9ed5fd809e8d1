"""Wanda: prune the weights whose magnitude times the norm of their input is smallest.

    score[o, i] = |W[o, i]| * ||x[:, i]||_2         W "o i", x "t i"

Weights are compared inside one output row: the `n` best of every `m` consecutive inputs stay (N:M), or
the `keep` best of the row (unstructured). Nothing is retrained. For N:M this is the exact minimiser of
the diagonal part of the output error, the sum of (dW[o, i])^2 ||x[:, i]||^2.
"""

from sparselab.method import Claim, Method

METHOD = Method(
    package=__name__,
    title="Wanda",
    paper="arXiv:2306.11695",
    year=2023,
    chapter="5.2",
    backends=("numpy", "torch"),
    no_kernel="one small sort per group: torch is already bound by memory",
    gradient="none",
    source="official",
    claims=(
        Claim(
            text="output error at 2:4 below magnitude pruning, on held-out activations of the byte LM",
            metric="error_ratio",
            at_most=0.95,
        ),
    ),
    claim_seconds=20,
)
