# ---
# sparselab:
#   title: "Spark Transformer: choose with the first half"
#   minutes: 60
# ---

# %% [markdown]
# In lesson 1.1 more than nine neurons in ten were silent, and half of the work stayed: to learn *which* ones
# you multiplied by all of $K$. **Could half of the input tell?** Then the rest of $K$, and all of
# $V$, would be read for the chosen few only.
#
# After this lesson you can
# - build a feed-forward layer and an attention that choose with half of their input, without an extra weight,
# - count what that saves, and compare at equal weights instead of equal neurons,
# - take the statistics of a causal attention row without letting the future vote,
# - say what holds for a model that fits on a laptop, and what does not.
#
# Guess first. A layer keeps 8 % of its neurons and chooses them with half of its input. Of the arithmetic of
# the dense layer, how many percent are left?

# %%
my_guess = 8  # percent

# %% tags=["hide-input"]
import inspect

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch.nn import functional as F

from sparselab import frontier
from sparselab.claims import table
from sparselab.course import grade, hint
from sparselab.data import text
from sparselab.lazy.spark import fast, reference
from sparselab.lazy.spark import model as spark_lm
from sparselab.lazy.spark.model import HEAD_R, KEEP, NEURONS, K, R
from sparselab.lazy.spark.reference import gelu
from sparselab.lazy.spark.reference import select as selected
from sparselab.models import TinyLM, activations, card, load
from sparselab.plots import (
    BLUE,
    FAINT,
    GREY,
    INK,
    ORANGE,
    RED,
    explore,
    figure,
    note,
    show,
)
from sparselab.plots import mask as pixels
from sparselab.topk.exact import fast as exact
from sparselab.topk.statistical import fast as statistical_fast
from sparselab.topk.statistical import reference as statistical
from sparselab.train import dense_block

torch.manual_seed(0)
torch.set_grad_enabled(False)
relu_lm, model = load("lm_relu"), load("lm_spark")
d = model.config["width"]
windows = text.windows(
    text.pydocs("held_out"), length=256, n=8, rng=np.random.default_rng(0)
)

# %% [markdown]
# ## Look first
#
# Take a layer of `lm_relu` from lesson 1.1. It was trained with all of its input, and nobody told it that we
# would one day look at half. Each dot is one of its 512 neurons, on one byte: to the right the part of the
# sum that comes from the first 64 of 128 coordinates, upwards the whole sum.
#
# **Predict:** of the 41 neurons (8 %) with the largest half sum, how many are among the 41 with the largest
# whole sum? By chance it would be 3.

# %%
x = activations(relu_lm, windows, "blocks.*.ffn.x")
halves, wholes = [], []
for i, block in enumerate(relu_lm.blocks):
    inputs, up = x[f"blocks.{i}.ffn.x"].flatten(0, 1), block.ffn.up
    halves.append(inputs[:, :R] @ up.T[:R])
    wholes.append(inputs @ up.T)
guessed = [exact.mask(half, k=K) for half in halves]
largest = [exact.mask(whole, k=K) for whole in wholes]

# %% tags=["hide-input"]
layer, byte = 1, 200
half, whole = halves[layer][byte].numpy(), wholes[layer][byte].numpy()
by_half, by_whole = guessed[layer][byte].numpy(), largest[layer][byte].numpy()
fig, ax = figure(
    "Half the input guesses well, and not perfectly",
    alt="Scatter of half sums against whole sums of 512 neurons: they rise together; of the 41 largest by "
    "half, more than half are among the 41 largest by whole, some are missed and some chosen in vain",
    size=(7.4, 4.4),
)
for chosen, color in (
    (~by_half & ~by_whole, FAINT),
    (by_half & by_whole, BLUE),
    (by_half & ~by_whole, RED),
    (~by_half & by_whole, ORANGE),
):
    ax.scatter(half[chosen], whole[chosen], s=26, color=color, linewidths=0)
ax.axvline(half[by_half].min(), color=INK, linewidth=1.2)
ax.axhline(whole[by_whole].min(), color=INK, linewidth=1.2)
ax.set(xlabel="sum over the first half of the input", ylabel="whole sum")
both, vain, missed = by_half & by_whole, by_half & ~by_whole, ~by_half & by_whole
ax.set_ylim(whole.min() - 0.3, whole.max() + 0.7)
note(ax, f"{both.sum()} found", half.max(), 0.95, dx=-40, high=True, color=BLUE)
note(ax, f"{vain.sum()} in vain", half.max(), 0.08, dx=-40, high=True, color=RED)
note(ax, f"{missed.sum()} missed", half.min(), 0.95, high=True, color=ORANGE)
show(fig)

