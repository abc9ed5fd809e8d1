# ---
# sparselab:
#   title: "Decode that skips: bytes first, then the stopwatch"
#   minutes: 60
# ---

# %% [markdown]
# A language model writes one byte after the other, and for each of them it reads all of its weights once. In
# lesson 1.1 nine neurons in ten of `lm_relu` had nothing to say. **If nobody reads the weights of the silent
# ones, how many times faster does the model write?**
#
# After this lesson you can
# - count the weights that one byte of text costs, and predict a speed-up before anybody takes the time,
# - tell the methods of this field apart by one question: *when* is it known what may be skipped?
# - skip rows, columns and neurons, and say what that does to the answer,
# - read other people's speed-ups: density, layout, batch, baseline.
#
# Guess first: nine neurons in ten are left out, exactly those whose activation is zero. How many times
# faster?

# %%
my_guess = 10  # times

# %% tags=["hide-input"]
import inspect
import time
from functools import partial

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from matplotlib.colors import ListedColormap
from torch.nn import functional as F

from sparselab import bench
from sparselab.claims import table
from sparselab.course import grade, hint
from sparselab.data import text
from sparselab.formats.rows import fast as gather
from sparselab.lazy.cats import model as cats
from sparselab.lazy.deja_vu import claim as training
from sparselab.lazy.deja_vu import fast as predictor
from sparselab.lazy.deja_vu import model as deja_vu
from sparselab.lazy.deja_vu.reference import Params
from sparselab.lazy.lazy_neuron import model as lazy_neuron
from sparselab.lazy.relufication import fast as union
from sparselab.lazy.teal import fast as teal_fast
from sparselab.lazy.teal import model as teal
from sparselab.lazy.teal import reference as teal_reference
from sparselab.models import Decoder, activations, generate, load, reaching
from sparselab.models.meter import Meter
from sparselab.plots import (
    BLUE,
    FAINT,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PAPER,
    PURPLE,
    RED,
    explore,
    figure,
    note,
    show,
)

torch.manual_seed(0)
torch.set_grad_enabled(False)
relu_lm, gated_lm = load("lm_relu"), load("lm_gated")
layers, d = relu_lm.config["layers"], relu_lm.config["width"]
rng = np.random.default_rng(0)
calibration, held_out = (
    torch.from_numpy(text.windows(text.pydocs(split), length=n, n=8, rng=rng)).long()
    for split, n in (("train", 128), ("held_out", 257))
)
passage = bytes(text.pydocs("held_out")[1000:1032])
prompt = "The function returns "
colours = ListedColormap([PAPER, "#e6e9ee", BLUE])  # nothing, skipped, read

# %% [markdown]
# ## Look first
#
# `Decoder` runs a model as a chat program does: one byte at a time, keeping the keys and values of what it
# has read. Its feed-forward layer is a function, and this one reads a neuron's row of the second matrix
# only if the neuron is active. The same model twice, always taking the most likely byte:

# %%
dense, skipping = Decoder(relu_lm), Decoder(relu_lm, ffn=lazy_neuron.decode_ffn)
written = generate(skipping, prompt, n=130, temperature=0)
print(written)
print()
same = written == generate(dense, prompt, n=130, temperature=0)
print(f"the dense model writes the same: {same}")

# %% [markdown]
# Byte for byte the same: a row that is multiplied by zero need not be read. Now count. `Meter` watches every
# operation of torch and adds up the bytes of weights that it reads, in float32, 4 bytes a weight.


# %%
def megabytes(decoder):
    """MB of weights read for one byte of text: the mean over a held-out passage."""
    with Meter() as meter:
        for end in range(1, len(passage) + 1):
            decoder(passage[:end])
    return meter.bytes / len(passage) / 1e6


read_dense, read_idle = megabytes(dense), megabytes(skipping)
maps = activations(relu_lm, held_out[:, :-1], "blocks.*.ffn.hidden").values()
density = [float((a > 0).double().mean()) for a in maps]
print("active in each layer:", ", ".join(f"{p:.0%}" for p in density))
print(f"read for one byte: {read_dense:.2f} MB dense, {read_idle:.2f} MB skipping")
print(f"at best {read_dense / read_idle:.2f} times faster; your guess was {my_guess}")

# %% tags=["hide-input"]
m = relu_lm.config["neurons"]
parts = {
    "attention": layers * 4 * d * d,
    "first matrix": layers * m * d,
    "second matrix": layers * m * d,
    "output": relu_lm.config["vocab"] * d,
}
fig, ax = figure(
    "Nine in ten neurons are idle, seven in ten bytes are read",
    alt="Two bars of the weights that one byte of text reads: attention, first matrix, second matrix, output; "
    "skipping makes only the second matrix short",
    size=(8.6, 2.7),
)
for row, share in ((1, 1.0), (0, np.mean(density))):
    start = 0
    for name, weights in parts.items():
        mb = 4 * weights / 1e6
        read = mb * (share if name == "second matrix" else 1)
        ax.barh(row, mb, left=start, color=FAINT, edgecolor=PAPER, linewidth=2)
        color = BLUE if name == "second matrix" else GREY
        ax.barh(row, read, left=start, color=color, edgecolor=PAPER, linewidth=2)
        if row:
            note(ax, name, start + mb / 2, 1.55, dx=0, ha="center", color=color)
        start += mb
