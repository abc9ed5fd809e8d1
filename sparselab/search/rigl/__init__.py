"""RigL: train sparse from the start; at times drop the smallest weights and grow where gradients are large.

    every `every` steps, while t < end, on one weight array with n active entries:
    f(t) = alpha / 2 (1 + cos(pi t / end))      share of the active weights that is up for exchange
    drop   the floor(f n) smallest |w| among the active
    grow   as many: the largest |dense gradient| among all that are not kept; new weights start at 0

A weight just dropped may grow again at once and then keeps its value. The exchange takes the place of that
step's gradient update; on all other steps only active weights learn. SET, the older control, is the same
exchange with uniform noise for the gradient. ERK shares the budget among the layers: layer l gets the density

    eps sum(shape_l) / prod(shape_l), at most 1,    one eps such that the total is right
"""

from sparselab.method import Claim, Method

METHOD = Method(
    package=__name__,
    title="RigL",
    paper="arXiv:1911.11134",
    year=2020,
    chapter="6.1",
    backends=("numpy", "torch"),
    no_kernel="an exchange happens once in a hundred steps and is one selection: torch is not the bottleneck",
    gradient="none",
    source="official",
    claims=(
        Claim(
            text="2 % of the weights: held-out accuracy above a static random mask's",
            metric="gain_over_static_2",
            at_least=0.05,
        ),
        Claim(text="2 % of the weights: above SET's", metric="gain_over_set_2", at_least=0.01),
        Claim(text="5 %: training loss below the static mask's, ratio", metric="loss_ratio_5", at_most=0.4),
        Claim(
            text="5 %: held-out accuracy above a static random mask's",
            metric="gain_over_static_5",
            at_least=0.005,
            reproduced=False,
        ),
    ),
    claim_seconds=20,
)