# %%
found = np.mean(
    [float((g & b).sum() / b.sum()) for g, b in zip(guessed, largest, strict=True)]
)
print(f"found by the half sum, all layers and bytes: {K * found:.0f} of {K}")


def loss(network):
    """Nats per byte on half of the windows."""
    logits, wanted = network(windows[:4])[:, :-1], torch.from_numpy(windows[:4, 1:])
    return float(F.cross_entropy(logits.flatten(0, 1), wanted.long().flatten()))


def limited(r):
    """lm_relu with K neurons per byte, those with the largest sum over r coordinates."""

    def hidden(x, w):
        return torch.relu(x @ w.up.T) * exact.mask(x[..., :r] @ w.up.T[:r], k=K)

    return load("lm_relu", ffn=hidden)


print(f"loss with all neurons:              {loss(relu_lm):.3f}")
print(f"with {K} chosen by the whole sum:    {loss(limited(d)):.3f}")
print(f"with {K} chosen by half of the sum:  {loss(limited(R)):.3f}")

# %% [markdown]
# Half of a sum knows much of the whole: six in ten are found, what is missed lies near the border, and the
# loss rises by less than a tenth. That is not nothing, and there are two ways on. Train a second network to guess better
# (lesson 1.3). Or **change the layer so that the guess is right by definition**.
#
# ## Say it exactly
#
# Split the input $q \in \mathbb{R}^d$ into $q_{[:r]}$ and $q_{[r:]}$, and the weights $K$ likewise into
# $K_1 \in \mathbb{R}^{r \times m}$ and $K_2 \in \mathbb{R}^{(d-r) \times m}$. A column is still one neuron.
#
# $$u = K_1^\top q_{[:r]}, \qquad w = K_2^\top q_{[r:]}, \qquad
# \mathrm{ffn}(q) = V\left[\,\mathrm{gelu}(\mathrm{soft}(u)) \odot w\,\right]$$
#
# $u$ are the **scores**: they choose. $\mathrm{soft}(u) = \max(u - \theta, 0)$ is the statistical top-k of
# lesson 1.0, with $\theta = \bar u + s\,Q(1 - k/m)$; about $k$ of $m$ entries are not zero, and
# $\mathrm{gelu}(0) = 0$ keeps the zeros. $w$ are the **values**: what a chosen neuron says. A value that was
# not chosen is multiplied by zero, whatever it is.
#
# The paper calls $K_1$ a predictor, but nothing is predicted: there is no right answer that it could miss.
# A gated layer (gelu of one product times another product) has the same form with three matrices; Spark has two,
# since each product sees half of the input.
#
# `lm_spark` is `lm_relu` with this layer, of as many weights, trained with it from the first step. One byte:

# %%
q = activations(model, windows, "blocks.*.ffn.x")["blocks.1.ffn.x"]
weights = model.blocks[1].ffn.weights
K1, K2, V = weights.up.T[:R], weights.up.T[R:], weights.down
u, w = (q[0, byte, :R] @ K1).numpy(), (q[0, byte, R:] @ K2).numpy()
theta = float(statistical.threshold(u.astype(float), k=K))
kept = u > theta

# %% tags=["hide-input"]
fig, ax = figure(
    "The first half chooses, the second half speaks",
    alt="Scatter of the scores and values of 512 neurons on one byte: only the few to the right of the "
    "threshold count, whatever the height of the others",
    size=(7.4, 4.4),
)
ax.axvspan(min(u) - 1, theta, color="#f1f3f6", zorder=0)
ax.scatter(u[~kept], w[~kept], s=18, color=FAINT, linewidths=0)
ax.vlines(u[kept], 0, w[kept], color=BLUE, linewidth=1.2)
ax.scatter(u[kept], w[kept], s=30, color=BLUE, linewidths=0)
ax.axhline(0, color=GREY, linewidth=0.8)
ax.axvline(theta, color=INK)
ax.set(xlim=(u.min() - 0.05, u.max() + 0.05), xlabel="score, from the first half")
ax.set(ylim=(1.2 * w.min(), 1.35 * w.max()), ylabel="value, from the second half")
note(ax, f"{kept.sum()} chosen", theta, 0.95, high=True, color=BLUE)
unread = f"{(~kept).sum()} values that nobody computes"
note(ax, unread, theta, 0.95, dx=-8, high=True, color=GREY)
note(ax, "θ", theta, 0.04, high=True)
show(fig)