ax.set(yticks=[0, 1], yticklabels=["skipping", "dense"], ylim=(-0.5, 1.8))
ax.set_xlabel("MB of weights for one byte of text")
ax.spines[["left"]].set_visible(False)
ax.tick_params(axis="y", length=0)
show(fig)

# %% [markdown]
# What a practised eye sees: the skipping works, and it works on a third of the model. Attention and the
# output are read in full. So is the first matrix, for its product is what tells who is idle.
#
# ## Say it exactly
#
# While it writes, the model uses each weight for one multiplication and one addition, then not again until
# the next byte: 2 FLOPs for 4 bytes. Processors can do far more FLOPs than that in the time that 4 bytes
# take to arrive from memory. So the time of a layer is
#
# $$t = \max\left(\frac{\text{bytes}}{\text{bandwidth}},\ \frac{\text{FLOPs}}{\text{peak}}\right)$$
#
# and at one token at a time the left side decides. Let $f$ be the part of the bytes that a method can reach at
# all, and $r$ the share of that part which it still reads:
#
# $$\text{speed-up}\ \le\ \frac{1}{(1 - f) + f\,r}$$
#
# By hand: above, the second matrix is $f = 0.32$ of the bytes and $r = 0.07$ of it is read: $1/(0.68 +
# 0.02) = 1.4$. If all of it were free: $1/0.68 = 1.5$. Ten was never possible. Whoever *measures* more than
# this bound has weights in a cache, or a slow baseline.
#
# ## When is it known?
#
# To read less, know sooner. That one question sorts the field. $p$ is the share that is kept:
#
# | system | what may be skipped is known ... | read of the layer | answer |
# |---|---|---|---|
# | zeros of a ReLU | after the first of two matrices | $1/2 + p/2$ | the same |
# | CATS | after the gate, the first of three matrices | $1/3 + 2p/3$ | changed |
# | TEAL | from the input, before any matrix | $p$ | changed |
# | Deja Vu | from a small extra network, before any matrix | $p$ + that network | changed |
#
# `lm_gated` is the sister of `lm_relu` with as many weights and the layer of today's large models,
# $h = \mathrm{gelu}(W_g x) \odot W_u x$, $y = W_d h$: three matrices, called gate, up and down. Its zeros have
# to be made. Both methods for it cut off what is small, with cuts found on training text. For Deja Vu, train
# six small predictors now (five seconds).

# %%
cats_cuts = cats.calibrate(gated_lm, calibration, sparsity=0.5)
teal_cuts = teal.calibrate(gated_lm, calibration, sparsity=0.5)
seen = training.inputs_and_activations(
    relu_lm, training.windows("train", np.random.default_rng(0), n=16)
)
with torch.enable_grad():
    predictors = [training.train(*xa, seed=0, steps=200, rate=1e-2) for xa in seen]

# %% tags=["hide-input"]
layer, token = 2, 30
block, position = gated_lm.blocks[layer], f"blocks.{layer}.ffn"
one = held_out[:1, :256]
x = activations(gated_lm, one, f"{position}.x")[f"{position}.x"][0, token]
gates = (F.gelu(block.ffn.gate @ x).abs() > cats_cuts[layer]).numpy()
with reaching(gated_lm, teal.masks(teal_cuts)):
    inside = activations(gated_lm, one, [f"{position}.x", f"{position}.hidden"])
columns, rows = ((v[0, token] != 0).numpy() for v in inside.values())
at = activations(relu_lm, one, [f"{position}.x", f"{position}.hidden"])
busy = (at[f"{position}.hidden"][0, token] > 0).numpy()
guessed = predictor.select(predictors[layer], at[f"{position}.x"][0], keep=96)
guessed = guessed[token].numpy()


def whole(n):
    return np.ones((d, n), bool)


def neurons(kept):
    """The weights of the kept neurons: columns of a matrix drawn with a row per coordinate."""
    return np.tile(kept, (d, 1))


def coordinates(kept, n):
    return np.tile(kept[:, None], (1, n))


