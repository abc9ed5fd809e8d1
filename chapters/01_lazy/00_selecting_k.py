# ---
# sparselab:
#   title: Selecting k of n
#   minutes: 50
# ---

# %% [markdown]
# A layer has computed thousands of numbers for one token, and only the few dozen largest will be used.
# **How much work is it to find them?** Sorting answers the question, and many others that nobody asked. In
# a large network the selection can cost more time than the matrix product before it.
#
# After this lesson you can
# - select the k largest exactly, and say what happens to ties,
# - replace the search by a threshold: the k-th value, a calibrated cut, or a guess from two averages,
# - say when that guess is wrong by a factor of two, and build such an input,
# - explain why a guess that gets the *number* wrong never gets the *choice* wrong.
#
# Guess first. A threshold is set from the mean and the standard deviation of a row, so that 8 % of a normal
# distribution lie above it. On the real activations of a trained network, how many percent will?

# %%
my_guess = 8  # percent

# %% tags=["hide-input"]
import inspect
from statistics import NormalDist

import numpy as np
import torch
from jaxtyping import Bool, Float

from sparselab import bench
from sparselab.claims import table
from sparselab.course import grade, hint
from sparselab.data import text
from sparselab.models import activations, load
from sparselab.plots import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    RED,
    explore,
    figure,
    note,
    show,
)
from sparselab.plots import threshold as histogram
from sparselab.topk.exact import fast as exact_fast
from sparselab.topk.exact import reference as exact
from sparselab.topk.statistical import fast as statistical_fast
from sparselab.topk.statistical import reference as statistical

model = load("lm_relu")

# %% [markdown]
# ## Look first
#
# These are the numbers that one layer of a small language model computes for a single byte, before its
# ReLU: one for each neuron. The line is a threshold set from two averages, without looking at the order of
# the numbers at all.

# %%
windows = text.windows(
    text.pydocs("held_out"), length=256, n=8, rng=np.random.default_rng(0)
)
x = (
    activations(model, windows, "blocks.1.ffn.x")["blocks.1.ffn.x"]
    .detach()
    .flatten(0, 1)
)
z = (x @ model.blocks[1].ffn.up.detach().T).double().numpy()  # one row per byte
n = z.shape[1]
k = round(0.08 * n)


# %% tags=["hide-input"]
row = z[200]
cut = row.mean() + row.std() * NormalDist().inv_cdf(1 - k / n)
kth = np.sort(row)[-k]
fig, ax = figure(
    "Two averages nearly find the largest values",
    alt="Histogram of one row of pre-activations; the tail above mean plus Q standard "
    "deviations is coloured, and the exact k-th largest value lies close to that threshold",
    size=(7.6, 3.6),
)
histogram(ax, row, cut, unit=f"pre-activation of {n} neurons, one byte")
ax.axvline(row.mean(), color=GREY, linewidth=1)
note(ax, "mean", row.mean(), 0.94, dx=-6, color=GREY, high=True)
ax.axvline(kth, color=RED, linestyle=":")
note(ax, "exact k-th value", max(kth, cut), 0.6, color=RED, high=True)
show(fig)

# %% [markdown]
# What a practised eye sees: the two lines are close but not equal, so the threshold keeps a few too many or
# too few; and everything it keeps is larger than everything it drops. A threshold cannot do otherwise.
#
# ## Say it exactly
#
# For a row $x \in \mathbb{R}^n$ let $\mathrm{Top}_k(x)$ be the places of its $k$ largest **values** (not
# magnitudes). Where values tie, somebody has to decide; here the lowest index wins. By hand, $k = 2$:
#
# $$x = (1, 3, -5, 3, 3) \quad\Rightarrow\quad \text{keep } (0, 1, 0, 1, 0)$$
#
# The three threes tie for two places; the first two stay, and $-5$ has no chance.


# %% exercise="exact.mask" difficulty=1 importance=5 minutes=6
def mask(x: Float[np.ndarray, "*b n"], *, k: int) -> Bool[np.ndarray, "*b n"]:
    """True for the k largest values of each row (the last axis); of equals the lowest index.

    Works with any number of leading axes; NaN ranks before every number. ValueError
    where x has no axis or k lies outside 0..n.
    """
    if not x.shape or not 0 <= k <= x.shape[-1]:
        raise ValueError(f"k={k} must lie in 0..n for x of shape {x.shape}")
    raise NotImplementedError


