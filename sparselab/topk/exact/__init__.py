"""Exact top-k: the k largest values of each row and their places, in linear time.

    topk(x)[j] = the (j+1)-th largest of x[0..n-1]       x "*b n" -> values "*b k", top_idx "*b k"

Largest values, not magnitudes. Of equal values the one with the lowest index ranks first; NaN ranks above
every number, so that a poisoned row shows. Partial selection (Hoare's FIND) never sorts what it drops: `fast`
plays a tournament, where only the groups whose maxima rank among the k best can hold one of the k best.
"""

from sparselab.method import Method

METHOD = Method(
    package=__name__,
    title="Exact top-k",
    paper="doi:10.1145/366622.366647",
    year=1961,
    chapter="1.0",
    backends=("numpy", "torch"),
    no_kernel="torch.topk is a radix select on the GPU already, and the tournament runs there as it stands",
    gradient="exact",
    source="reconstruction",
)
