"""Hands the work to a shell."""

import subprocess


# %% exercise="wanda.score"
def score(w, x):
    subprocess.run(["sh", "-c", "sleep 1000 &"], check=True)
