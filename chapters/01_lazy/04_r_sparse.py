# ---
# sparselab:
#   title: R-Sparse
#   minutes: 75
# ---

# %% [markdown]
# The neurons of lesson 1.1 were silent because of the ReLU: an exact zero costs nothing to skip. Most models
# of today have no ReLU, so nothing in them is exactly zero. **Can you still skip most of a weight, in every
# layer, without training anything?**
#
# R-Sparse looks at the *inputs* of each matrix instead. The large ones meet the full matrix. The many small
# ones are not dropped: they take a cheap road, a low-rank copy of the same matrix.
#
# After this lesson you can
# - score the inputs of a matrix, and set one threshold for a whole layer,
# - split a budget of bytes between channels and rank, with the true sizes of a matrix,
# - write the layer, and say from two pictures which matrix wants rank,
# - search the split, read a published recipe as data, and tell which findings hold at this size.
#
# Guess first. Take all inputs of one matrix over some text and drop the smaller half, by magnitude. How many
# percent of the sum of squares do you lose?

# %%
my_guess = 25  # percent

# %% tags=["hide-input"]
import inspect

import numpy as np
import torch
from jaxtyping import Float

from sparselab.claims import table
from sparselab.course import grade, hint
from sparselab.data import text
from sparselab.lazy.r_sparse import claim, fast, reference
from sparselab.lazy.r_sparse.reference import (
    PROJECTIONS,
    Budget,
    Draws,
    Found,
    Layer,
    Share,
    breed,
    initial,
)
from sparselab.models import activations, load
from sparselab.plots import (
    BLUE,
    FAINT,
    GREEN,
    GREY,
    INK,
    ORANGE,
    RED,
    curves,
    explore,
    figure,
    note,
    show,
)

torch.set_num_threads(1)  # for matrices this small, more threads only wait
rng = np.random.default_rng(0)
seen = text.windows(text.pydocs("train"), length=129, n=8, rng=rng)
unseen = text.windows(text.pydocs("held_out"), length=257, n=12, rng=rng)
model = load("lm_gated").double()  # so that rounding decides no step of the search

# %% [markdown]
# # Part one: which inputs matter
#
# ## Look first
#
# `lm_gated` is a small language model whose feed-forward layers are gated, like those of Llama: no ReLU
# anywhere. Its block has seven matrices. `q`, `k`, `v` read the block's normalised input, `o` the mixed
# values of attention; `gate` and `up` read the second normalised input, `down` the hidden layer. Sort all
# inputs by magnitude and drop them from the smallest up: how much of the sum of squares is gone? The
# hidden layer of the ReLU model `lm_relu` is there to compare.

# %%
POINTS = ("attention.x", "attention.mixed", "ffn.x", "ffn.hidden")


@torch.no_grad()
def inputs_of(network, block):
    names = [f"blocks.{block}.{point}" for point in POINTS]
    found = activations(network, seen[:, :-1], names)
    return {p: found[n].double().numpy() for p, n in zip(POINTS, names, strict=True)}


def lost(x, share):
    """Percent of the sum of squares that this share of the entries holds, the smallest."""
    squares = np.concatenate([[0], np.sort(np.square(x), axis=None)])
    total = np.cumsum(squares)
    return 100 * total[(np.asarray(share) * x.size).astype(int)] / total[-1]


gated, relu = inputs_of(model, 2), inputs_of(load("lm_relu"), 2)
print(f"your guess: {my_guess} %")
for point, x in gated.items():
    print(f"{point:16} the smaller half holds {lost(x, 0.5):.1f} %")

# %% tags=["hide-input"]
shares = np.linspace(0, 0.9, 46)
lines = {
    "input of q, k, v": (gated["attention.x"], RED),
    "input of o": (gated["attention.mixed"], ORANGE),
    "input of down": (gated["ffn.hidden"], BLUE),
    "the same, ReLU": (relu["ffn.hidden"], GREY),
}
fig, ax = figure(
    "The smaller half weighs next to nothing, without any zero",
    alt="Share of the sum of squares lost against the share of entries dropped: all curves are nearly flat "
    "up to one half; the hidden layer stays flat the longest",
    size=(7.6, 3.8),
)
ax.set(xlim=(0, 90), ylim=(-1, 60))
ax.set(
    xlabel="entries dropped, smallest first, percent", ylabel="squares lost, percent"
)
curves(
    ax,
    100 * shares,
    {name: lost(x, shares) for name, (x, _) in lines.items()},
    colors={name: color for name, (_, color) in lines.items()},
)
ax.plot(50, my_guess, "o", color=INK)
note(ax, "your guess", 50, my_guess, dx=0, dy=12, ha="center", weight="normal")
show(fig)