n = len(gates)
strips = {
    "zeros of a ReLU": {"up": whole(m), "down": neurons(busy)},
    "CATS, half of the gates": {
        "gate": whole(n),
        "up": neurons(gates),
        "down": neurons(gates),
    },
    "TEAL, half of the inputs": {
        "gate": coordinates(columns, n),
        "up": coordinates(columns, n),
        "down": neurons(rows),
    },
    "Deja Vu, 96 of 512 neurons": {
        "guess": whole(80),  # as many weights as the predictor has, 16 (d + m)
        "up": neurons(guessed),
        "down": neurons(guessed),
    },
}
fig, axes = figure(
    "The sooner it is known, the less is read",
    alt="Weights of one layer that one byte reads, as pixels, for four methods: the ReLU reads the first "
    "matrix whole, CATS the gate, TEAL stripes of all three, Deja Vu a small predictor and the same "
    "few neurons of both matrices",
    size=(8.6, 6.6),
    rows=4,
)
for ax, (name, matrices) in zip(axes, strips.items(), strict=True):
    pixels, start = [], 0
    for label, matrix in matrices.items():
        pixels += [np.where(matrix, 2, 1), np.zeros((d, 24), int)]
        middle = start + matrix.shape[1] / 2
        note(ax, label, middle, d, dx=0, dy=-9, ha="center", color=GREY)
        start += matrix.shape[1] + 24
    ax.imshow(np.concatenate(pixels[:-1], axis=1), cmap=colours, vmin=0, vmax=2)
    read = sum(matrix.sum() for matrix in matrices.values())
    share = read / sum(a.size for label, a in matrices.items() if label != "guess")
    ax.set_title(f"{name}: {share:.0%} of the layer is read", fontsize=12, pad=6)
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
show(fig)

# %% [markdown]
# One byte, one layer, blue is read. The block called guess is Deja Vu's predictor, drawn as large as it is.
# CATS and Deja Vu leave out whole neurons, TEAL coordinates of the input (and then neurons, before down).
#
# ## After the gate: CATS
#
# $$a = \mathrm{gelu}(W_g x), \qquad y = W_d\,(\tilde a \odot W_u x), \qquad
# \tilde a_i = a_i \text{ where } |a_i| > t, \text{ else } 0$$
#
# The gate is read whole. Of up and down, a token reads the rows of the neurons that survive. By hand: 3
# neurons of width 2, one kept, 2 bytes a weight. Gate 3 rows, up 1, down 1: five rows of 2 weights of 2 bytes,
# 20 bytes of 36.


# %% exercise="cats.bytes_read" difficulty=1 importance=5 minutes=6
def bytes_read(
    kept: Bool[np.ndarray, "t m"], *, width: int, each: int = 2
) -> Int[np.ndarray, " t"]:
    """Bytes of weights that each of t tokens reads of the layer's three matrices.

    kept[t, i] is True where neuron i survives for token t; `each` bytes a weight.
    ((True, False, False),) and width 2: (20,). ValueError unless width and each are
    positive.
    """
    if min(width, each) < 1:
        raise ValueError(f"width={width} and each={each} must be at least 1")
    raise NotImplementedError


# %%
grade("cats.bytes_read", bytes_read)

# %% [markdown]
# `hint("cats.bytes_read")` gives a hint, and a further one each time. Hold your formula against the meter:
# the model with CATS in all layers, read byte by byte.

# %%
cats_functions = [partial(cats.hidden, cut=cut) for cut in cats_cuts]
masked = load("lm_gated", ffn=cats_functions)
decoder = Decoder(gated_lm, ffn=[partial(cats.decode_ffn, cut=c) for c in cats_cuts])
hidden = activations(masked, [list(passage)], "blocks.*.ffn.hidden").values()
predicted = sum(bytes_read((h[0] != 0).numpy(), width=d, each=4).mean() for h in hidden)
rest = 4 * d * (layers * 4 * d + gated_lm.config["vocab"])  # attention and output
print(f"your formula: {(predicted + rest) / 1e6:.3f} MB for one byte of text")
print(f"the meter:    {megabytes(decoder):.3f} MB")

# %% [markdown]
# **Predict:** nine gates in ten are dropped. How many times faster can the layer be at most, and how many if
# all are?

# %%
for dropped in (0.5, 0.9, 1.0):
    share = 1 / 3 + 2 / 3 * (1 - dropped)
    print(
        f"{dropped:.0%} dropped: {share:.0%} of the bytes, at most {1 / share:.1f} times"
    )

# %% [markdown]
# Three is a wall: the price of knowing is a third of the layer.
#
# ## Before any matrix: TEAL
#
# $W x$ is a sum of columns of $W$, each times its entry of $x$. Where an entry is small, leave its column out:
#
# $$W x = \sum_i x_i\, W_{:,i}\ \approx \sum_{i:\ |x_i| > t} x_i\, W_{:,i}$$
#
# The input is there before the matrix is read, so nothing is read in vain. And it works for every matrix,
# those of attention too.


# %% exercise="teal.gemv" difficulty=2 importance=5 minutes=8
def gemv(
    w: Float[np.ndarray, "o i"],
    x: Float[np.ndarray, " i"],
    cut: Float[np.ndarray, ""],
) -> Float[np.ndarray, " o"]:
    """W x from the columns whose input exceeds the cut in magnitude; no other is read.

    ((1, 2), (3, 4)) times (0.1, -2) with cut 0.5: the second column survives, and the
    answer is -2 (2, 4) = (-4, -8). ValueError where the columns of w and the entries of
    x differ in number.
    """
    if w.shape[1] != len(x):
        raise ValueError(f"w has {w.shape[1]} inputs, x has {len(x)}")
    raise NotImplementedError


# %%
grade("teal.gemv", gemv)