# %% [markdown]
# What a practised eye sees: left of the line lie large values too, of both signs, and they do not matter.
# To draw them we had to compute what the layer never does. And the number chosen is not quite the 41 that
# were asked for: a threshold keeps *about* $k$.
#
# By hand, $k = 2$: the scores $(3, 1, 1, 3)$ have mean 2 and deviation 1, and $Q(1/2) = 0$, so $\theta = 2$
# and $\mathrm{soft}(u) = (1, 0, 0, 1)$. With $\mathrm{gelu}(1) = 0.841$ and the values $(2, 7, 7, -1)$ the
# product is $(1.68, 0, 0, -0.84)$. The sevens were not asked.


# %% exercise="spark.ffn" difficulty=2 importance=5 minutes=8
def ffn(
    q: Float[np.ndarray, "*b d"],
    K1: Float[np.ndarray, "r m"],
    K2: Float[np.ndarray, "e m"],
    V: Float[np.ndarray, "d m"],
    *,
    k: int,
) -> Float[np.ndarray, "*b d"]:
    """V [gelu(soft(K1^T q[:r])) * (K2^T q[r:])] for each token, the last axis of q.

    `gelu(x)` and `statistical.soft(x, k=k)` are at hand; soft works on each row.
    """
    r, m = K1.shape
    d = q.shape[-1]
    if K2.shape != (d - r, m) or V.shape != (d, m):
        raise ValueError(
            f"K1 {K1.shape}, K2 {K2.shape}, V {V.shape} do not fit q {q.shape}"
        )
    u = ...  # the scores of all m neurons
    raise NotImplementedError


# %%
grade("spark.ffn", ffn)

# %% [markdown]
# `hint("spark.ffn")` gives a hint, and a further one each time. The package's definition, without $V$:

# %%
print(inspect.getsource(inspect.unwrap(reference.hidden)))

# %% [markdown]
# ## What one byte reads
#
# A product of a vector of length $a$ with $n$ columns takes $2an$ FLOPs, a multiplication and an addition for
# each weight that it meets. So the arithmetic can be seen: colour the weights that one byte meets.

# %%
zeros = torch.relu(wholes[1][byte]) == 0
met = {
    "dense": (np.ones((d, NEURONS), bool),) * 2,
    "ReLU, lesson 1.1": (
        np.ones((d, NEURONS), bool),
        np.tile(~zeros.numpy(), (d, 1)),
    ),
    "Spark": (
        np.tile(kept, (d, 1)) | (np.arange(d) < R)[:, None],
        np.tile(kept, (d, 1)),
    ),
}

# %% tags=["hide-input"]
fig, axes = figure(
    "To choose you must read, but half of K is enough",
    alt="Pixels of the two matrices for 128 neurons: dense meets all weights, ReLU all of K and few columns of "
    "V, Spark the upper half of K and few columns of the rest",
    size=(8.6, 5.6),
    rows=2,
    cols=3,
)
for column, (name, pair) in zip(axes.T, met.items(), strict=True):
    for ax, weights_met in zip(column, pair, strict=True):
        pixels(ax, weights_met[:, :128])
        ax.set(xticks=[], yticks=[])
    share = np.mean(pair)
    column[0].set_title(f"{name}: {share:.0%}")
axes[0, 0].set_ylabel("K, a row per coordinate")
axes[1, 0].set_ylabel("V, a row per coordinate")
axes[1, 1].set_xlabel(f"128 of {NEURONS} neurons, one byte of text")
show(fig)


# %% [markdown]
# Now the same in a formula, of use for attention too: `entries` are the neurons of a layer, or the keys that
# a head can see.


# %% exercise="spark.flops" difficulty=1 importance=4 minutes=6
def flops(*, width: int, entries: int, r: int, k: int) -> int:
    """FLOPs of one token that picks k of the entries with r of its `width` coordinates.

    Where there are fewer than k entries all are picked. width 4, r 2, 10 entries, k 3:
    the predictor 2*2*10 = 40, the rest of K 2*2*3 = 12, V 2*4*3 = 24, so 76.
    """
    if not 0 <= r <= width or min(entries, k) < 1:
        raise ValueError(f"r={r} of {width}, k={k} of {entries}")
    raise NotImplementedError


# %%
grade("spark.flops", flops)

