"""An answer of 400 MB."""

import numpy as np


# %% exercise="wanda.score"
def score(w, x):
    return np.ones(50_000_000)
