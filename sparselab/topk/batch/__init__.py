"""BatchTopK: k per token on average, chosen over the whole batch.

    keep(x)  = ReLU(x) at the k B largest positive values of the batch, else 0     x "*b n", B visible tokens
    above(x) = ReLU(x) where it exceeds the cut, else 0                            cut ""
    update   : cut <- cut + rate (smallest value kept - cut)

A token that needs more gets more: the mean L0 is at most k, that of one token is free. Training selects over
the batch; so that inference does not depend on its neighbours, it uses a cut, the running mean of the
smallest value kept. With one token this is exact top-k of its positive values.
"""

from sparselab.method import Method

METHOD = Method(
    package=__name__,
    title="BatchTopK",
    paper="arXiv:2412.06410",
    year=2024,
    chapter="1.0",
    backends=("numpy", "torch"),
    no_kernel="one selection over the whole batch is a radix select across programs: torch.topk has one",
    gradient="exact",
    source="partial",
    against=("exact",),
)
