"""TopK SAE: the k largest latents of each input stay, and dead latents learn the residual (AuxK).

    pi = (x - b_dec) W_enc + b_enc          x "b d", W_enc "d m", pi "b m"
    f  = ReLU(pi) on the k largest pi of each row, else 0
    x' = f W_dec + b_dec                    W_dec "m d", rows of length 1

    loss = |x - x'|^2 / |x - mean x|^2  +  alpha |e - e'|^2 / |e - mean e|^2

All sums run over the batch and d. e = x - x' is a constant in the second term, and e' its reconstruction by
the k_aux largest dead latents, without bias; a latent is dead that has not fired for `window` inputs. After
the ReLU a row has at most k non-zeros, not exactly k.
"""

from sparselab.method import Claim, Method

METHOD = Method(
    package=__name__,
    title="TopK sparse autoencoder",
    paper="arXiv:2406.04093",
    year=2024,
    chapter="3.1",
    backends=("numpy", "torch"),
    no_kernel="torch touches kept latents only; a fused encoder and top-k is not written yet",
    gradient="straight-through",
    source="official",
    claims=(
        Claim(
            text="k at the true number of active features finds the planted dictionary",
            metric="mmcs_true_k",
            at_least=0.95,
        ),
        Claim(text="a k four times too large fits better: ratio of FVU", metric="fvu_ratio", at_most=0.5),
        Claim(text="and finds worse features: fall of MMCS", metric="mmcs_lost", at_least=0.2),
        Claim(text="AuxK lowers the share of dead latents: ratio", metric="dead_ratio", at_most=0.95),
        Claim(
            text="with AuxK few latents stay dead (7 % of 16 million in the paper)",
            metric="dead_true_k",
            at_most=0.1,
            reproduced=False,
        ),
    ),
    claim_seconds=25,
)
