"""CoreMatching: the neurons that fire most over a prompt choose the tokens worth carrying on.

    a       = SiLU(gate x) * (up x)                       gate up "m d", a token fires neuron n where a[n] > 0
    core    = the beta m neurons most often among a token's strongest rho of those that fire
    g[t]    = |fired(t) and core|                         overlap of token t
    keep t where g[t] >= T                                T at the elbow of the sorted overlaps

Nothing is trained; one pass over the prompt gives both sets. Deeper layers see the core tokens only, at their
old positions; decoding reads the core neurons' rows and columns only. Firing means strictly positive: a large
negative activation counts as silence.

What the released code does: it takes the fired set of one token, the fifth from the end, for the core; it
drops no token from the prompt but writes zeros into the keys and values of later layers' caches, and a zero
key is not a masked one, its logit is 0 and it keeps its share of the softmax (`attend` has both); and
decoding with core neurons is in another repository, CoreInfer, with one count of neurons for all tokens.
"""

from sparselab.method import Claim, Method

METHOD = Method(
    package=__name__,
    title="CoreMatching",
    paper="arXiv:2505.19235",
    year=2025,
    chapter="1.5",
    backends=("numpy", "torch"),
    no_kernel="the sets are chosen once for a prompt, then every product is small and dense",
    gradient="none",
    source="partial",
    claims=(
        Claim(
            text="zeroed keys keep this softmax weight: a tenth of 576 kept, those of largest logit",
            metric="zeroed_weight_best",
            at_least=0.1,
            at_most=0.2,
        ),
        Claim(
            text="the same with a tenth kept at random", metric="zeroed_weight_any", at_least=0.5, at_most=0.7
        ),
        Claim(text="signed elbow: kept shares of 20 bells differ by", metric="signed_swing", at_most=0.25),
        Claim(text="unsigned, as published, they differ by", metric="unsigned_swing", at_least=0.5),
        Claim(text="the more core neurons, the fewer bits (1: yes)", metric="rises", at_least=1),
        Claim(
            text="bits per byte saved by core neurons over as many random ones",
            metric="random_gain",
            at_least=0,
        ),
        Claim(text="and over the core of other text", metric="prompt_gain", at_least=0),
        Claim(
            text="60 % of the neurons are nearly all: bits per byte above dense",
            metric="core_cost_60",
            at_most=0.1,
            reproduced=False,
        ),
        Claim(
            text="large negative activations do not matter: bits saved by counting them",
            metric="magnitude_gain",
            at_most=0,
            reproduced=False,
        ),
        Claim(
            text="overlap with the core finds the patches asked for: recall, best layer (random 0.125)",
            metric="core_recall",
            at_least=0.25,
            reproduced=False,
        ),
        Claim(
            text="and finds more of them than attention does",
            metric="core_over_attention",
            at_least=0,
            reproduced=False,
        ),
        Claim(text="overlap with the last word's neurons finds them", metric="last_recall", at_least=0.25),
    ),
    claim_seconds=30,
)