# %%
grade("exact.mask", mask)

# %% [markdown]
# `hint("exact.mask")` gives a hint, and a further one each time. The trap of this exercise is
# `x >= the k-th value`: with ties it keeps too many.
#
# ## A fixed cut
#
# A sort per token is expensive; a comparison per number is not. So choose one cut for all tokens, once, on
# a calibration sample, such that $k$ per row survive *on average*.


# %% exercise="threshold.calibrate" difficulty=2 importance=3 minutes=6
def calibrate(x: Float[np.ndarray, "*b n"], *, k: int) -> Float[np.ndarray, ""]:
    """The largest cut c for which x >= c keeps at least k entries per row on average.

    With r rows it is the (k r)-th largest value of the whole sample. Two rows (1, 5),
    (4, 2) and k = 1: two entries in all, so c = 4. ValueError where k lies outside 1..n
    or the sample is empty.
    """
    raise NotImplementedError


# %%
grade("threshold.calibrate", calibrate)

# %% [markdown]
# **Predict** before you run: with this cut, how much does the number of survivors vary from byte to byte?
# A little (within a few percent), by a factor of two, or by a factor of ten?

# %%
half = len(z) // 2
fixed = calibrate(z[:half], k=k)
survivors = (z[half:] >= fixed).sum(axis=1)
guessed = statistical.survivors(z[half:], k=k).sum(axis=1)
low, high = np.percentile(survivors, [5, 95])
print(f"fixed cut, middle nine tenths of the bytes: {low:.0f} to {high:.0f} survivors")
low, high = np.percentile(guessed, [5, 95])
print(f"two averages:                               {low:.0f} to {high:.0f} survivors")
print(
    f"your guess: {my_guess} %, two averages keep {100 * guessed.mean() / n:.1f} % of the neurons"
)

# %% tags=["hide-input"]
fig, ax = figure(
    "A fixed cut follows the text, two averages follow the row",
    alt="Histograms of survivors per byte: wide for the fixed cut, narrower for mean plus Q "
    "standard deviations",
    size=(7.6, 3.6),
)
bins = np.linspace(0, max(survivors.max(), guessed.max()), 50)
heights = [
    ax.hist(counts, bins, color=color, alpha=0.75)[0]
    for counts, color in ((survivors, GREY), (guessed, BLUE))
]
ax.axvline(k, color=INK)
note(ax, f"wanted: {k}", k, 0.96, high=True)
note(ax, "fixed cut", bins[30], heights[0][28] + 0.1 * max(heights[1]), color=GREY)
note(ax, "two averages", k, 0.8, color=BLUE, high=True)
ax.set(xlabel="survivors of one byte", yticks=[])
ax.spines.left.set_visible(False)
show(fig)

# %% [markdown]
# ## Two averages instead of a sort
#
# **Statistical top-k** (Spark Transformer) takes the threshold from the row itself:
#
# $$\theta = \bar x + s\, Q(1 - k/n), \qquad \mathrm{soft}(x) = \max(x - \theta, 0)$$
#
# $\bar x$ is the mean, $s$ the standard deviation (dividing by $n$), $Q$ the quantile function of the
# standard normal: $Q(0.92) = 1.41$, since 8 % of a normal lie above 1.41 standard deviations. Two sums over
# the row and one pass to subtract; no comparison between elements at all.
#
# In attention some entries are hidden (the future). They must not count: neither their values nor their
# number. The classic mistake is to fill them with 0 or $-10^9$ first and average over everything.


# %% exercise="statistical.threshold" difficulty=3 importance=5 minutes=15
def threshold(
    x: Float[np.ndarray, "*b n"],
    *,
    k: int,
    mask: Bool[np.ndarray, "*b n"] | None = None,
) -> Float[np.ndarray, "*b"]:
    """theta = mean + std Q(1 - k/n) of each row, over its n VISIBLE entries.

    The mask is True where an entry is visible; without one all are. A row with at most k
    visible entries has theta = -inf: all of them survive. A visible NaN or infinity makes
    theta NaN. (3, 1, 1, 3) and k = 2: mean 2, std 1, Q(1/2) = 0, so theta = 2. ValueError
    unless 0 < k < the entries of a row, and where the mask has another shape than x.
    """
    visible = np.ones(x.shape, bool) if mask is None else mask
    if not x.shape or not 0 < k < x.shape[-1] or visible.shape != x.shape:
        raise ValueError(f"0 < k={k} < n for x {x.shape} and a mask {visible.shape}")
    theta = np.full(x.shape[:-1], -np.inf)
    for row in np.ndindex(theta.shape):
        seen = x[row][visible[row]]
        ...  # fill theta[row] where there are more than k to choose from
    raise NotImplementedError