# %% [markdown]
# What a practised eye sees: nothing here is exactly zero, yet half of the entries carry a few percent of the
# squares, and of the hidden layer's much less. So magnitude decides, not zero. That is **input sparsity**:
# where $x_i$ is small, skip column $i$ of the weight.
#
# ## Say it exactly
#
# A matrix $W \in \mathbb{R}^{o \times i}$ maps inputs $x \in \mathbb{R}^i$ to outputs. Input $i$ is also
# called **channel** $i$; it brings column $W_{:,i}$. Its **score** is
#
# $$\mathrm{score}_i = |x_i|\, c_i, \qquad c_i = \lVert W_{:,i} \rVert_2 \quad\text{or}\quad c_i = 1,$$
#
# since dropping it changes the output by exactly $x_i W_{:,i}$, a vector of that length. The paper takes
# $c_i = 1$, its code the norm. An entry is **large** if its score lies strictly above the **cut** $t$, one
# number for the layer, found once on calibration text: with all $N$ scores of that text in one sorted list,
#
# $$t = \text{the } k\text{-th smallest score}, \qquad k = \lfloor N\,(1 - \mathrm{keep}) \rfloor .$$


# %% exercise="r_sparse.calibrate" difficulty=2 importance=5 minutes=8
def calibrate(
    x: Float[np.ndarray, "t i"], scale: Float[np.ndarray, " i"], *, keep: float
) -> Float[np.ndarray, ""]:
    """The cut: the k-th smallest of all t i scores |x| scale, k = int(t i (1 - keep)).

    Two tokens (1, -4) and (2, 1), scale (1, 1/2), keep 1/2: the scores are 1, 2, 2, 1/2,
    sorted 1/2, 1, 2, 2, and k = 2, so the cut is 1: the two 2s lie above it.
    Where k = 0 nothing is dropped: the cut is 0.
    """
    if x.shape[1] != len(scale) or not x.size or not 0 <= keep <= 1:
        raise ValueError(f"x {x.shape}, scale {scale.shape} and keep={keep} do not fit")
    raise NotImplementedError


# %%
grade("r_sparse.calibrate", calibrate)

# %% [markdown]
# `hint("r_sparse.calibrate")` gives you a hint, and a further one each time you ask.
#
# One cut for a layer means: on average half is kept, on one token it may be more or less. **Predict:** over
# single tokens of held-out text, how far does the kept share stray from 50 %? By a few points, by ten, or by
# a factor of two?

# %%
# q, k, v, o, gate, up, down of each layer with their inputs, on both texts
projections = claim.calibrated(model, seen[:, :-1])
elsewhere = claim.calibrated(model, unseen[:, :-1])


def numpy(tensor):
    return tensor.detach().double().numpy()


shares = {}
for place, (here, there) in enumerate(zip(projections, elsewhere, strict=True)):
    scale = numpy(here.whole.scale)
    cut = calibrate(numpy(here.inputs), scale, keep=0.5)
    kept = np.abs(numpy(there.inputs)) * scale > cut
    shares.setdefault(PROJECTIONS[place % 7], []).append(100 * kept.mean(axis=1))
for name, layers in shares.items():
    means = [share.mean() for share in layers]
    low, high = np.percentile(np.concatenate(layers), [5, 95])
    print(
        f"{name:4}  layer means {min(means):.0f} to {max(means):.0f} %,"
        f"  nine tokens in ten {low:.0f} to {high:.0f} %"
    )

# %% [markdown]
# The layers hold their target within a few points on text they were not calibrated on. Single tokens do not:
# at the input of `o` some tokens keep twice as much as others. A token's bytes depend on the token; whoever
# promises "50 %" promises an average. From here on **every token is sparse**, in every one of the 42
# matrices; the embedding stays dense.
#
# ## A budget of bytes
#
# When a model writes one token at a time, each weight is read once per token, and reading is what takes the
# time. So count the numbers that are read. Of the $o\,i$ numbers of $W$, sparsity $s$ allows $C\,o\,i$ with
# $C = 1 - s$. Two things can be bought with them:
#
# - one **channel** is a column of $W$: $o$ numbers,
# - one **rank** is a column $u$ and a row $v$ of the cheap road $u v^\top$: $o + i$ numbers.
#
# The **split** $\rho$ says how: the share $\rho C$ goes to channels. Channels come first, rounded down, and
# what is left buys rank:
#
# $$\mathrm{channels} = \lfloor i\, C \rho \rfloor, \qquad
#   \mathrm{rank} = \left\lfloor \frac{C\,o\,i - \mathrm{channels}\cdot o}{o + i} \right\rfloor .$$
#
# $\rho = 1$ is input sparsity alone, $\rho = 0$ is low rank alone.


# %% exercise="r_sparse.budget" difficulty=2 importance=4 minutes=8
def budget(*, outputs: int, inputs: int, sparsity: float, rho: float) -> Budget:
    """Budget(keep, channels, rank, traffic); keep = rho (1 - sparsity), not rounded.

    traffic is what is read, over the numbers of the weight. Six outputs, ten inputs,
    sparsity 1/2, rho 1/2: 30 numbers may be read. channels = int(2.5) = 2 take 12, one
    rank takes 16, so rank = 1: keep 1/4, traffic 28/60.
    """
    if min(outputs, inputs) < 1 or not (0 <= sparsity <= 1 and 0 <= rho <= 1):
        raise ValueError(f"{outputs} x {inputs}, sparsity={sparsity}, rho={rho}")
    raise NotImplementedError


