"""50 GB, and every page of it touched."""

import numpy as np


# %% exercise="wanda.score"
def score(w, x):
    return np.ones((50, 10**9), np.int8)[: len(w), : w.shape[1]]
