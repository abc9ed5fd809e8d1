"""Selected rows of a table: the two products that a decode which skips neurons or channels is made of.

    dot(table, idx, x)        = table[idx] x           table "m d", idx "k", x "d"      -> "k"
    total(table, idx, weight) = weight^T table[idx]    table "m d", idx "k", weight "k" -> "d"

Only the k rows are read: 4 k d bytes of 4 m d in float32. A matrix is stored so that what is skipped together
lies together: a neuron is a row of up, gate and down^T, an input channel a row of W^T.
"""

from sparselab.method import Method

METHOD = Method(
    package=__name__,
    title="Selected rows (gather)",
    paper="arXiv:2310.17157",
    year=2023,
    chapter="1.3",
    backends=("numpy", "torch"),
    no_kernel="a kernel of its own would read the indices and weights again: it is fused where it is used",
    gradient="exact",
    source="reconstruction",
)
