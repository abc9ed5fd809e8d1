"""Writes until nothing more fits."""

from pathlib import Path


# %% exercise="wanda.score"
def score(w, x):
    for number in range(10_000):
        Path(f"file{number}").write_bytes(bytes(1 << 20))