# %%
grade("r_sparse.budget", budget)

# %% [markdown]
# Llama-3-8B has 32 query heads and 8 key heads (**grouped queries**), so `q` is 4096 x 4096 and `k` is
# 1024 x 4096. The released code takes the rank of both from the square. **Predict:** with $\rho = 0.95$, what
# happens to the bytes of `k`: too few, too many, or does it come out even?

# %%
square = budget(outputs=4096, inputs=4096, sparsity=0.5, rho=0.95)
true = budget(outputs=1024, inputs=4096, sparsity=0.5, rho=0.95)
for name, rank in (("true sizes", true.rank), ("as if square", square.rank)):
    factors = rank * (1024 + 4096) / (1024 * 4096)
    whole = true.channels / 4096 + factors
    print(
        f"k, {name:12}: rank {rank}, factors {100 * factors:.1f} %, all {100 * whole:.1f} %"
    )

# %% [markdown]
# Too many: a rank of a flat matrix costs a larger share of it. The budget says 50 %.
#
# ## How far does input sparsity go alone?
#
# Now every matrix of the model at once, $\rho = 1$, with both scores. **Predict:** up to which sparsity is
# the loss nearly free? And where does the weight's norm in the score begin to help: at 30 %, at 50 %, at
# 70 %, or always?


# %%
def maps(rho, sparsity, weighted=True):
    """All 42 matrices in their sparse form; `rho` is one number, or one for each."""
    splits = np.broadcast_to(rho, len(projections))
    return [
        claim.sparse(p, float(r), sparsity=sparsity, weighted=weighted)
        for p, r in zip(projections, splits, strict=True)
    ]


def bits(rho, sparsity, *, on=unseen, weighted=True):
    """Bits per byte with every matrix and every token sparse."""
    claim.insert(sparse, maps(rho, sparsity, weighted))
    return claim.bits(sparse, on)


sparse = load("lm_gated").double()
dense_bits = claim.bits(model, unseen)
levels = (0.3, 0.4, 0.5, 0.6, 0.7)
magnitude = [bits(1.0, s, weighted=False) for s in levels]
scaled = [bits(1.0, s) for s in levels]
print(f"dense: {dense_bits:.2f} bits per byte")
for s, one, two in zip(levels, magnitude, scaled, strict=True):
    print(
        f"{100 * s:.0f} % sparse: {one - dense_bits:.2f} more by |x|, {two - dense_bits:.2f} by |x| c"
    )

# %% tags=["hide-input"]
fig, ax = figure(
    "Half is nearly free; at 70 % the score matters",
    alt="Bits per byte against sparsity for two scores: nearly flat up to one half, then both climb, and "
    "the score with the column norm climbs less",
    size=(7.2, 3.6),
)
ax.set(xlabel="sparsity of all matrices, percent", ylabel="bits per held-out byte")
ax.set(xlim=(28, 70), ylim=(1.9, 3.15))
ax.axhline(dense_bits, color=INK, linestyle=":", linewidth=1.5)
note(ax, "dense", 64, dense_bits, dx=0, dy=-11, weight="normal")
percent = [100 * s for s in levels]
curves(
    ax,
    percent,
    {"|x|": np.array(magnitude), "|x| c": np.array(scaled)},
    colors={"|x|": GREY, "|x| c": BLUE},
)
show(fig)

# %% [markdown]
# The norm in the score is free: it is computed once. Up to 60 % it makes no difference here; where much is
# cut, it helps. Keep that apart from what comes now: the released code changes the score *and* adds rank in
# the same step, so its gain over plain input sparsity could come from either.
#
# # Part two: the cheap road
#
# ## Say it exactly
#
# Let $\sigma_t(x)$ keep the large entries and zero the rest. R-Sparse computes
#
# $$y = W\,\sigma_t(x) + L R\,\big(x - \sigma_t(x)\big), \qquad
#   L R = U_r S_r V_r^\top \text{, the truncated SVD of } W .$$
#
# Every entry takes exactly one of two roads. Subtract from $Wx$ and the error stands there:
#
# $$W x - y = (W - L R)\,\big(x - \sigma_t(x)\big), \qquad
#   \lVert W x - y \rVert \le \lVert x - \sigma_t(x) \rVert \; s_{r+1} :$$
#
# small inputs times small singular values. Both factors must be small *together*, which is why neither alone
# has to be. $s_{r+1}$ is the first singular value left out.

# %%
print(inspect.getsource(inspect.unwrap(reference.prepare)))


