"""An exception that cannot be printed."""


# %% exercise="wanda.score"
class Unprintable(Exception):
    def __str__(self):
        raise self


def score(w, x):
    raise Unprintable
