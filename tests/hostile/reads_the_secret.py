"""Shows the teacher's secret in an error message."""

from pathlib import Path


# %% exercise="wanda.score"
def score(w, x):
    raise RuntimeError(Path("SECRET").read_text())
