"""ReLUfication: put ReLUs into a trained model that has none, and tune it a little.

    stage 1:  h = relu(x gate^T) * (x up^T)           x "t d", gate and up "m d"; the GELU or SiLU goes
    stage 2:  relu(norm(x)) before q, k, v and up     their inputs become sparse, too
    union of B independent tokens:  1 - (1 - p)^B     p the density of one; real tokens share more

Without tuning the swap wrecks a model that was trained with another activation: a valid baseline, but a weak
one. A batch reads the union of its tokens' neurons; that this union grows more slowly than the law says is
what makes it worth keeping loaded weights for the next tokens.
"""

from sparselab.method import Claim, Method

METHOD = Method(
    package=__name__,
    title="ReLUfication",
    paper="arXiv:2310.04564",
    year=2023,
    chapter="1.3",
    backends=("numpy", "torch"),
    no_kernel="each op is one pass over its array: torch is already bound by memory",
    gradient="exact",
    source="reconstruction",
    claims=(
        Claim(
            text="stage 1 without tuning wrecks a gated model: nats per byte",
            metric="swap_cost",
            at_least=0.5,
            reproduced=False,
        ),
        Claim(text="stage 2 without tuning does: nats per byte", metric="stage2_cost", at_least=0.5),
        Claim(
            text="stage 1, tuned for 80 steps: nats per byte above the original tuned as long",
            metric="swap_gap",
            at_most=0.03,
        ),
        Claim(
            text="stage 2, tuned for 80 steps: nats per byte above the original tuned as long",
            metric="stage2_gap",
            at_most=0.2,
        ),
        Claim(
            text="stage 2 recovers the quality: nats per byte above the original tuned as long",
            metric="stage2_gap",
            at_most=0.03,
            reproduced=False,
        ),
        Claim(text="stage 1: active share of the gated neurons", metric="swap_density", at_most=0.35),
        Claim(
            text="stage 1 reaches the tenth of models trained with ReLU: active share",
            metric="swap_density",
            at_most=0.1,
            reproduced=False,
        ),
        Claim(
            text="stage 2 halves the inputs of q, k, v and up: share that is not zero",
            metric="stage2_density",
            at_most=0.55,
            reproduced=False,
        ),
        Claim(text="a shift of 0.3 leaves fewer active: ratio", metric="shift_ratio", at_most=0.9),
        Claim(text="shifted, tuned: nats per byte above the original", metric="shift_gap", at_most=0.03),
        Claim(
            text="16 tokens share neurons: their union over the law at the mean rate",
            metric="union_to_law",
            at_most=0.9,
        ),
        Claim(
            text="more than unequal rates explain: their union over the law at each neuron's rate",
            metric="union_to_rates",
            at_most=0.97,
        ),
        Claim(
            text="reusing 16 tokens' neurons beats as many at random: nats per byte gained",
            metric="reuse_gain",
            at_least=0,
            reproduced=False,
        ),
        Claim(text="in the deeper half it does: nats per byte gained", metric="deep_reuse_gain", at_least=0),
        Claim(
            text="FATReLU drops the weakest fifth of the active: nats per byte",
            metric="fatrelu_cost",
            at_most=0.02,
        ),
    ),
    claim_seconds=60,
)
