"""Calls itself without end."""


# %% exercise="wanda.score"
def score(w, x):
    return score(w, x)
