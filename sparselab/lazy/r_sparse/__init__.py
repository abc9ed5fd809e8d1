"""R-Sparse: large inputs go through the weight, the many small ones through a low-rank copy of it.

    keep   = |x| c > t                                          x "i", c[i] = ||W[:, i]||_2 or 1
    y      = W (x where keep) + L R (x where not keep)          W "o i", L "o r", R "r i"
    L R    = the truncated SVD of W

Nothing is trained. The cut t is one number per layer from calibration text. A budget of C = 1 - sparsity of
the weight's bytes is split by rho: the share rho C buys channels (columns of W), the rest buys rank, and an
evolutionary search chooses rho for each layer. rho = 1 is input sparsity alone, rho = 0 low rank alone.
The identity behind it: the error is exactly (W - L R)(x where not keep), small inputs times small singular
values.

What the released code does: the rank of grouped-query k and v is computed as if they were square, which
passes the budget; a search is not among it, its result is (`recipe` reads that file); with a recipe, channels
and rank are raised to at least 1; and by default only the last tenth of a prompt is sparse.
"""

from sparselab.method import Claim, Method

METHOD = Method(
    package=__name__,
    title="R-Sparse",
    paper="arXiv:2504.19449",
    year=2025,
    chapter="1.4",
    backends=("numpy", "torch"),
    no_kernel="its sparse half is the GEMV of TEAL, its other half two thin dense products",
    gradient="none",
    source="official",
    against=("teal",),
    claims=(
        Claim(
            text="output error with scaled scores over unscaled, column norms that differ",
            metric="score_ratio",
            at_most=0.85,
        ),
        Claim(
            text="a flat spectrum wants no rank: best error with rank over that without",
            metric="flat_ratio",
            at_least=1,
        ),
        Claim(text="a spiked one does", metric="spiked_ratio", at_most=0.9),
        Claim(
            text="on other text the share kept drifts from a half by",
            metric="drift_50",
            at_most=0.1,
        ),
        Claim(text="search on the calibration text: bits saved at 50 %", metric="seen_gain_50", at_least=0),
        Claim(
            text="on held-out text: bits saved at 50 %",
            metric="searched_gain_50",
            at_least=0,
            reproduced=False,
        ),
        Claim(text="on held-out text: bits saved at 70 %", metric="searched_gain_70", at_least=0.05),
        Claim(text="more at 70 % than at 50 %", metric="deeper_gain", at_least=0),
        Claim(text="searched over uniform 0.95 at 70 %: bits saved", metric="over_uniform_70", at_least=0),
        Claim(text="scaled scores over unscaled at 70 %: bits saved", metric="score_gain_70", at_least=0),
        Claim(
            text="low rank alone at 50 %: bits lost",
            metric="low_rank_cost_50",
            at_least=0.2,
        ),
    ),
    claim_seconds=40,
)