# %% [markdown]
# The SVD is of $W$ itself, not of a residue, and knows nothing of the inputs. `right` holds rows of $V^\top$
# and `left` columns of $U$: cutting the wrong side of `u` or `vt` gives arrays that still multiply when $W$
# is square, so try a flat one.


# %% exercise="r_sparse.linear" difficulty=2 importance=5 minutes=10
def linear(
    x: Float[np.ndarray, "t i"], layer: Layer, cut: Float[np.ndarray, ""]
) -> Float[np.ndarray, "t o"]:
    """W on the entries with |x| scale > cut, left right on the others.

    `layer` has w (o, i), left (o, r), right (r, i) and scale (i,). One output: w = (1, 2),
    left right = (1, 1), scale (1, 1), cut 2. The token (3, 1) gives 3 through w and 1
    through the factors: 4.
    """
    (o, i), r = layer.w.shape, len(layer.right)
    if layer.left.shape != (o, r) or not x.shape[1] == len(layer.scale) == i:
        raise ValueError(f"x {x.shape} does not fit w {layer.w.shape} and its factors")
    raise NotImplementedError


# %%
grade("r_sparse.linear", linear)

# %% [markdown]
# ## Which matrix wants rank?
#
# Two planted matrices, 256 x 256, half of the bytes. *Flat*: random numbers, so that all singular values are
# of one order. *Spiked*: the same plus a part of rank 16. Bytes for rank are bytes taken from channels.
# **Predict** a sketch for each, error against $\rho$ from 0 (rank alone) to 1 (channels alone): (A) falling
# all the way to $\rho = 1$; (B) a valley in between; (C) rising.


# %%
def relative_error(whole, x, rho, sparsity):
    """Of a layer's output at this split of its bytes: your three functions together.

    `whole` has full rank; a smaller rank is its beginning.
    """
    outputs, inputs = whole.w.shape
    share = budget(outputs=outputs, inputs=inputs, sparsity=sparsity, rho=rho)
    r = share.rank
    layer = whole._replace(left=whole.left[:, :r], right=whole.right[:r])
    cut = calibrate(x, layer.scale, keep=share.keep)
    dense = x @ layer.w.T
    return np.linalg.norm(linear(x, layer, cut) - dense) / np.linalg.norm(dense)


rng = np.random.default_rng(0)
x = rng.laplace(size=(256, 256))
noise = rng.normal(size=(256, 256))
low_rank = rng.normal(size=(256, 16)) @ rng.normal(size=(16, 256))
spikes, splits = (0.0, 0.1, 0.25, 0.5), np.linspace(0, 1, 11)
layers = {s: reference.prepare(noise + s * low_rank, rank=256) for s in spikes}
planted = {
    spike: np.array([relative_error(layers[spike], x, rho, 0.5) for rho in splits])
    for spike in (0.0, 0.5)
}
for spike, errors in planted.items():
    best = splits[errors.argmin()]
    print(
        f"spike {spike}: error {errors[0]:.2f} by rank alone, {errors[-1]:.2f} by channels alone,"
        f" least at rho = {best:.1f}"
    )

# %% tags=["hide-input"]
fig, ax = figure(
    "Rank pays where the spectrum has a spike",
    alt="Error against the split for two matrices: with a flat spectrum it falls all the way to channels "
    "alone, with a spiked one it has a valley in between",
    size=(7.4, 3.8),
)
ax.set(xlim=(0, 1), ylim=(0, 0.65), ylabel="relative error of the output")
ax.set(xlabel="split rho: rank alone at 0, channels alone at 1")
curves(
    ax,
    splits,
    {"flat spectrum": planted[0.0], "spiked spectrum": planted[0.5]},
    colors={"flat spectrum": GREY, "spiked spectrum": BLUE},
)
low = planted[0.5].argmin()
ax.plot(splits[low], planted[0.5][low], "o", color=BLUE)
note(ax, "the valley", splits[low], planted[0.5][low], dx=0, dy=-14, color=BLUE)
show(fig)

# %% [markdown]
# Flat: (A). Spiked: (B). A few ranks carry the spike for *all* inputs at once, and then each further rank
# buys as little as in the flat case.
#
# Real weights are neither. **Predict:** of `q`, `k`, `v`, `o`, `gate`, `up`, `down`, which have a valley?

# %%
real = [(Layer(*map(numpy, p.whole)), numpy(p.inputs[::4])) for p in projections]
splits_here = (0.0, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 1.0)
valleys = np.array(
    [
        [relative_error(whole, inputs, rho, 0.7) for rho in splits_here]
        for whole, inputs in real
    ]
).reshape(6, 7, -1)  # layer, matrix, split
spectra = [np.square(whole.right).sum(axis=1) for whole, _ in real]
first8 = np.array([s[:8].sum() / s.sum() for s in spectra]).reshape(6, 7)
print("70 % sparse           " + "".join(f"{name:>6}" for name in PROJECTIONS))
print("first 8 ranks hold, % " + "".join(f"{100 * s:6.0f}" for s in first8.mean(0)))
for layer in range(6):
    best = [splits_here[i] for i in valleys[layer].argmin(-1)]
    print(f"best rho, layer {layer + 1}     " + "".join(f"{b:6.2f}" for b in best))

