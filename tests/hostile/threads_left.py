"""Leaves threads behind that the interpreter would wait for."""

import threading

import numpy as np


# %% exercise="wanda.score"
def score(w, x):
    def spin():
        while True:
            pass

    for _ in range(2):
        threading.Thread(target=spin).start()
    return np.zeros_like(w)
