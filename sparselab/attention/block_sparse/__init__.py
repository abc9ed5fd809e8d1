"""Block-sparse attention: softmax attention that visits the listed key blocks and skips the rest.

    out[i] = sum_j e^(x_ij - lse[i]) v_j,  lse[i] = log sum_j e^x_ij,  x_ij = scale q_i.k_j + log_weights[j]

with j over the keys of the blocks listed for the query block of i. Who chose the list does not matter
here: this is the executor on which the selecting methods of this family stand. Attention runs tile by
tile with a running maximum and a running sum (online softmax), so leaving a tile out changes nothing
else, and two results over disjoint keys merge exactly by their log-sum-exp.
"""

from sparselab.method import Claim, Method

METHOD = Method(
    package=__name__,
    title="Block-sparse attention",
    paper="arXiv:2205.14135",
    year=2022,
    chapter="4.1",
    backends=("numpy", "torch", "triton"),
    gradient="exact",
    source="reconstruction",
    claims=(
        Claim(
            text="dropping blocks moves no output by more than (lost mass) x (diameter of the values)",
            metric="largest_error_over_bound",
            at_most=1.0,
        ),
        Claim(
            text="rows that lose more attention mass err more: rank correlation over rows",
            metric="rank_correlation",
            at_least=0.8,
        ),
    ),
    claim_seconds=10,
)
