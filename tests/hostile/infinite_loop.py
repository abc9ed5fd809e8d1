"""Never returns."""


# %% exercise="wanda.score"
def score(w, x):
    while True:
        pass