# %% [markdown]
# The judge puts NaN into every column that should not be read; `w @ np.where(np.abs(x) > cut, x, 0)` has the
# right value and reads everything. The package's definition, to compare with yours:

# %%
print(inspect.getsource(inspect.unwrap(teal_reference.gemv)))

# %% [markdown]
# ### Where the column lies
#
# Memory does not come by the number. It comes by the **cache line**, 64 bytes, 16 floats. If $W$ is stored
# row by row, a column is one float in every row. **Predict:** keep one column in ten, at random. How many
# percent of the lines of $W$ must be fetched?

# %%
kept_at = {p: rng.random((200, 4096)) < p for p in (0.5, 0.1, 0.02)}
for p, kept in kept_at.items():
    lines = kept.reshape(200, -1, 16).any(axis=2).mean()
    print(
        f"{p:.0%} of the columns: {lines:.0%} of the lines, by rows; {p:.0%} by columns"
    )

# %% [markdown]
# $1 - (1 - p)^{16}$: each line is fetched for any one of its 16. So $W$ is stored by columns (its transpose, row
# by row) and a column is one run of memory. All functions of the decoder here lay their weights out first.
#
# ### Where the cut lies
#
# **Predict:** sort the numbers that enter a layer by magnitude and drop the smaller half. A vector's length
# is the root of the sum of its squares. How long is what was dropped, in percent of the whole?

# %%
points = {"into gate and up": "ffn.x", "into down": "ffn.hidden"}
sample = activations(
    gated_lm, calibration, list(map("blocks.2.{}".format, points.values()))
)
fallen = {}
for name, v in zip(points, sample.values(), strict=True):
    small = v - teal_fast.sparsify(v, v.abs().median())
    fallen[name] = 100 * float(small.norm() / v.norm())
    print(f"{name}: {fallen[name]:.0f} % of the length")
print("a Gaussian would lose 27 %, a Laplace law 18 %")

# %% tags=["hide-input"]
fig, axes = figure(
    "Half of the numbers lie between the lines, and little of the length",
    alt="Histograms of what enters gate and up, close to a Gaussian, and of what enters down, a spike at "
    "zero with long tails; two lines at plus and minus the cut enclose half of each",
    size=(8.6, 3.3),
    cols=2,
)
for ax, (name, v) in zip(axes, zip(points, sample.values(), strict=True), strict=True):
    values, cut = v.flatten().numpy(), float(v.abs().median())
    edge = np.quantile(np.abs(values), 0.99)
    step = cut / round(cut / edge * 40)  # so that the cut is an edge
    bins = np.arange(-round(edge / step), round(edge / step) + 1) * step
    small = np.abs(values) <= cut
    ax.hist([values[small], values[~small]], bins, color=[FAINT, BLUE], stacked=True)
    for side in (-cut, cut):
        ax.axvline(side, color=INK, linewidth=1)
    ax.set(yticks=[], xlabel=name, xlim=(-edge, edge))
    ax.spines.left.set_visible(False)
    note(ax, f"{fallen[name]:.0f} % of\nthe length", 0.97 * edge, 0.85, dx=-4, high=True,
         color=GREY)  # fmt: skip
show(fig)

# %% [markdown]
# TEAL reads the cut off a sample, once and for all. It takes the law of $x$ to be symmetric about 0. Let
# $F$ be its distribution function, $F(t)$ the share below $t$. To drop the share $s$, half of it on either
# side of 0,
#
# $$t = F^{-1}(1/2 + s/2)$$
#
# $F$ comes from a histogram: the count of all bins up to and with bin $i$ belongs to the **centre** of bin $i$;
# between two centres it is a straight line.


# %% exercise="teal.calibrate" difficulty=3 importance=4 minutes=14
def calibrate(
    x: Float[np.ndarray, "*b"], *, sparsity: float, bins: int = 10_000
) -> Float[np.ndarray, ""]:
    """The cut F^-1(0.5 + sparsity/2) of a sample; a sparsity of 0 has the cut 0.

    By hand: 8 numbers, counts (2, 2, 3, 1) in four bins with centres (-2, -1, 1, 2) and
    sparsity 1/2. Wanted below the cut: 0.75 * 8 = 6. Up to the second bin there are 4,
    up to the third 7, so it lies 2/3 of the way from -1 to 1: 1/3. Where empty bins
    repeat a count, the first centre that reaches it is meant.
    """
    if not x.size or not 0 <= sparsity <= 1 or bins < 3:
        raise ValueError(f"{x.size} activations, sparsity={sparsity}, bins={bins}")
    tails = np.quantile(x, [0.01, 0.99])
    edges = np.concatenate([[x.min()], np.linspace(*tails, bins - 1), [x.max()]])
    centre = (edges[:-1] + edges[1:]) / 2
    below = ...  # how many of the sample lie in bins 0 to i, for each i
    raise NotImplementedError


# %%
grade("teal.calibrate", calibrate)

# %% [markdown]
# Now all linear maps of `lm_gated`, attention included, at three sparsities. **Predict** which of them still
# writes English.


