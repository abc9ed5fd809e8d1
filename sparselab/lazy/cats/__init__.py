"""CATS: compute the gate of a gated layer, zero its small values, and read the rest where it survived.

    a = SiLU(gate x)                          gate "m d"
    y = down ((a where |a| > t) * (up x))     up "m d", down "d m"; rows of up and columns of down are skipped
    t = quantile of |a| on calibration text

Nothing is trained. What survives is known after one of three matrices, which is read whole: a layer that
keeps the share p of its neurons reads 1/3 + 2p/3 of its bytes. Unlike a ReLU, SiLU is not zero anywhere but
at zero: the threshold makes the zeros, and the error.
"""

from sparselab.method import Claim, Method

METHOD = Method(
    package=__name__,
    title="CATS",
    paper="arXiv:2404.08763",
    year=2024,
    chapter="1.3",
    backends=("numpy", "torch"),
    no_kernel="a dense gate and two gathers of rows: the kernels of Spark and TEAL show both",
    gradient="exact",
    source="official",
    against=("teal",),
    claims=(
        Claim(
            text="half of the gates dropped: nats per byte above dense, nothing retrained",
            metric="cats_50",
            at_most=0.04,
        ),
        Claim(
            text="dropping half at random costs so many times more", metric="random_over_cats", at_least=15
        ),
        Claim(
            text="share dropped off its target of a half on held-out text, worst block",
            metric="held_out_stray",
            at_most=0.01,
        ),
        Claim(text="bytes read of the layer's, least token", metric="least_bytes", at_least=1 / 3),
        Claim(
            text="a third of the inputs dropped instead reads equal bytes and costs less: nats per byte",
            metric="cats_over_inputs",
            at_least=0,
        ),
    ),
    claim_seconds=5,
)
