"""Threshold selection: keep what reaches a cut, where the cut is the k-th value of a row or of a sample.

    keep(x, cut) = x where x >= cut, else 0          x "*b n", cut "" (one for all) or "*b" (one per row)
    kth(x)       = the k-th largest of each row      x "*b n" -> "*b"
    calibrate(x) = the (k r)-th largest of all r n   x "*b n", r rows -> ""

With `kth` this is exact top-k up to ties; with `calibrate` one number, fixed before the model runs, keeps k
of n on average over the sample, and selecting costs one comparison. TEAL calibrates on |x| of a layer's
inputs, CATS on |SiLU(gate)|: give magnitudes for a selection by magnitude. A fixed cut drifts with the text:
the number kept per row is free.
"""

from sparselab.method import Method

METHOD = Method(
    package=__name__,
    title="Calibrated threshold (TEAL, CATS)",
    paper="arXiv:2408.14690",
    year=2024,
    chapter="1.0",
    backends=("numpy", "torch"),
    no_kernel="one comparison per entry: torch is already bound by memory, and fusing it is its user's work",
    gradient="exact",
    source="partial",
)