# %%
def loss(model):
    """Nats per byte on 2048 bytes of held-out text."""
    logits = model(held_out[:, :-1])
    return float(F.cross_entropy(logits.flatten(0, 1), held_out[:, 1:].flatten()))


def by_teal(sparsity):
    """(MB for one byte, nats above dense)"""
    cuts = teal.calibrate(gated_lm, calibration, sparsity=sparsity)
    with reaching(gated_lm, teal.masks(cuts)):
        cost = loss(gated_lm) - gated_loss
    return megabytes(teal.decoder(gated_lm, cuts)), cost


exact = load("lm_gated").double()  # so that rounding chooses no byte of the text


def written(sparsity):
    decoder = teal.decoder(exact, teal.calibrate(exact, calibration, sparsity=sparsity))
    return generate(decoder, prompt, n=60, temperature=0)


gated_loss, gated_read = loss(gated_lm), megabytes(Decoder(gated_lm))
found = {s: by_teal(s) for s in (0.3, 0.5, 0.6, 0.7, 0.9)}
for s in (0.5, 0.7, 0.9):
    mb, cost = found[s]
    print(f"{s:.0%}: {mb:.2f} of {gated_read:.2f} MB, {cost:+.2f} nats per byte")
    print(f"     {' '.join(written(s).split())}")

# %% [markdown]
# Half of everything costs little, at 70 % the text falls apart, at 90 % the model writes blanks. Errors add up
# over layers: what one layer gets wrong, the next takes for its input.
#
# The cuts meet their target on the calibration text, in the dense model. In the sparse one, on other text:

# %%
with reaching(gated_lm, teal.masks(teal_cuts)):
    seen_points = activations(
        gated_lm, held_out[:, :-1], [f"blocks.*.{p}" for p in teal.POINTS]
    )
dropped = [float((v == 0).double().mean()) for v in seen_points.values()]
print(f"asked for 50 %, dropped {min(dropped):.1%} to {max(dropped):.1%} by tensor")

# %% [markdown]
# ## Before any matrix, by a guess: Deja Vu
#
# A ReLU's zeros are exact, but known too late. So learn to foresee them. A **predictor** of rank $r$, two
# thin matrices with nothing between them:
#
# $$z = x A B, \qquad A \in \mathbb{R}^{d \times r},\ B \in \mathbb{R}^{r \times m}$$
#
# trained to tell which neurons will be active, and then the `keep` neurons of largest $z$ are computed, no
# others: a fixed number, so that time and memory are known beforehand. What the predictor misses is lost.
# And the predictor is read, too, for every byte.


# %% exercise="deja_vu.weights_read" difficulty=2 importance=4 minutes=8
def weights_read(params: Params, *, keep: int) -> Float[np.ndarray, ""]:
    """Share of the dense layer's weights (K and V, d x m each) that one token reads.

    params.down is A, (d, r), params.up is B, (r, m). d 4, m 6, r 1, keep 2: predictor
    10 weights, the two neurons 16, so 26 of 48. ValueError for a keep outside 0..m.
    """
    raise NotImplementedError


# %%
grade("deja_vu.weights_read", weights_read)

# %% [markdown]
# **Predict** before you run: how many of the truly active neurons do 96 guesses out of 512 find? And is a
# missed neuron rather a loud one or a quiet one?

# %%
at_test = training.inputs_and_activations(relu_lm, held_out[:, :-1])


def by_predictor(keep):
    """(MB for one byte, nats above dense, agreement of each layer)"""
    settings = [dict(params=params, keep=keep) for params in predictors]
    masked = load("lm_relu", ffn=[partial(deja_vu.hidden, **s) for s in settings])
    decoder = Decoder(relu_lm, ffn=[partial(deja_vu.decode_ffn, **s) for s in settings])
    met = [
        predictor.agreement(predictor.select(params, x, keep=keep), a)
        for params, (x, a) in zip(predictors, at_test, strict=True)
    ]
    return megabytes(decoder), loss(masked) - relu_loss, met


relu_loss = loss(relu_lm)
guesses = {keep: by_predictor(keep) for keep in (64, 96, 192)}
_, _, met = guesses[96]
print("layer: active neurons found, and their share of all activation")
for i, agreement in enumerate(met, 1):
    print(f"{i}:     {agreement.recall:.0%}, {agreement.weighted_recall:.0%}")
share = float(weights_read(Params(*map(np.asarray, predictors[0])), keep=96))
print(f"of the layer's weights {share:.0%} are read, the predictor included")

# %% [markdown]
# The misses are quiet ones: they carry less than their share. The last layer is the busiest (12 % active) and
# the hardest to foresee; one `keep` for all layers is not the best use of bytes.
#
# ## Quality against bytes
#
# Now all of them on one page. Both models have 1.2 million weights. The x axis counts the whole model,
# predictors included; every byte of text is skipped alike, the first ones too.