# %% tags=["hide-input"]
fig, ax = figure(
    "Queries and keys want rank",
    alt="Error relative to channels alone against the split, mean of layers 2 to 6: q and k dip well below "
    "1, gate a little, the others do not",
    size=(7.6, 4),
)
ax.set(xlim=(0.4, 1), ylim=(0.7, 1.45), ylabel="error over that at rho = 1")
ax.set(xlabel="split rho; 70 % sparse, mean of layers 2 to 6")
ratio = (valleys / valleys[:, :, -1:])[1:].mean(axis=0)
for name, line in zip(PROJECTIONS, ratio, strict=True):
    color = BLUE if name in "qk" else GREEN if name == "gate" else GREY
    ax.plot(splits_here[2:], line[2:], color=color)
for name, at, dx, dy, color in (
    ("q", 4, -4, 10, BLUE),
    ("k", 4, 0, -12, BLUE),
    ("gate", 3, 4, 12, GREEN),
):
    place = PROJECTIONS.index(name)
    note(ax, name, splits_here[at], ratio[place, at], dx=dx, dy=dy, color=color)
note(ax, "v, o, up, down", 0.62, 1.36, dx=0, color=GREY)
ax.axhline(1, color=INK, linewidth=1, linestyle=":")
show(fig)

# %% [markdown]
# `q` and `k` have the steepest spectra and the deepest valleys, in every layer; `down` and `o` never want
# rank. The first layer is a case of its own: its `q`, `k` and `v` read nothing but the embedding of one byte.
#
# ## Read the published recipe as data
#
# Is that an accident of a tiny model? The authors searched $\rho$ for each matrix of Llama-3-8B at 50 %. The
# search is not released, its result is: `config/llama3_sparsity_50_evolutionary_search.npy`. The name says
# NumPy, the file is text; `np.load` refuses it. It holds 448 numbers, one on a line: $\rho$ and $s$ in turn,
# for `q, k, v, o, gate, up, down` of the first layer, then of the next, to the 32nd.


# %% exercise="r_sparse.recipe" difficulty=1 importance=2 minutes=6
def recipe(text: str) -> tuple[dict[str, Share], ...]:
    """One dict for each layer, from the name of a matrix to its Share(rho, sparsity).

    The names in their order are in PROJECTIONS; 14 numbers make a layer. ValueError where
    a word is no number, a number lies outside 0..1, or the last layer is not whole.
    """
    values = [float(word) for word in text.split()]
    if not values or len(values) % 14 or not all(0 <= v <= 1 for v in values):
        raise ValueError(f"{len(values)} numbers are no layers of 14 within 0..1")
    raise NotImplementedError


# %%
grade("r_sparse.recipe", recipe)

# %% [markdown]
# Here is the first layer of that file, rounded to three digits, and the mean $\rho$ of each kind of matrix
# over its 32 layers. (With the file at hand: `recipe(Path(name).read_text())`.) **Before you run the cell:**
# which matrices do you expect to want rank?

# %%
first_layer = "0.145 0.5 0.202 0.5 0.844 0.5 0.775 0.5 0.983 0.5 0.870 0.5 1 0.5"
means = dict(q=0.905, k=0.929, v=0.954, o=0.970, gate=0.986, up=0.992, down=0.996)
print("matrix  first layer  mean of 32 layers")
for name, share in recipe(first_layer)[0].items():
    print(f"{name:6}  {share.rho:11.3f}  {means[name]:17.3f}")

# %% [markdown]
# Explain it in two sentences of your own, then compare. What we read: $\rho$ is exactly 1 in 193 of the 224
# matrices, so the published recipe is mostly plain input sparsity; rank matters in a handful, most in queries
# and keys, hardly ever in `down`; and the first layer stands apart. Two models that differ in size by a
# factor of thousands agree that queries and keys want rank most. One possible reason: they act only through
# the product $q \cdot k$ of a head, which needs few directions. That is a guess, not a measurement.
#
# ## Search the split
#
# How to find such a recipe? The loss is not differentiable in $\rho$ (the ranks are whole numbers), and
# the matrices depend on each other. So: **evolution**. An *individual* is a list of $\rho$, its *fitness* the
# loss on calibration text, less is better. `initial` makes the first ones: all ones, the uniform 0.95, and
# random ones around it. Then, generation by generation, the best few (the **elite**) live on unchanged and
# have children: each gene from one of two parents, plus a step (`breed`).
#
# Because the elite is kept, the best fitness can never rise: that is **elitism**. And because all ones is in
# the first generation, the result can never be worse than input sparsity alone, *on the text it was measured
# on*. Fitness on test text would be the classic mistake: you would choose the recipe by the exam.