# %%
grade("statistical.threshold", threshold)

# %% [markdown]
# ## When the guess is wrong
#
# $Q$ belongs to the normal distribution. **Predict:** for a law with heavier tails than the normal (a few
# very large values), does the threshold keep too many or too few? Move the slider: it changes the share
# that is asked for, the bars show the share that is kept.

# %%
rng = np.random.default_rng(0)
laws = {
    "normal": rng.normal(size=(20, 4000)),
    "uniform": rng.uniform(-1, 1, size=(20, 4000)),
    "Laplace": rng.laplace(size=(20, 4000)),
    "Student t(3)": rng.standard_t(3, size=(20, 4000)),
    "network": z[:200],
}


# %% tags=["hide-input"]
def draw(target=8):
    fig, ax = figure(size=(7.4, 3.2))
    for place, (name, rows) in enumerate(laws.items()):
        wanted = max(1, round(target / 100 * rows.shape[1]))
        kept = 100 * statistical.survivors(rows, k=wanted).mean()
        ax.barh(place, kept, color=GREEN if name == "network" else BLUE)
        note(ax, f"{kept:.1f} %", max(kept, target), place)
    ax.axvline(target, color=INK)
    note(ax, f"asked for: {target} %", target, 1.05, dx=0, high=True)
    ax.set(yticks=range(len(laws)), yticklabels=list(laws), xlabel="percent kept")
    ax.set_xlim(0, 1.6 * target + 3)
    return fig


explore(
    draw,
    alt="Share kept by the statistical threshold for five laws, beside the share asked for",
    target=[1, 2, 4, 8, 16, 32, 50],
)

# %% [markdown]
# Neither always too many nor always too few: heavy tails inflate $s$, so less survives at 8 %, yet at 1 %
# the tails themselves are what survives and there are too many. Now break it on purpose.


# %% exercise="statistical.unfair_row" difficulty=2 importance=3 minutes=8
def unfair_row(n: int, k: int) -> Float[np.ndarray, " n"]:
    """n finite numbers of which the threshold keeps fewer than k/2 or more than 2k.

    No ties at the border: the k-th largest value exceeds the next one.
    """
    raise NotImplementedError


# %%
grade("statistical.unfair_row", unfair_row)

# %% [markdown]
# Whatever you found, one thing you cannot break: the survivors are always the largest values of their row.
# A threshold gets the number wrong, never the choice.
#
# ## The gradient knows the whole row
#
# Hard top-k passes gradient to the survivors only. Here $\theta$ depends on every entry through $\bar x$ and
# $s$, so every entry gets some. **Predict** the sum of the gradient over a row: positive, negative, zero?

# %%
row = torch.from_numpy(z[:1].copy()).requires_grad_()
statistical_fast.soft(row, k=k).square().sum().backward()
print(
    f"sum of the gradient is zero: {abs(float(row.grad.sum())) < 1e-9 * float(row.grad.abs().sum())}"
)
print(f"entries with a gradient: {100 * float((row.grad != 0).double().mean()):.0f} %")

# %% [markdown]
# Zero, and for a reason: adding a constant to the row changes neither survivors nor outputs,
# $\mathrm{soft}(x + c) = \mathrm{soft}(x)$, so the derivative in that direction vanishes. A version that treats
# $\theta$ as a constant would fail this test; that is how a checker tells the two apart.
#
# ## Make it fast
#
# The torch path gives the same answer:

# %%
agree = bool(
    (
        torch.from_numpy(exact.keep(z, k=k))
        == exact_fast.keep(torch.from_numpy(z), k=k)
    ).all()
)
print(f"exact.fast equals the definition: {agree}")
print(inspect.getsource(inspect.unwrap(statistical.soft)))

