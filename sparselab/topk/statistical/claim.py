"""How many survive: the target on Gaussian rows, with less spread than coin flips; off it on other laws."""

from math import sqrt
from statistics import NormalDist

from sparselab.topk.statistical import fast

N, K, ROWS, BLOCKS = 13824, 1106, 400, 5


def measure(seed: int) -> dict[str, float]:
    """Survivors per row over 2000 rows of the Spark Transformer's width at its 8 %."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    p = K / N
    z = NormalDist().inv_cdf(1 - p)
    theory = sqrt(N * (p * (1 - p) - NormalDist().pdf(z) ** 2 * (1 + z * z / 2)))

    def counts(law):
        blocks = (law(torch.rand(ROWS, N, generator=generator)) for _ in range(BLOCKS))
        return torch.cat([fast.survivors(x, k=K).sum(-1) for x in blocks]).double()

    def student(u):
        """t with 3 degrees of freedom: a normal over the root of a chi-square of 3, divided by 3."""
        normals = torch.randn(4, *u.shape, generator=generator)
        return normals[0] / normals[1:].square().mean(0).sqrt()

    gaussian = counts(lambda u: torch.randn(u.shape, generator=generator))
    laplace = counts(lambda u: (u - 0.5).sign() * -torch.log1p(-(2 * u - 1).abs()))
    return {
        "gaussian_count": float(gaussian.mean()) / K,
        "spread": float(gaussian.std()),
        "spread_over_theory": float(gaussian.std()) / theory,
        "spread_over_binomial": float(gaussian.std()) / sqrt(N * p * (1 - p)),
        "laplace_density": float(laplace.mean()) / N,
        "uniform_density": float(counts(lambda u: u).mean()) / N,
        "student_density": float(counts(student).mean()) / N,
    }
