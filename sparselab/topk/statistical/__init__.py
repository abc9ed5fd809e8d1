"""Statistical top-k: a threshold from mean and standard deviation instead of a sort.

    theta = mean(x) + std(x) Q(1 - k/n)              x "*b n" -> theta "*b"
    soft(x) = max(x - theta, 0)                      "*b n"

Q is the quantile of N(0, 1) and std divides by n. On Gaussian rows k entries survive on average, with less
spread than n coin flips, since the sample sets its own threshold; on other laws the number is off, but never
the choice: survivors are always the largest of their row. soft(x + c) = soft(x) and soft(a x) = a soft(x) for
a > 0, so the gradients g of a row obey sum g = 0 and sum x g = sum y dy: they flow through mean and std,

    g = dy' - (1/n) sum dy' - (Q/n) u sum dy',       dy' = dy on survivors, else 0;  u = (x - mean)/std.

A constant row gives 0 and gradient 0. With a mask, the statistics and n are those of the visible entries.
"""

from sparselab.method import Claim, Method

METHOD = Method(
    package=__name__,
    title="Statistical top-k (Spark Transformer)",
    paper="arXiv:2506.06644",
    year=2025,
    chapter="1.0",
    backends=("numpy", "torch", "triton"),
    gradient="exact",
    source="partial",
    against=("exact",),
    claims=(
        Claim(
            text="survivors per Gaussian row over the target k = 1106 of 13824 (8 %)",
            metric="gaussian_count",
            at_least=0.995,
            at_most=1.005,
        ),
        Claim(
            text="spread of that count over sqrt(n [p(1-p) - phi(z)^2 (1 + z^2/2)])",
            metric="spread_over_theory",
            at_least=0.93,
            at_most=1.07,
        ),
        Claim(
            text="spread of that count over that of n coin flips",
            metric="spread_over_binomial",
            at_most=0.7,
        ),
        Claim(
            text="share of a Laplace row that survives at target 8 %",
            metric="laplace_density",
            at_least=0.067,
            at_most=0.071,
        ),
        Claim(
            text="share of a uniform row that survives at target 8 %",
            metric="uniform_density",
            at_least=0.092,
            at_most=0.096,
        ),
        Claim(
            text="share of a Student t(3) row that survives at target 8 %",
            metric="student_density",
            at_least=0.044,
            at_most=0.052,
        ),
    ),
    claim_seconds=10,
)
