"""Starts threads until none can be started."""

import threading
import time


# %% exercise="wanda.score"
def score(w, x):
    while True:
        threading.Thread(target=time.sleep, args=(10_000,)).start()