# %% [markdown]
# What does each way cost? 256 rows of 18 432 numbers, 8 % of each to keep. Every way must at least read each
# number and write each result once; that is the **floor**. **Predict:** how many times longer than the floor
# does `torch.topk` take, which searches? And the threshold, as two lines of torch, `x.mean()` and `x.std()`?

# %%
my_search, my_threshold = 5, 2  # times the floor

# %%
stored = bench.stored("topk")  # measured by `sparselab bench topk`
rows = {row["name"]: row for row in stored["T2"]["laws"]["gaussian"]}
words = {
    "torch.topk + scatter": "search, by torch.topk",
    "mean and torch.std": "threshold, by mean and std",
    "two moments": "threshold, by two sums",
    "sparselab": "threshold, row by row",
    "floor": "floor: read and write once",
}
for way, word in words.items():
    ms = rows[way]["min"]
    print(f"{word:27}{ms:5.1f} ms, {ms / rows['floor']['min']:4.1f} floors")
print(f"your guesses: {my_search} and {my_threshold} floors")
search = {row["name"]: row for row in stored["T1a"]["laws"]["gaussian"]}
exact_ms = [search[way]["min"] for way in ("torch.topk", "sparselab")]
print("64 of 16384: torch.topk {:.1f} ms, exact.fast {:.1f} ms".format(*exact_ms))
print(f"{4 * 18432 / 1e3:.0f} KB in a row, {4 * 256 * 18432 / 1e6:.0f} MB in all")

# %% tags=["hide-input"]
fig, ax = figure(
    "The search is the cost, then memory",
    alt="Times of five ways as bars: the search by torch.topk is longest, mean and torch.std half of it, two "
    "sums a small part, the row by row loop close to the floor",
    size=(7.6, 3),
)
colors = [RED, ORANGE, ORANGE, BLUE, GREY]
times = [rows[way]["min"] for way in words]
ax.barh(range(len(words)), times, color=colors, height=0.62)
for place, ms in enumerate(times):
    note(ax, f"{ms:.1f}", ms, place, dx=6)
ax.set_yticks(range(len(words)), list(words.values()))
ax.invert_yaxis()
ax.set(xlabel="milliseconds for 256 rows of 18 432 numbers, one thread")
show(fig)

# %% [markdown]
# Three steps down. A search compares numbers with each other; a threshold compares each with one number. But
# `torch.std` on a CPU updates its result number by number, and each update waits for the one before. Two sums
# add many numbers at a time, yet each operator goes over all 19 MB once more (and a sum of squares is wrong
# where the mean is large). The last way stays with one row, 74 KB, until it is done: its passes run in the
# cache, and memory is read once and written once.
#
# Must it be exactly k? The same thought helps. The maxima of groups give a bound that few numbers exceed, and
# only those few are compared with each other.
#
# A Triton kernel gives one row to one program, for the same reason: it reads the row, reduces it to two
# numbers, and reads it again, now from the cache, to write the result.
#
# > **What the released code does.** The operator ships in Gemma 3n's code in the `transformers` library. It
# > divides by $n$, not $n - 1$, lets the gradient flow through mean and standard deviation, builds the
# > quantile in float32, and skips the operator altogether for a sparsity of 0, where the formula would give
# > $-\infty$. It sits on the gate of an ordinary gated layer in the first ten layers only; the predictor
# > that makes the Spark Transformer save time (lesson 1.2) is not in that code.
#
# ## Is the paper right, here?

# %%
print(table("statistical"))

# %% [markdown]
# ## Remember
#
# 1. The k largest values need a search; a threshold needs a comparison. The question is where the threshold
#    comes from: the k-th value (exact), a sample (fixed), or the row's mean and deviation (statistical).
# 2. A threshold gets the number of survivors wrong, never the choice.
# 3. The statistical threshold is right for normal rows only; on others measure the achieved share and report
#    that, not the target.
#
# Two questions without answers here. Would a median and a quartile instead of mean and deviation be more
# robust, and what would they cost? And if a network is *trained* with this operator, will its
# pre-activations become more normal or less?
#
# Further reading: You et al., *Spark Transformer*, arXiv:2506.06644; Key et al., *Approximate Top-k for
# Increased Parallelism*, arXiv:2412.04358; Liu et al., *TEAL*, arXiv:2408.14690.