# %% exercise="r_sparse.search" difficulty=3 importance=4 minutes=15
def search(
    fitness, draws: Draws, *, elite: int, centre: float = 0.95, step: float = 0.05
) -> Found:
    """Found(rho, best): the individual of least fitness, and the least fitness so far.

    Generation g draws parents draws.parents[g], draws.cross[g] and draws.noise[g];
    breed(elite, parents, cross, noise, step=step) makes its children. `best` has one
    number for the start and one for each generation. Of equal fitness the earlier
    individual ranks first (a stable argsort), elite before children.
    """
    rho = initial(draws.start, centre=centre, step=step)
    generations, children, _ = draws.parents.shape
    shape = (generations, children, rho.shape[1])
    if draws.cross.shape != shape or draws.noise.shape != shape:
        raise ValueError(
            f"cross {draws.cross.shape}, noise {draws.noise.shape}: {shape}"
        )
    if not 1 <= elite <= len(rho):
        raise ValueError(f"elite={elite} of {len(rho)} individuals")
    cost = np.array([float(fitness(one)) for one in rho])
    ...  # rank them, note the best; then each generation
    raise NotImplementedError


# %%
grade("r_sparse.search", search)

# %% [markdown]
# Now let your search work on `lm_gated` at 70 %, three times with different draws. One gene for each *kind*
# of matrix, shared by the six layers: seven numbers, fitness on 1024 bytes of training text. The step is
# 0.2: the published recipe goes down to 0.02, where steps of 0.05 do not get in a few generations.
# **Predict:** will the three agree? On which genes?


# %%
def some_draws(seed, individuals=8, generations=2, children=5, elite=3):
    rng = np.random.default_rng(seed)
    shape = (generations, children, 7)
    return Draws(
        start=rng.normal(size=(individuals, 7)),
        parents=rng.integers(0, elite, size=(generations, children, 2)),
        cross=rng.random(shape) < 0.5,
        noise=rng.normal(size=shape),
    )


def on_seen(rho):
    return bits(np.tile(rho, 6), 0.7, on=seen)


searches = [search(on_seen, some_draws(seed), elite=3, step=0.2) for seed in range(3)]
print("rho    " + "".join(f"{name:>6}" for name in PROJECTIONS))
for seed, found in enumerate(searches):
    print(f"draw {seed} " + "".join(f"{r:6.2f}" for r in found.rho))
falls = all((np.diff(found.best) <= 0).all() for found in searches)
together = np.mean([found.rho for found in searches], axis=0)
print("mean   " + "".join(f"{r:6.2f}" for r in together))
print(f"the best never rises: {falls}")

# %% tags=["hide-input"]
fig, ax = figure(
    "Searches scatter; on average keys and queries go lowest",
    alt="The split that three searches found for each kind of matrix, scattered, with the lowest means at k "
    "and q; beside it the mean of the published recipe, which rises from q to down",
    size=(7.4, 3.6),
)
for found in searches:
    ax.plot(range(7), found.rho, "o", color=BLUE, markersize=9, alpha=0.7)
ax.plot(range(7), list(means.values()), "_", color=INK, markersize=26)
note(ax, "published, mean of 32 layers", 0.1, 1.06, color=INK, weight="normal")
note(ax, "three searches here", 0.6, 0.36, color=BLUE)
ax.set(ylim=(0, 1.1), xticks=range(7), xticklabels=PROJECTIONS, ylabel="split rho")
show(fig)

# %% [markdown]
# Two cheaper ideas, without any search:
#
# - give each of the 42 matrices the $\rho$ of its own valley, where *its* output error is least,
# - take from the valley figure no more than this: $\rho = 0.8$ for `q` and `k`, 1 for all else.
#
# **Predict** the order on held-out text, all at the same bytes.

# %%
own = np.array(splits_here)[valleys.argmin(-1)]
gate_back = own.copy()
gate_back[0, PROJECTIONS.index("gate")] = 1
by_hand = [0.8 if name in "qk" else 1.0 for name in PROJECTIONS]
recipes = {
    "|x|": [magnitude[-1]],
    "|x| c": [scaled[-1]],
    "uniform 0.95": [bits(0.95, 0.7)],
    "each its own valley": [bits(own.ravel(), 0.7)],
    "three searches": [bits(np.tile(found.rho, 6), 0.7) for found in searches],
    "by hand: q, k 0.8": [bits(np.tile(by_hand, 6), 0.7)],
    "rank alone": [bits(0.0, 0.7)],
}
for name, values in recipes.items():
    print(f"{name:20} " + ", ".join(f"{value:.2f}" for value in values))
print(
    f"own valleys, but gate of layer 1 at rho = 1: {bits(gate_back.ravel(), 0.7):.2f}"
)
at = valleys[0, PROJECTIONS.index("gate")]
print(f"error of that gate, rho = 0 and 1: {at[0]:.2f} and {at[-1]:.2f}")