# %%
by_cats = {}
for s in (0.5, 0.7, 0.9):
    cut = cats.calibrate(gated_lm, calibration, sparsity=s)
    masked = load("lm_gated", ffn=[partial(cats.hidden, cut=c) for c in cut])
    decoder = Decoder(gated_lm, ffn=[partial(cats.decode_ffn, cut=c) for c in cut])
    by_cats[s] = megabytes(decoder), loss(masked) - gated_loss
quality = {
    "TEAL": [(gated_read, 0.0)] + [found[s] for s in (0.3, 0.5, 0.6, 0.7)],
    "CATS": [(gated_read, 0.0)] + list(by_cats.values()),
    "Deja Vu": [guesses[keep][:2] for keep in (192, 96, 64)],
    "zeros of the ReLU": [(read_idle, 0.0)],
}
for name, ends in quality.items():
    good = [mb for mb, cost in ends if cost < 0.05]
    print(
        f"{name:17}: {min(good):.2f} MB at less than 0.05 nats, least of these points"
    )

# %% tags=["hide-input"]
fig, ax = figure(
    "Half of the bytes cost some hundredths of a nat",
    alt="Loss above dense against MB of weights read for one byte: TEAL rises slowly to half of the bytes and "
    "steeply beyond, CATS stays flat and ends near 3 MB, Deja Vu ends near 2.3 MB",
    size=(8, 4.4),
)
ax.set(xlim=(1.2, 5.2), ylim=(-0.06, 0.5))
ax.set(xlabel="MB of weights for one byte of text", ylabel="nats per byte above dense")
ax.axhline(0, color=FAINT, linewidth=1)
labelled = {"TEAL": -2, "CATS": -1, "Deja Vu": 1, "zeros of the ReLU": 0}
for (name, ends), color, (dx, dy) in zip(
    quality.items(),
    (BLUE, ORANGE, PURPLE, GREEN),
    ((8, 6), (6, 12), (-8, -8), (8, -12)),
    strict=True,
):
    ax.plot(*zip(*ends, strict=True), "o-", color=color)
    note(ax, name, *ends[labelled[name]], dx=dx, dy=dy, color=color)
ax.plot(gated_read, 0, "o", color=INK, markersize=9)
note(ax, "dense", gated_read, 0, dx=0, dy=14, ha="center")
show(fig)

# %% [markdown]
# Read it from the right. CATS stays flat and stops early: it has its wall, and attention is not its business.
# TEAL reaches everything, so it goes furthest, and pays steeply beyond one half. The predictor reaches the
# feed-forward layers only, yet at half of the bytes it costs least: it has zeros to work with.
#
# ## A batch wants a union
#
# All of this was one text at a time. A server writes for many readers at once, and a weight that any of them
# needs is read. If 7 % are active for one text, how many neurons does a batch of 16 read? If texts chose
# their neurons independently,
#
# $$\text{union} = 1 - (1 - p)^B$$
#
# **Predict** before you move the slider: are real texts above this law or below it?

# %%
batch = torch.from_numpy(
    text.windows(text.pydocs("held_out"), length=64, n=64, rng=rng)
)
active = [
    a[:, -1] > 0 for a in activations(relu_lm, batch, "blocks.*.ffn.hidden").values()
]
sizes = [1, 2, 4, 8, 16, 32, 64]
measured = [
    float(torch.stack([union.union(a.float(), window=B).mean() for a in active]).mean())
    for B in sizes
]
rates = torch.stack([a.double().mean() for a in active])
law = [float(union.union_density(rates, tokens=B).mean()) for B in sizes]
for B, share, independent in zip(sizes, measured, law, strict=True):
    print(f"{B:2} texts: {share:.0%} of the neurons, law {independent:.0%}")


# %% tags=["hide-input"]
def draw(batch=1):
    fig, (left, right) = figure(size=(8.6, 3.4), cols=2)
    used = active[2][:batch].any(dim=0).numpy().reshape(16, 32)
    left.imshow(used, cmap=ListedColormap(["#e6e9ee", BLUE]), vmin=0, vmax=1)
    left.set(xticks=[], yticks=[])
    left.spines[:].set_visible(False)
    left.set_title("Neurons of layer 3 that are read", fontsize=12)
    right.set_title(f"Texts in the batch: {batch}", fontsize=12)
    right.plot(sizes, [100 * share for share in law], color=GREY)
    right.plot(sizes, [100 * share for share in measured], color=BLUE)
    right.plot(
        batch, 100 * measured[sizes.index(batch)], "o", color=BLUE, markersize=11
    )
    note(right, "law", 8, 100 * law[3], dx=-8, dy=8, color=GREY)
    note(right, "real texts", 16, 100 * measured[4], dx=8, dy=-10, color=BLUE)
    right.set(xscale="log", ylim=(0, 100), xlabel="texts in the batch")
    right.set_xticks(sizes, map(str, sizes))
    right.minorticks_off()
    right.set_ylabel("percent of neurons read")
    return fig


explore(
    draw,
    alt="Neurons of one layer that a batch reads, as pixels, and the share against the size of the batch, "
    "below the law of independent texts: nearly all for 64 texts",
    batch=sizes,
)

