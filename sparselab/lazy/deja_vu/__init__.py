"""Deja Vu: a small predictor says which neurons a token will use, before the layer's weights are read.

    z = x A B                         x "t d", A "d r", B "r m": no bias, nothing between
    loss = mean of w BCE(sigmoid(z), a > 0),   w = active share + 0.005 on zeros, 1 on ones
    f(x) = V_S relu(K_S^T x)          S the `keep` neurons of largest z: a fixed number for each token

What a zero of the ReLU saves is known only after K has been read whole; the predictor tells before. Its own
weights, r (d + m), are read for every token and belong in the bill.
"""

from sparselab.method import Claim, Method

METHOD = Method(
    package=__name__,
    title="Deja Vu",
    paper="arXiv:2310.17157",
    year=2023,
    chapter="1.3",
    backends=("numpy", "torch"),
    no_kernel="two thin products and a top-k; the gather of the layer is memory-bound and torch does it",
    gradient="exact",
    source="official",
    against=("lazy_neuron",),
    claims=(
        Claim(text="rank 16 finds the active neurons: recall at chance 1/2", metric="recall", at_least=0.88),
        Claim(
            text="recall above 0.99, where the paper stops training",
            metric="recall",
            at_least=0.99,
            reproduced=False,
        ),
        Claim(
            text="of 96 predicted neurons of 512, misses are weak ones: weighted recall above plain recall",
            metric="weighted_gain",
            at_least=0.02,
        ),
        Claim(text="running on these 96: nats per byte above dense", metric="cost", at_most=0.1),
        Claim(
            text="no loss of quality: nats per byte above dense",
            metric="cost",
            at_most=0.005,
            reproduced=False,
        ),
        Claim(
            text="one fixed set, the 96 most often active: nats per byte above dense",
            metric="often_cost",
            at_least=0.5,
        ),
        Claim(
            text="share of the layer's weights read, predictor included",
            metric="weights_read",
            at_most=1 / 3,
        ),
    ),
    claim_seconds=60,
)