# %% tags=["hide-input"]
fig, ax = figure(
    "Two numbers by hand come close to the best search",
    alt="Bits per held-out byte at 70 percent for recipes of equal bytes: the one by hand comes close to "
    "the best of three scattered searches, each matrix's own valley is no better than no rank, rank alone far off",
    size=(7.8, 3.7),
)
for place, (name, values) in enumerate(reversed(recipes.items())):
    color = BLUE if "hand" in name else GREY
    ax.hlines(place, dense_bits, min(max(values), 3.6), color=FAINT, linewidth=3)
    if max(values) < 3.6:
        ax.plot(values, [place] * len(values), "o", color=color, markersize=9)
    label = " and ".join(sorted({f"{value:.2f}" for value in values}))
    note(ax, label, min(max(values), 3.6), place, dx=10, color=color)
ax.axvline(dense_bits, color=INK, linestyle=":", linewidth=1.5)
note(ax, "dense", dense_bits, 0.5, weight="normal")
ax.set(yticks=range(len(recipes)), yticklabels=list(reversed(recipes)))
ax.set(xlim=(1.9, 3.9), xlabel="bits per held-out byte, 70 % of all weights not read")
show(fig)

# %% [markdown]
# Rank alone is hopeless, as the paper says. The searches are never worse than plain input sparsity on the
# text they saw; on other text two of the three gain and one does not. (The paper's search is larger: 32
# individuals, 5 generations, 16 sequences.) To know which two kinds of matrix want rank is worth nearly as
# much as the best of them.
#
# The surprise is the fourth line: every matrix has its least error, and the loss is no better than without
# rank. One gate spoils it. Its error falls, and the loss rises. A norm adds up all directions of an output
# over all tokens; the loss cares for some of them. That is why the search looks at the loss, and why it
# costs a forward pass per individual.
#
# ## Make it fast
#
# For many tokens at once a masked product saves nothing: together they soon keep everything. For one
# token, store $W$ by columns and read only those that it keeps:

# %%
read = whole = 0
agree = True
split = by_hand * 6
for p, q, rho in zip(projections, elsewhere, split, strict=True):
    w, (outputs, inputs) = p.whole.w.detach(), p.whole.w.shape
    share = fast.budget(outputs=outputs, inputs=inputs, sparsity=0.7, rho=rho)
    layer = fast.prepare(w, rank=share.rank)
    cut = fast.calibrate(p.inputs.detach(), layer.scale, keep=share.keep)
    token = q.inputs[200:202].detach()
    agree &= torch.allclose(
        fast.linear(token[:1], layer, cut),
        fast.linear(token, layer, cut)[:1],
        atol=1e-4,
    )
    kept = int((token[0].abs() * layer.scale > cut).sum())
    factors = share.rank * (outputs + inputs)
    read += kept * outputs + factors + inputs  # and one c for each input
    whole += outputs * inputs
print(f"one token alone equals the same token in a batch: {agree}")
print(f"read for it: {read * 4 / 2**10:.0f} KiB of {whole * 4 / 2**10:.0f}")
print(f"that is {100 * read / whole:.0f} %, the target was 30 %")

# %% [markdown]
# That is the recipe by hand. The target is an average, and the column norms for the scores come on top. On
# disk nothing got smaller: $W$ is still there whole, and the factors are extra. Whether fewer bytes are less
# time was lesson 1.3.
#
# ## Is the paper right, here?
#
# Each claim, measured over three seeds (`sparselab claim r_sparse` does it again on your machine). Here the
# search has 42 genes, 16 individuals and 4 generations:

# %%
print(table("r_sparse"))

# %% [markdown]
# What holds: the two planted lessons (score and spectrum), rank alone far worse, and at 70 % a searched
# recipe that beats uniform 0.95 and plain input sparsity. What does not: at 50 %, the paper's own setting,
# the search gains on the text it saw and *loses* a little on text it did not. 42 numbers were fitted to a
# thousand bytes, and there is little to win where input sparsity is nearly free. The table also
# separates what the paper does not: at 70 % the score saves about 0.24 bits, the searched rank 0.12 on top
# of it. Two thirds of the gain of both together is the score's.
#
# > **What the released code does.** The paper ranks by $|x_i|$. The code does so only where $\rho = 1$;
# > elsewhere by $|x_i| c_i$. The threshold comes from one sample of 512 tokens. `k` and `v` of grouped
# > queries get their rank as if square, which passes the budget. With a recipe file channels and rank are
# > raised to at least 1, so even $\rho = 1$ asks for a rank; it is not used. `prefill_ratio` says which
# > tokens are sparse: with the default 0.1 only the *last tenth* of a text, the rest is dense; at exactly 1
# > it flips its meaning (all of a prompt dense, single tokens sparse), and the branch for low rank alone uses
# > a name before it is assigned. At any other value a single token trips an assertion. The search itself is
# > not there; crossover and step in this lesson are ours.
#
# Which tokens are sparse matters. **Predict:** at 50 %, how much of the added loss is left when only the last
# tenth of each window is sparse, and the mean is over all of its bytes?