# %% [markdown]
# Below the law, since texts share favourites, but the sparsity is eaten up all the same. That is why every
# headline of this field is about one text at a time, and why such methods are for your laptop first.
#
# ## The stopwatch
#
# Bytes are a bound. Does the machine keep to it? These times are stored: `sparselab bench lazy` measures them,
# in turns with the dense product, on eight matrices of 4096 x 4096 in rotation, so that none waits in the
# cache. **Predict:** half of the columns are dropped, so at best 2 times faster. Gather the other half into a
# new matrix and multiply: how much faster is that?

# %%
stored = bench.stored("lazy")
timed = {
    name: {row["name"]: row for row in entry["laws"]["gaussian"]}
    for name, entry in stored.items()
    if name.startswith("D2")
}
words = {
    "index_select": "copied first",
    "embedding_bag": "one after the other",
    "sparselab": "eight at once",
}
for name, ways in timed.items():
    promise = ways["sparselab"]["by_bytes"]
    print(f"{name} dropped: the bytes promise {promise:.1f} times", end="")
    for way, word in words.items():
        print(f"; {word} {ways[way]['speedup']:.1f}", end="")
    print()
rates = [
    timed["D2 50 %"][way]["gb_per_s"] for way in ("embedding_bag", "sparselab", "floor")
]
print("GB/s: {:.0f} and {:.0f}; the machine reads in order {:.0f}".format(*rates))

# %% tags=["hide-input"]
if timed:
    fig, ax = figure(
        "Fewer bytes are less time, but every jump waits",
        alt="Speed-up against the share of columns kept, both on log axes: columns summed eight at once follow "
        "the line of the bytes, one after the other they stay below it, copied first they lie lowest",
        size=(7.6, 4),
    )
    ax.set(xscale="log", yscale="log", xlim=(0.7, 0.042), ylim=(0.15, 13))
    ax.set(
        xlabel="percent of the columns that are kept", ylabel="times faster than dense"
    )
    ax.set_xticks([0.5, 0.3, 0.1], ["50", "30", "10"])
    ax.set_yticks([0.3, 1, 3, 10], ["0.3", "1", "3", "10"])
    ax.minorticks_off()
    ax.axhline(1, color=GREY, linewidth=1, linestyle=":")
    p = np.geomspace(0.08, 0.7, 20)
    ax.plot(p, 1 / p, color=INK, linewidth=1.2)
    note(ax, "what the bytes promise", 0.26, 1 / 0.26, dx=-10, dy=12)
    for (way, word), color in zip(words.items(), (RED, ORANGE, BLUE), strict=True):
        ends = [(1 / w[way]["by_bytes"], w[way]["speedup"]) for w in timed.values()]
        ax.plot(*zip(*ends, strict=True), "o-", color=color)
        note(ax, word, *ends[-1], dx=8, dy=-4, color=color)
    show(fig)
else:
    print("not measured yet: sparselab bench lazy")

# %% [markdown]
# A copy moves the kept columns three times: read, written, read again. So its bound is $1/(3p)$, not $1/p$, and
# keeping half of the columns that way is slower than keeping all. `embedding_bag` sums the rows of a table
# where they lie, one after the other. It too stays well below its bound: memory hands out neighbours in one
# stream, but columns that are kept lie apart, and at each jump the stream starts anew and the sum waits.
#
# So ask for several columns at once: while one request travels, seven others do, too. Torch has no operator
# for that. It is a plain loop, which Numba compiles for the processor:

# %%
print(inspect.getsource(inspect.unwrap(teal_fast.gemv)))
print(inspect.getsource(inspect.unwrap(gather.loops.total)))

# %% [markdown]
# One product is not a model. Here is a whole one, in the shape of a model with two billion weights: as many of its
# layers as the machine holds, the neurons chosen by half of the input (lesson 1.2), attention dense. Its
# weights are random; time does not ask what the numbers mean. **Predict:** from which share of active neurons
# on is skipping slower than dense?

# %%
whole = {
    name: entry["laws"]["random weights"]
    for name, entry in stored.items()
    if "E1" in name
}
for name, (ours, dense_model, *_) in whole.items():
    print(
        f"{name[3:]} of the neurons: {1000 / ours['min']:.1f} bytes a second, {ours['speedup']:.2f} times"
    )
    base = 1000 / dense_model["min"]
print(f"dense: {base:.1f} bytes a second")

# %% tags=["hide-input"]
if any(name.startswith("E1") for name in stored):
    show(
        bench.draw_densities(
            stored,
            title="A whole model: the fewer neurons, the faster",
            alt="Speed-up of a whole model's decode against the percentage of active neurons, below what its "
            "bytes promise and falling as more neurons are active",
        )
    )
else:
    print("not measured yet: sparselab bench lazy")

# %% [markdown]
# The dotted line is what the bytes promise, attention and the choice included. On the left it is nearly flat:
# what cannot be skipped is all that is left. Where the blue line crosses 1, between half and three quarters of
# the neurons, skipping stops to pay, though a good part of $K_2$ and $V$ is still unread there.
#
# And on **your** machine? This is the only cell of the lesson whose result nobody can know beforehand. Eight
# matrices in turns, the choice of the columns inside the watch, the best of nine rounds.


