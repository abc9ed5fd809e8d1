"""Prints 10 GB, through Python and past it."""

import os
import sys

import numpy as np

BYTES, TEXT = bytes(1 << 20), "x" * (1 << 20)


# %% exercise="wanda.score"
def score(w, x):
    for _ in range(5 * 1024):
        os.write(1, BYTES)
        sys.stdout.write(TEXT)
    return np.zeros_like(w)