# %%
share = 100 * flops(width=d, entries=NEURONS, r=R, k=K) / (4 * d * NEURONS)
print(f"left of a dense layer: {share:.0f} %; your guess was {my_guess} %")
nothing = 100 * flops(width=d, entries=NEURONS, r=R, k=1) / (4 * d * NEURONS)
print(f"and with a single neuron kept: {nothing:.0f} %")

# %% [markdown]
# Whoever guessed 8 % forgot the price of the choice. It is paid in full, whatever $k$: a quarter of the
# dense layer.
#
# ### Equal weights, not equal neurons
#
# The paper trains Gemma-2 2B, width 2304, whose layers are gated: three matrices of 9216 neurons.
# **Predict:** how many neurons may a Spark layer of two matrices have, if it is to have as many weights?

# %%
wide, gated = 2304, 9216
entries = 3 * wide * gated // (2 * wide)
cost = flops(width=wide, entries=entries, r=1024, k=1106)
fewer = 6 * wide * gated / cost
print(f"neurons at equal weights: {entries}, of which 1106 are {1106 / entries:.0%}")
print(f"million FLOPs per token: {6 * wide * gated / 1e6:.1f} gated, {cost / 1e6:.1f}")
print(f"{fewer:.1f} times fewer")
unfair = 6 * wide * gated / flops(width=wide, entries=gated, r=1024, k=1106)
print(f"with the old {gated} neurons: {unfair:.1f} times fewer, and 1/3 fewer weights")

# %% [markdown]
# Whoever keeps the number of neurons compares a large layer with a small one, and part of the saving is
# that it is small. Here `lm_spark` and `lm_relu` have equally many weights.
#
# ## One k for life
#
# In lesson 1.1 we put Top-k into `lm_relu` after training: the loss fell as $k$ grew, then stayed flat.
# `lm_spark` was trained with $k = 41$. **Predict:** allow it 128 neurons, three times as many, and train
# nothing. Does the loss get (A) better, (B) stay, (C) get worse?

# %%
ks = [4, 8, 16, 32, 41, 64, 128, 192, 256]


def at_k(k):
    """lm_spark, and lm_relu with its k largest neurons."""

    def spark_hidden(x, w):
        return fast.hidden(x, w.up.T[:R], w.up.T[R:], k=k)

    def relu_hidden(x, w):
        z = torch.relu(x @ w.up.T)
        return z * exact.mask(z, k=k)

    return load("lm_spark", ffn=spark_hidden), load("lm_relu", ffn=relu_hidden)


losses = np.array([[loss(network) for network in at_k(k)] for k in ks])
best = ks[int(losses[:, 0].argmin())]
print(f"lm_spark is best at k = {best}; trained with {K}")
print(f"128 neurons are worse than {K}: {bool(losses[6, 0] > losses[4, 0])}")

# %% [markdown]
# (C). Move the slider and watch the ramp on the right: it is what a score becomes. $\theta$ falls as $k$
# grows, and **every** chosen neuron gets louder, not only the new ones. Hard top-k leaves its survivors
# alone; soft top-k does not. So there is no dense limit either: at $k = m$ the quantile $Q(0)$ is $-\infty$.


# %% tags=["hide-input"]
def draw(k=41):
    fig, (left, right) = figure(size=(8.8, 3.6), cols=2)
    left.set_title("Loss: a valley near the trained k")
    left.set(xscale="log", xlabel="neurons allowed, k", ylabel="nats per byte")
    left.set_xlim(3.5, 420)
    left.set_xticks([4, 16, 41, 128, 256], ["4", "16", "41", "128", "256"])
    left.minorticks_off()
    for row, color, name in ((0, BLUE, "Spark"), (1, GREY, "ReLU")):
        left.plot(ks, losses[:, row], color=color)
        note(left, name, ks[-1], losses[-1, row], dx=10, color=color)
    left.plot(k, losses[ks.index(k), 0], "o", color=BLUE, markersize=11)
    right.set_title("The ramp that a score climbs")
    right.hist(u, bins=50, density=True, color=FAINT)
    cut = float(statistical.threshold(u.astype(float), k=k))
    grid = np.linspace(u.min(), u.max(), 200)
    right.plot(grid, 3 * gelu(np.maximum(grid - cut, 0)), color=BLUE)
    right.axvline(cut, color=INK, linewidth=1)
    note(right, f"{int((u > cut).sum())} above θ", cut, 0.95, dx=-6, high=True)
    right.set(yticks=[], xlabel="score of one neuron", ylim=(0, 2.2))
    right.spines.left.set_visible(False)
    return fig


