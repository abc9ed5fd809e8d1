"""TEAL: zero the small entries of the input of every linear map, and skip their columns of the weight.

    sparsify(x) = x where |x| > t, else 0                     x "i"
    W x is read as sum over |x[i]| > t of x[i] W[:, i]        W "o i"
    t = F^-1(0.5 + s/2)                                       F from calibration text, s the share to drop

Nothing is trained: one threshold per tensor is read off a histogram of calibration activations, taken to be
symmetric about 0. Dropping a share s of one tensor costs a relative error known in closed form before any
linear map with independent weights: sqrt(s - 2 t phi(t)) for a Gaussian, where phi is its density, and
sqrt(1 - (1 + L + L^2/2) e^-L), L = -ln(1 - s), for a Laplace law. How much each of a block's projections
drops is chosen greedily, equal bytes at a time. Bytes read are the share that survives times all.
"""

from sparselab.method import Claim, Method

METHOD = Method(
    package=__name__,
    title="TEAL",
    paper="arXiv:2408.14690",
    year=2024,
    chapter="1.3",
    backends=("numpy", "torch", "triton"),
    gradient="none",
    source="official",
    against=("cats",),
    claims=(
        Claim(
            text="40 % of the input of every linear map dropped: nats per byte above dense",
            metric="uniform_40",
            at_most=0.03,
        ),
        Claim(text="half dropped: nats per byte above dense", metric="uniform_50", at_most=0.07),
        Claim(
            text="dropping half at random costs so many times more", metric="random_over_uniform", at_least=20
        ),
        Claim(
            text="greedy allocation beats a uniform one at half: nats per byte gained",
            metric="greedy_gain",
            at_least=0,
            reproduced=False,
        ),
        Claim(
            text="inputs of attention and feed-forward: error of dropping half over the Gaussian law",
            metric="outer_over_gaussian",
            at_least=0.95,
            at_most=1.05,
        ),
        Claim(
            text="inputs of the output projection: error of dropping half over the Laplace law",
            metric="mixed_over_laplace",
            at_least=0.9,
            at_most=1.1,
        ),
        Claim(
            text="inputs of the down projection: error of dropping half over the Laplace law",
            metric="hidden_over_laplace",
            at_least=0.9,
            at_most=1.1,
            reproduced=False,
        ),
        Claim(
            text="share dropped off its target of a half on the calibration text, worst tensor",
            metric="stray",
            at_most=0.03,
        ),
    ),
    claim_seconds=60,
)
