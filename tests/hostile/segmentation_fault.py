"""Breaks the interpreter."""

import ctypes


# %% exercise="wanda.score"
def score(w, x):
    return ctypes.string_at(0)