explore(
    draw,
    alt="Loss against the neurons allowed: Spark has a valley near the 41 it was trained with, ReLU is flat; "
    "beside it the ramp gelu(u - theta) over a histogram of scores, which moves left as k grows",
    k=ks,
)

# %% [markdown]
# ## The scale trap
#
# Subtracting $\theta$ leaves little: of a standard normal, 8 % exceed $1.41$, and most of them just. And
# the layer multiplies two small numbers. **Predict:** before training, how much smaller is what a Spark
# layer adds to the residual stream than what a ReLU layer adds? A half, a tenth, less?

# %%
z = np.random.default_rng(0).normal(size=(1, 100_000))
rms = float(np.sqrt((statistical.soft(z, k=8000) ** 2).mean()))
print(f"RMS of soft(z) for a standard normal z: {rms:.2f}")


def written(network):
    """RMS of what the feed-forward layers add to the residual stream."""
    out = activations(network, windows[:2], "blocks.*.ffn.out").values()
    return float(torch.stack(list(out)).square().mean().sqrt())


names = "lm_relu", "lm_gated", "lm_spark"
fresh = {name: TinyLM(**load(name).config).eval() for name in names}
for name in names:
    print(f"{name}: {written(fresh[name]):.4f} untrained, {written(load(name)):.2f}")
ratio = written(fresh["lm_relu"]) / written(fresh["lm_spark"])
print(f"untrained, ReLU writes {ratio:.0f} times what Spark writes")
for name in names:
    early = {step: held_out for step, _, held_out in card(name)["history"]}
    print(
        f"{name}: held-out loss {early[100]:.2f} at step 100, {early[300]:.2f} at 300"
    )

# %% [markdown]
# Three factors meet: the threshold, a GELU that is only $x/2$ near zero, and a second small number. A layer
# that adds nothing gets hardly any gradient either. Here it costs the first hundred steps and no more: AdamW
# divides each gradient by its own size. Plain gradient descent would not (we have not tried). A larger start
# for $K$ and $V$ is the other way out; look at this number before you look at the loss.
#
# ## The same in attention
#
# Attention is a look-up too: keys in place of $K$, values in place of $V$, and the entries are the tokens
# so far. For one head, with query $q$ and keys $k_j$, both split at $r$:
#
# $$u_j = \frac{\langle q_{[:r]}, k_{j[:r]}\rangle}{\sqrt r}, \qquad
# w_j = \frac{\langle q_{[r:]}, k_{j[r:]}\rangle}{\sqrt{d - r}}, \qquad
# o = \sum_{j\ \text{selected}} \mathrm{softmax}(u)_j\ \mathrm{softplus}(w_j)\ v_j$$
#
# $\mathrm{softplus}(w) = \ln(1 + e^w)$. Selected are the keys whose score exceeds the threshold of its row;
# the softmax runs over those alone. In `lm_spark` a head of width 32 chooses with 16 coordinates, about 32
# of up to 256 bytes. Each half has its own rotary positions. Two heads on one text:

# %%
points = activations(model, windows, "blocks.*.attention.[qkv]")


def scores(layer):
    """Scores of the first halves, one 256 x 256 table per window and head."""
    queries, keys = (points[f"blocks.{layer}.attention.{name}"] for name in "qk")
    return queries[..., :HEAD_R] @ keys[..., :HEAD_R].mT * HEAD_R**-0.5


table_of_scores = scores(1)
attended = fast.select(table_of_scores, keep=KEEP)

# %% tags=["hide-input"]
fig, axes = figure(
    "Few keys for each query, and other ones for each head",
    alt="Two lower triangles of pixels, query against key: after the first 32 rows each query keeps a few "
    "keys, in patterns that differ between the heads",
    size=(8.6, 4.6),
    cols=2,
)
for ax, head in zip(axes, (0, 2), strict=True):
    pixels(ax, attended[0, head].numpy())
    ax.set(title=f"head {head + 1}", xlabel="key", ylabel="query")
    ax.set_xticks([0, 128, 255])
    ax.set_yticks([0, 32, 128, 255])
show(fig)


# %% [markdown]
# The threshold needs a mean and a deviation, and here is the trap of lesson 1.0 in earnest: row $i$ sees
# $i + 1$ keys. What it does not see may not vote, neither with its value nor with its number: the quantile
# $Q(1 - \text{keep}/n)$ belongs to the row, with $n$ the keys that it sees. A row with $n \le$ keep keeps all.
#
# One more case. Nothing may exceed the threshold: scores $(5, 5, 5)$ have deviation 0. A feed-forward layer
# may then say nothing. A softmax over no key is no number; so the (first) maximum always stays.