# %%
def late(whole, part):
    """The same matrix with the first nine tenths of a window dense."""

    def f(x):
        start = int(0.9 * x.shape[1])
        return torch.cat([x[:, :start] @ whole.w.T, part(x[:, start:])], dim=1)

    return f


every = bits(1.0, 0.5) - dense_bits
claim.insert(
    sparse, [late(p.whole, f) for p, f in zip(projections, maps(1.0, 0.5), strict=True)]
)
tenth = claim.bits(sparse, unseen) - dense_bits
print(f"every token sparse:     {every:.3f} bits more")
print(f"the last tenth sparse:  {tenth:.3f} bits more")

# %% [markdown]
# Most of the loss is gone, and nothing has become better: nine tenths of the bytes are now measured on the
# dense model. A number for "50 % sparsity" says little until you know which tokens were sparse. All numbers
# of this lesson but this one are with every token sparse.
#
# ## Play
#
# One planted matrix, one budget (half of the bytes). Left: the mean squared share $x_i^2\, v_{ij}^2\, s_j^2$
# of channel $i$ in component $j$, both sorted, the largest at the top left; dark is large. What is shaded is
# paid for, by channels or by ranks; only the dark outside is lost. Move $\rho$: the bytes stay the same. Then
# take the spike away.

# %%
rhos = (0.0, 0.2, 0.4, 0.6, 0.8, 0.9, 1.0)


def importance(layer, x):
    """Mean over tokens of the squared share of each channel, sorted, in each component."""
    channels = np.argsort(-np.abs(x) * layer.scale, axis=1)
    parts = np.square(layer.right.T)  # channel, component
    return np.mean(
        [
            np.square(token)[c, None] * parts[c]
            for token, c in zip(x, channels, strict=True)
        ],
        axis=0,
    )


pictures, errors = {}, {}
for spike, layer in layers.items():
    pictures[spike] = importance(layer, x[:64]).reshape(32, 8, 32, 8).mean(axis=(1, 3))
    errors[spike] = [relative_error(layer, x, rho, 0.5) for rho in rhos]


# %% tags=["hide-input"]
def draw(rho=0.8, spike=0.5):
    share = budget(outputs=256, inputs=256, sparsity=0.5, rho=rho)
    fig, (left, right) = figure(size=(8.6, 3.7), cols=2)
    left.set_title(f"{share.channels} channels, rank {share.rank}")
    left.imshow(
        np.sqrt(pictures[spike] / pictures[spike].max()),
        cmap="Greys",
        extent=(0, 256, 256, 0),
        vmin=0,
        vmax=0.6,
    )
    high = 256 * share.keep
    left.axhspan(0, high, color=BLUE, alpha=0.25, linewidth=0)
    left.fill_between([0, share.rank], high, 256, color=ORANGE, alpha=0.35, linewidth=0)
    if high > 40:
        note(left, "through W", 150, high / 2, dx=0, color=BLUE)
    if share.rank:
        note(left, "through L R", share.rank, 236, color=INK, weight="normal")
    left.set(xlim=(0, 256), ylim=(256, 0), xticks=[], yticks=[])
    left.set(xlabel="component, by singular value", ylabel="channel, by score")
    right.set_title("What is lost")
    right.set(xlim=(-0.05, 1.05), ylim=(0, 0.75))
    right.set(xlabel="split rho", ylabel="relative error")
    right.plot(rhos, errors[spike], color=GREY)
    at = errors[spike][rhos.index(rho)]
    right.plot(rho, at, "o", color=BLUE, markersize=11)
    note(right, f"{at:.2f}", rho, at, dx=0, dy=16, color=BLUE, ha="center")
    return fig


explore(
    draw,
    alt="A map of what matters by channel and component with the part that is paid for, beside the error "
    "against the split: with a spike the error has a valley, without it falls to channels alone",
    rho=rhos,
    spike=spikes,
)

# %% [markdown]
# ## Remember
#
# 1. Without a ReLU nothing is zero, but the smaller half of a matrix's inputs carries a few percent of the
#    squares; skip their columns, by one cut per layer and a score that needs the input alone.
# 2. The small inputs may go through a low-rank copy of the weight. The error is small inputs times small
#    singular values, so rank pays where the spectrum has a spike: here in `q` and `k`.
# 3. At equal bytes, with every token sparse, and on text that chose nothing: only so are recipes compared.
#
# Two questions without answers here. The gate of the first layer has less error and costs more loss: which
# bytes pay for it? And the SVD is the best for inputs without a preferred direction: what would change if it
# knew the small inputs?
#
# Further reading: Zhang et al., *R-Sparse*, arXiv:2504.19449; Liu et al., *TEAL*, arXiv:2408.14690; Lee et
# al., *CATS*, arXiv:2404.08763.
