"""An answer in ten thousand lists."""


# %% exercise="wanda.score"
def score(w, x):
    answer = []
    for _ in range(10_000):
        answer = [answer]
    return answer