# %% exercise="spark.select" difficulty=3 importance=5 minutes=14
def select(
    scores: Float[np.ndarray, "*b t s"], *, keep: int
) -> Bool[np.ndarray, "*b t s"]:
    """True for the keys that each query attends to.

    The t queries are the last of s tokens: query i sees the keys up to i + s - t. With
    keep 1, row 0 of (2, 9, 9), (1, 3, 9), (5, 5, 5) keeps its one key; row 1 sees (1, 3),
    theta = 2, and keeps the 3; row 2 has nothing above theta = 5 and keeps its first 5.
    `statistical.threshold(x, k=k, mask=visible)` of lesson 1.0 is at hand; it wants k < s.
    """
    t, s = scores.shape[-2:]
    if t > s or keep < 1:
        raise ValueError(f"{t} queries for {s} keys, keep={keep}")
    visible = ...  # True where the query sees the key; np.tri helps
    raise NotImplementedError


# %%
grade("spark.select", select)

# %% [markdown]
# What if the hidden keys do vote? Usually they are filled first, with $-10^9$, so that the softmax drops
# them. **Predict:** with $-10^9$ in place of the future, do the early rows keep too many keys or too few?
# And the late ones?

# %%
row_scores = table_of_scores[0, 0].double().numpy()
visible = np.tri(256, dtype=bool)


def kept_per_row(filled, mask=None):
    cut = statistical.threshold(filled, k=KEEP, mask=mask)
    return (visible & (row_scores > cut[:, None])).sum(axis=1)


counts = {
    "right": kept_per_row(row_scores, visible),
    "filled with −10⁹": kept_per_row(np.where(visible, row_scores, -1e9)),
    "filled with 0": kept_per_row(np.where(visible, row_scores, 0)),
}
for name, count in counts.items():
    print(f"{name:17}: rows 50, 100, 150, 200 keep {count[[50, 100, 150, 200]]}")

# %% tags=["hide-input"]
fig, ax = figure(
    "Hidden keys must not vote",
    alt="Keys kept against row: with the right statistics about 32 from row 32 on; filled with minus a "
    "billion all keys until somewhere before row 128, then none; filled with zero too few for most rows",
    size=(7.8, 4),
)
ax.set(xlim=(0, 255), ylim=(-2, 125), xlabel="query", ylabel="keys kept")
ax.axhline(KEEP, color=GREY, linewidth=1, linestyle=":")
for name, color in (
    ("filled with −10⁹", RED),
    ("filled with 0", ORANGE),
    ("right", BLUE),
):
    ax.plot(counts[name], color=color, linewidth=1.6)
drop = int((counts["filled with −10⁹"] > 0)[:255].nonzero()[0].max())
note(ax, "filled with −10⁹:\nall, then none", drop, 100, dx=10, color=RED)
note(ax, "right", 200, counts["right"][190:210].max(), dx=0, dy=12, color=BLUE)
note(ax, "filled with 0", 120, 15, color=ORANGE)
show(fig)

# %% [markdown]
# With $-10^9$ the mean of an early row sinks below everything it sees, so all is kept; once the visible keys
# are the majority the deviation lifts the threshold above all of them, so none is. The loss would still be a
# number, training would go on, and nobody would get an error. Fill with 0 and the error is quieter still.
#
# Now the whole head. The other half enters after the softmax: it scales what each selected key says.