# %% tags=["nbval-ignore-output"]
def seconds(function, tables, x):
    start = time.perf_counter()
    for table_of_columns in tables:
        function(table_of_columns, x)
    return time.perf_counter() - start


def skip(columns, x, cut):
    return teal_fast.gemv(columns.T, x, cut)


width, kept_shares = 2048, (0.5, 0.3, 0.1, 0.05)
tables = [torch.full((width, width), 0.01) for _ in range(8)]  # 128 MB
x = torch.randn(width)
ways = {1.0: torch.mv} | {
    p: partial(skip, cut=x.abs().quantile(1 - p)) for p in kept_shares
}
taken = {p: [] for p in ways}
for _ in range(9):
    for p, way in ways.items():
        taken[p].append(seconds(way, tables, x))
fig, ax = figure(
    "The stopwatch on this machine",
    alt="Speed-up of a skipping product against the share of columns kept, measured on the machine that "
    "runs the cell, beside the line that the bytes promise",
    size=(7.4, 3.6),
)
ax.set(xscale="log", yscale="log", xlabel="percent of the columns that are kept")
ax.set(xlim=(0.6, 0.03), ylim=(0.5, 40))
ax.set_xticks(kept_shares, [f"{100 * p:.0f}" for p in kept_shares])
ax.set_yticks([1, 3, 10, 30], ["1", "3", "10", "30"])
ax.minorticks_off()
ax.set_ylabel("times faster than dense")
ax.plot(kept_shares, [1 / p for p in kept_shares], color=INK, linewidth=1.2)
measured_here = [min(taken[1.0]) / min(taken[p]) for p in kept_shares]
ax.plot(kept_shares, measured_here, "o-", color=BLUE)
note(ax, "what the bytes promise", 0.16, 1 / 0.16, dx=-10, dy=10)
note(ax, "this machine", 0.05, measured_here[3], dx=8, color=BLUE)
show(fig)
del tables

# %% [markdown]
# A dot above the line is not good news: then the matrices fit into your cache, or the dense product was
# disturbed. Four easy ways to fool yourself: one matrix used again and again, so that it stays in the cache; a
# dense baseline that nobody tuned; the choice made before the watch starts; the density that was asked for
# in place of the one achieved.
#
# ## Is the paper right, here?
#
# Each claim over three seeds (`sparselab claim teal` and so on measures them again):

# %%
for method in ("teal", "cats", "deja_vu"):
    print(method)
    print(table(method))
    print()

# %% [markdown]
# What holds: TEAL at 40 and 50 %, CATS at half of the gates, predictors whose misses are quiet, the laws of what
# is dropped. What does not: the greedy allocation of TEAL, which spends bytes where they hurt least, gains
# nothing sure here; inputs of down are far more peaked than a Laplace law, which helps; and the predictors
# find nine in ten, not the 99 % where the paper stops training (it has rank 1000 and 400 000 tokens for each
# layer). Six layers 128 wide are small: in a wide layer the predictor is a smaller part of the bill, and
# more can be dropped before errors meet.
#
# And if a model has no zeros, can one put them in? ReLUfication swaps the activation and trains a little:

# %%
print(table("relufication"))

# %% [markdown]
# The swap itself is cheap here, where the paper expects a wreck; a quarter of the neurons stay active, not the
# tenth of models that grew up with a ReLU.
#
# > **What the released code does.** TEAL's evaluation makes only the last half of each text sparse; a comment
# > beside it says that 99 % would be the better choice. Its kernel adds partial sums with 16-bit atomics, so
# > the last digits change from run to run. Its table of sizes gives keys and values of Llama-2-7B an eighth of
# > the query's weights, where they have as many: the greedy allocation then counts wrong bytes.
# > CATS takes the *left* edge of the bin that passes the target, so it drops at most the share; on a GPU its
# > last bin is filled from the gate before the activation, by mistake. Deja Vu keeps a fixed number of neurons,
# > rounded to a multiple of 128, and its learning rate is 1e-3 in the scripts and 1e-4 in the text.
#
# ## Remember
#
# 1. One byte of text reads every weight once, so time is bytes. Count them first, of the whole model: what
#    cannot be skipped bounds the gain.
# 2. The question is when you know. After the first matrix half is spent, after the gate a third, before any
#    matrix only what the predictor costs.
# 3. A byte saved is time saved only if what is skipped lies together, nothing is copied, and no other text
#    in the batch wants it.
#
# Two questions without answers here. A dense model of half the size reads half of the bytes, too: which of the
# curves above would it beat? And the predictor looks at the layer's input; what if it looked at the input of
# the layer before, so that the weights are on their way when they are needed?
#
# Further reading: Liu et al., *TEAL*, arXiv:2408.14690; Lee et al., *CATS*, arXiv:2404.08763; Liu et al.,
# *Deja Vu*, arXiv:2310.17157; Mirzadeh et al., *ReLU Strikes Back*, arXiv:2310.04564.