# %% exercise="spark.attend" difficulty=3 importance=4 minutes=12
def attend(
    q: Float[np.ndarray, "b h t d"],
    k: Float[np.ndarray, "b g s d"],
    v: Float[np.ndarray, "b g s e"],
    *,
    keep: int,
    r: int,
    scale: float | None = None,
    value_scale: float | None = None,
) -> Float[np.ndarray, "b h t e"]:
    """o = sum over selected j of softmax(u)_j softplus(w_j) v_j, for each query.

    u is `scale` times the products of the first r coordinates, w `value_scale` times
    those of the others. `selected(u, keep=keep)` says which keys count. Two
    selected keys of equal score with w = (0, 0): each weighs 1/2 ln 2 = 0.347.
    """
    (b, h, _, d), (_, g, s, _) = q.shape, k.shape
    if k.shape != (b, g, s, d) or v.shape[:3] != (b, g, s) or not 0 < r < d:
        raise ValueError(f"q {q.shape}, k {k.shape}, v {v.shape} and r={r} do not fit")
    if not g or h % g:
        raise ValueError(f"{h} query heads cannot share {g} key heads evenly")
    k, v = np.repeat(k, h // g, axis=1), np.repeat(v, h // g, axis=1)
    scale = r**-0.5 if scale is None else scale
    value_scale = (d - r) ** -0.5 if value_scale is None else value_scale
    raise NotImplementedError


# %%
grade("spark.attend", attend)

# %% [markdown]
# Two questions before you run the next cell. In the feed-forward layer soft and hard top-k were different
# layers. **Predict:** if the selected scores are shifted by $\theta$ before the softmax, does the attention
# change? And do the weights of one query add up to 1?

# %%
theta = statistical_fast.threshold(
    table_of_scores, k=KEEP, mask=torch.from_numpy(visible).expand(8, 4, 256, 256)
)
theta = torch.where(theta.isfinite(), theta, 0)[..., None]
hard = table_of_scores.masked_fill(~attended, -torch.inf).softmax(dim=-1)
soft = (table_of_scores - theta).masked_fill(~attended, -torch.inf).softmax(dim=-1)
print(f"soft and hard give the same weights: {bool((soft - hard).abs().max() < 1e-5)}")
queries, keys = (points[f"blocks.1.attention.{name}"][..., HEAD_R:] for name in "qk")
values = F.softplus(queries @ keys.mT * HEAD_R**-0.5)
low, high = np.percentile((hard * values).sum(dim=-1), [5, 95])
print(f"sum of a query's weights, middle nine tenths: {low:.2f} to {high:.2f}")

# %% [markdown]
# The shift cancels in the softmax, so no gradient reaches $\theta$ and `keep` may be changed after training
# more freely than $k$. And the sum is free: a head can speak softly where it has found nothing. Whoever
# normalises again takes that away.
#
# ## Make it fast
#
# In training everything is dense. Token by token only the chosen are read: `decode` does it for the layer,
# `attend_one` for attention. The answers are the same.

# %%
print(inspect.getsource(inspect.unwrap(fast.decode)))
one = q[0, byte]
same = fast.decode(one, K1, K2, V, k=K) - fast.ffn(one, K1, K2, V, k=K)
print(f"same layer: {bool(same.abs().max() < 1e-5)}")
queries, keys, values = (points[f"blocks.1.attention.{name}"] for name in "qkv")
whole = fast.attend(queries, keys, values, keep=KEEP, r=HEAD_R)[0, :, -1]
newest = fast.attend_one(queries[0, :, -1], keys[0], values[0], keep=KEEP, r=HEAD_R)
print(f"same attention: {bool((newest - whole).abs().max() < 1e-5)}")
kib = 4 / 1024  # a float32 weight
read = (K1.numel() + kept.sum() * (len(K2) + len(V))) * kib
print(
    f"weights of the layer read for this byte: {read:.0f} KiB of {(2 * V.numel()) * kib:.0f}"
)

# %% [markdown]
# Report what was achieved, layer by layer, not what was asked for. And report the whole block: the
# projections of attention stay dense.

# %%
hidden = activations(model, windows, "blocks.*.ffn.hidden")
shares = [float((h != 0).double().mean()) for h in hidden.values()]
for i, share in enumerate(shares):
    per_query = fast.select(scores(i), keep=KEEP)[..., KEEP:, :].sum(dim=-1)
    print(
        f"layer {i + 1}: {share:.1%} of the neurons (asked for {K / NEURONS:.1%}), "
        f"{per_query.double().mean():.0f} keys a head (asked for {KEEP})"
    )
seen = 128  # the mean row sees so many bytes
dense = dense_block(relu_lm.config, 1, seen)
sparse = spark_lm.block(model.config, np.mean(shares), seen)
layer = 4 * d * NEURONS / fast.flops(width=d, entries=NEURONS, r=R, k=K)
width = 2 * HEAD_R
head = 4 * width * seen / fast.flops(width=width, entries=seen, r=HEAD_R, k=KEEP)
theirs = 4 * 256 * 4096 / fast.flops(width=256, entries=4096, r=128, k=256)
print(f"feed-forward layer: {layer:.1f} times fewer FLOPs than dense")
print(f"a head, {seen} keys: {head:.1f} times; the paper's, 4096 keys: {theirs:.1f}")
print(f"whole block:        {dense / sparse:.1f} times")

# %% [markdown]
# Whether fewer bytes are less time is lesson 1.3, with a stopwatch.
#
# ## Is the paper right, here?
#
# The claims, over three seeds, in a small network of two blocks with eight bytes of context:

# %%
print(table("spark"))

# %% [markdown]
# And the language models of this lesson, one seed each:

# %%
for name in ("lm_relu", "lm_gated", "lm_spark"):
    about = card(name)
    print(
        f"{name:9} {about['parameters'] / 1e6:.2f} M weights, "
        f"held-out loss {about['held_out']['loss']:.3f}, train {about['train']['loss']:.3f}"
    )

# %% [markdown]
# One seed and one size prove little. So here are all kinds of layers in models of two blocks, trained alike
# on the same bytes over several seeds: loss against the arithmetic of one byte. Left and low is good; the
# step joins the best that each budget buys. **Predict** who beats whom: Spark or a dense layer with so few
# neurons that it costs as much? Spark or a ReLU layer of as many weights?

# %%
entries = frontier.stored()
for row in frontier.summary(entries):
    print(
        f"{row['title']:23} {row['flops'] / 1e6:.2f} MFLOPs, {row['active']:4.0%} active, "
        f"loss {row['loss']:.3f} ({row['low']:.3f} to {row['high']:.3f})"
    )


def beats(ours, theirs):
    """In how many seeds the one recipe ends lower than the other."""
    at = {(e["recipe"], e["seed"]): e["loss"] for e in entries}
    pairs = [(at[ours, seed], at[theirs, seed]) for name, seed in at if name == ours]
    return f"{sum(a < b for a, b in pairs)} of {len(pairs)} seeds"


print()
for name in ("lm_spark_ffn_small", "lm_spark_small"):
    print(f"{name} beats lm_narrow_small in {beats(name, 'lm_narrow_small')}")

# %% tags=["hide-input"]
show(
    frontier.draw(
        entries,
        title="At equal arithmetic choosing beats shrinking",
        alt="Held-out loss against FLOPs of one byte: Spark costs least and lies below the dense GELU layer "
        "with fewer neurons; Top-k, ReLU and gated layers cost more and lie lower still",
    )
)

# %% [markdown]
# **At equal arithmetic** Spark's layer wins in every seed: GELU with fewer neurons costs as much and has the
# higher loss. With Spark's attention too, one seed of three ended far above the others and lost; look at the
# length of its bar. **At equal weights** Spark loses here: ReLU and gated layers cost more and have the lower
# loss, against the order in the table of claims. There the context was eight bytes and no attention took part.
# Here most of the gap is the attention, as "Spark, dense attention" shows, and with 128 bytes in sight sparse
# attention saves little.
#
# So what holds? Three times fewer FLOPs in the layer at equal weights; a better loss at equal arithmetic.
# What does not: "as good as the dense model of as many weights" depends on the setting; the active share
# strays from its target by more than a point, since scores are not normal; the whole block gains less than
# the layer. Not tried: a long context, where attention is most of the work; billions of weights; other
# splits than one half.
#
# > **What the released code does.** We know of none for the Spark Transformer: the paper's models were trained
# > inside Google, so the scales, the statistics of a causal row and the sharing of key heads above are our
# > reconstruction. The operator alone ships in Gemma 3n (`transformers`): on the gate of an ordinary gated
# > layer, keeping 5 %, in the first ten layers. There is no split: the gate reads the whole input and chooses.
# > And all three products run dense in that code. Its zeros save nothing until somebody skips them, and then
# > they save `up` and `down`, never the gate. Attention there has no top-k. `fast.gate_ffn` is that layer.
#
# ## Remember
#
# 1. Half of the input can choose: the first half scores all neurons or keys, the second half speaks for
#    those chosen. The choice is right by definition, since the layer was trained with it.
# 2. The choice has a price that no $k$ lowers, $2rm$. Compare at equal weights, and count the whole block.
# 3. The threshold is part of the layer: its statistics belong to what a row can see, and soft top-k is
#    tied to the $k$ it was trained with.
#
# Two questions without answers here. With $r = d/8$ the choice would cost a quarter of what it costs now:
# what would it miss? And if $k$ were drawn anew at each training step, would one model serve every budget?
#
# Further reading: You et al., *Spark Transformer*, arXiv:2506.06644; Shazeer, *GLU Variants Improve
# Transformer*, arXiv:2002.05202; Liu et al., *Deja Vu*, arXiv:2310.17157, for the other way on (lesson 1.3).
