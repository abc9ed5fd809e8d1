# ---
# sparselab:
#   title: The lazy neuron phenomenon
#   minutes: 55
# ---

# %% [markdown]
# Every token that goes through a transformer visits every neuron. **How many of them have anything to say?**
#
# A neuron of a ReLU network is silent on a token when its activation is exactly zero. Before training that
# is a coin toss: a random number is positive half of the time. What does training make of this half?
#
# After this lesson you can
# - measure how many neurons are active, without the mistakes that most people make,
# - say when in training the silence sets in, and give a reason that you have checked yourself,
# - turn it into a layer (Top-k) and say which half of the arithmetic it saves, and which half it cannot,
# - tell which findings of the paper hold for a model that fits on a laptop, and which do not.
#
# Guess first: of the neurons of a trained language model, how many percent are active on one token?

# %%
my_guess = 30  # percent

# %% tags=["hide-input"]
import inspect

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from sparselab.claims import table
from sparselab.course import grade, hint
from sparselab.data import text
from sparselab.lazy.lazy_neuron import claim, fast, reference
from sparselab.lazy.lazy_neuron.reference import Stats
from sparselab.models import TinyLM, activations, load
from sparselab.plots import (
    BLUE,
    FAINT,
    GREY,
    INK,
    RED,
    curves,
    explore,
    figure,
    note,
    show,
    supports,
)

torch.manual_seed(0)
model = load("lm_relu")

# %% [markdown]
# ## Look first
#
# `lm_relu` is a small language model: it reads the Python documentation byte by byte and predicts the next
# byte. Below are 48 bytes of text that it never saw in training. Each column is one byte; each dot is one of
# 128 neurons of the second layer that is active there. Before you read on, describe the picture in a
# sentence.

# %%
passage = text.pydocs("held_out")[1000:1048]
hidden = activations(model, passage[None], "blocks.1.ffn.hidden")
active = (hidden["blocks.1.ffn.hidden"][0] > 0).numpy()

# %% tags=["hide-input"]
fig, ax = figure(
    "Each byte wakes its own few neurons",
    alt="Dots for the active neurons, of 128, over 48 bytes of text: every column has few dots, and "
    "different columns have different ones",
    size=(8, 4.2),
)
supports(ax, active[:, :128], items="", units="neuron")
ax.set_xticks(range(48), [chr(b) if b > 32 else "·" for b in passage], fontsize=9)
show(fig)

# %% [markdown]
# What a practised eye sees: the picture is nearly empty; no column is quite like its neighbour, so the
# neurons differ from byte to byte; and some rows have many dots while most have few. Nobody asked for this:
# the loss of this model is next-byte prediction and nothing else.
#
# ## Say it exactly
#
# The feed-forward layer of a transformer, for one token $x \in \mathbb{R}^d$, with one column of $K$ and
# one column of $V$ for each of its $m$ neurons:
#
# $$a = \mathrm{relu}(K^\top x), \qquad f(x) = V a = \sum_{i=1}^{m} a_i\, v_i$$
#
# $a$ is the **activation map**. Neuron $i$ is **active** on this token if $a_i > 0$. Over a sample of
# tokens there are four things to report, never only the first:
#
# | quantity | meaning |
# |---|---|
# | density | share of active (token, neuron) pairs |
# | per token | how many neurons each token wakes |
# | firing rate | share of tokens that wake each neuron |
# | dead | neurons that no token of the sample wakes (say how large the sample was) |
#
# By hand, three tokens and four neurons, the last token being padding:
#
# $$a = \begin{pmatrix} 2 & 0 & 0 & 1 \\ 0 & 0 & 0 & 3 \\ 9 & 9 & 9 & 9 \end{pmatrix}$$
#
# Two real tokens, eight pairs, three active: density 3/8. Per token: 2 and 1. Firing rates: 1/2, 0, 0, 1.
# Dead: 2. The padding row counts nowhere.


# %% exercise="lazy_neuron.nonzero_stats" difficulty=1 importance=5 minutes=8
def nonzero_stats(a: Float[np.ndarray, "t m"], real: Bool[np.ndarray, " t"]) -> Stats:
    """Stats(density, per_token, firing_rate, dead) over the tokens that are real.

    `a` holds activations after the ReLU; `real[t]` is False where token t is padding.
    ValueError where `real` has another length than `a`, or no token is real.
    """
    if len(real) != len(a) or not real.any():
        raise ValueError(
            f"{int(real.sum())} real tokens in {len(real)} flags for {len(a)} tokens"
        )
    active = ...  # which (real token, neuron) pairs are active?
    raise NotImplementedError


# %%
grade("lazy_neuron.nonzero_stats", nonzero_stats)

# %% [markdown]
# `hint("lazy_neuron.nonzero_stats")` gives you a hint, and a further one each time you ask.
#
# Now your function on the whole model: each layer, 4096 bytes of held-out text, beside the same
# architecture before training.

# %%
windows = text.windows(
    text.pydocs("held_out"), length=256, n=16, rng=np.random.default_rng(0)
)
untrained = TinyLM(**model.config).eval()


@torch.no_grad()
def layer_stats(network, batch):
    maps = activations(network, batch, "blocks.*.ffn.hidden")
    return [
        nonzero_stats(a.flatten(0, 1).double().numpy(), np.ones(batch.size, bool))
        for a in maps.values()
    ]


trained, before = layer_stats(model, windows), layer_stats(untrained, windows)
layers = np.arange(1, len(trained) + 1)
for layer, stats in zip(layers, trained, strict=True):
    share, dead = 100 * stats.density, int(stats.dead)
    print(f"layer {layer}: {share:.0f} % active, {dead} dead on {windows.size} bytes")

# %% tags=["hide-input"]
fig, ax = figure(
    "Training silences most of the network",
    alt="Active share of each layer: near 50 percent before training, far below it after, "
    "in every layer",
    size=(7, 3.8),
)
ax.set(yscale="log", ylim=(1, 100), xticks=layers, xlabel="layer")
ax.set_ylabel("active neurons, percent")
ax.set_yticks([1, 3, 10, 30, 100], ["1", "3", "10", "30", "100"])
ax.axhline(my_guess, color=INK, linestyle=":", linewidth=1.5)
note(ax, "your guess", layers[-1], my_guess, dx=-8, dy=8, weight="normal")
for stats, color, name in (
    (before, GREY, "before training"),
    (trained, BLUE, "trained"),
):
    shares = [100 * s.density for s in stats]
    ax.plot(layers, shares, "o", color=color, markersize=10)
    note(ax, name, layers[0], shares[0], dx=10, dy=10, color=color)
show(fig)

# %% [markdown]
# Layers differ, so one number for a model hides something. If you must give one, give the right one: a wide
# layer has more neurons than a narrow one.


# %% exercise="lazy_neuron.overall" difficulty=1 importance=3 minutes=4
def overall(
    density: Float[np.ndarray, " l"], width: Int[np.ndarray, " l"]
) -> Float[np.ndarray, ""]:
    """Active share of a whole model from each layer's share and its number of neurons.

    Two layers, 50 % of 100 neurons and 10 % of 300: 50 + 30 of 400 are active, so 0.2.
    ValueError where the lists differ in length or all widths are 0.
    """
    raise NotImplementedError


# %%
grade("lazy_neuron.overall", overall)
densities, widths = (
    np.array([s.density for s in trained]),
    np.array([model.config["neurons"]] * len(trained)),
)
print(
    f"your guess: {my_guess} %, the whole model: {100 * overall(densities, widths):.0f} %"
)

# %% [markdown]
# ## Are the silent ones dead?
#
# If the same few neurons answered every byte, the others could be thrown away and that would be the end of
# the story. **Predict:** sort the neurons of a layer by firing rate. Does the curve end in a flat floor at
# zero (many dead neurons), or does it slope down to the last neuron?

# %%
rates = [np.sort(s.firing_rate)[::-1] for s in trained]
busy = np.concatenate(rates) > 0.1
dead = np.concatenate(rates) == 0
print(f"neurons that fire on more than 10 % of the bytes: {100 * busy.mean():.0f} %")
print(
    f"neurons that never fire on these {windows.size} bytes: {100 * dead.mean():.1f} %"
)

# %% tags=["hide-input"]
order = np.argsort([s.density for s in trained])
fig, ax = figure(
    "Hardly a neuron is dead, and few work often",
    alt="Firing rate of each neuron, sorted, on a log axis: a steep fall at the left, a long "
    "slope over two powers of ten, and hardly any neuron at zero",
    size=(7.4, 3.8),
)
ax.set(yscale="log", ylim=(1e-4, 1), xlim=(0, len(rates[0])))
ax.set(xlabel="neuron, by falling firing rate", ylabel="share of bytes it fires on")
for layer in order:
    color = {order[0]: BLUE, order[-1]: RED}.get(layer, FAINT)
    ax.plot(np.where(rates[layer] > 0, rates[layer], np.nan), color=color)
middle = len(rates[0]) // 2
for layer, color, word, dy in (
    (order[0], BLUE, "laziest", -14),
    (order[-1], RED, "busiest", 12),
):
    note(
        ax,
        f"{word}: layer {layer + 1}",
        middle,
        rates[layer][middle],
        dx=0,
        dy=dy,
        color=color,
    )
show(fig)

# %% [markdown]
# Whom a byte wakes depends on the byte. That is what makes the phenomenon useful, and awkward: the saving
# is large, and nobody knows beforehand where it lies.
#
# ## When does it happen?
#
# Here is a smaller model, trained before your eyes: eight bytes of context, two residual blocks
# $h \leftarrow h + V\,\mathrm{relu}(K\,\mathrm{LN}(h))$, 512 neurons each. **Predict** which sketch the
# active share follows: (A) it falls from the first steps on, fast and then slower; (B) it stays near 50 %
# until the loss has converged, then falls; (C) it falls at first and climbs back as the model learns more.

# %%
steps, shares = [], []
dense = claim.train(
    seed=0,
    steps=600,
    every=50,
    report=lambda step, density: (steps.append(step), shares.append(density)),
)
shares = np.array(shares)
print(f"at step 0: {100 * shares[0, 0]:.0f} % and {100 * shares[0, 1]:.0f} %")
print(f"the deeper block is lazier: {bool(shares[-1, 1] < shares[-1, 0])}")

# %% tags=["hide-input"]
fig, ax = figure(
    f"Half the neurons that were awake are silent by step {steps[int((shares.mean(1) < 0.25).argmax())]}",
    alt="Active share of two blocks against training step: both start at one half and fall at once, the "
    "deeper block lower",
    size=(7.4, 3.8),
)
ax.set(
    xlabel="training step",
    ylabel="active neurons, percent",
    ylim=(0, 55),
    xlim=(0, 600),
)
curves(ax, steps, {"block 1": 100 * shares[:, 0], "block 2": 100 * shares[:, 1]})
show(fig)

# %% [markdown]
# (A). The start at 50 % is no accident: the weights are symmetric, so each pre-activation is positive with
# probability one half. From there it falls at once, while the loss is still high.
#
# Do not read a law into "the deeper block is lazier": look at the six layers of `lm_relu` above again.
# There, the middle ones are the laziest and the last one is the busiest.
#
# ## Why: follow the gradient
#
# Why should a loss that never mentions sparsity push neurons down? Take one token with label $y$, logits
# $f = \sum_j a_j v_j$ and $L$ the cross-entropy. By the chain rule, for an active neuron
#
# $$\frac{\partial L}{\partial a_i} = \langle v_i,\ \mathrm{softmax}(f) - \mathrm{onehot}(y)\rangle .$$
#
# At the start the $v_i$ are random with mean zero, so $\langle v_i, \mathrm{onehot}(y)\rangle$ is zero on
# average. But $\mathrm{softmax}(f)$ is not independent of $v_i$: the neuron is active, so $a_i v_i$ is part
# of $f$, and softmax is largest where $f$ is. It leans towards $v_i$. **Predict the sign** of the average
# gradient. Then write it down and measure it.


# %% exercise="lazy_neuron.mean_active_gradient" difficulty=3 importance=4 minutes=15
def mean_active_gradient(
    z: Float[np.ndarray, "t m"], V: Float[np.ndarray, "c m"], y: Int[np.ndarray, " t"]
) -> Float[np.ndarray, ""]:
    """Mean of dL/dz over the active (token, neuron) pairs; L is the loss of ONE token.

    Logits are V relu(z), `z` pre-activations, `y` labels in 0..c-1. One token, one neuron,
    z = log 3, v = (1, 0), label 1: logits (log 3, 0), softmax (3/4, 1/4), minus one-hot
    (3/4, -3/4), so the gradient is 3/4. ValueError where shapes differ, a label is no
    class, or no pair is active.
    """
    if z.shape[1] != V.shape[1] or len(y) != len(z):
        raise ValueError(
            f"z {z.shape}, V {V.shape} and y {y.shape} must be (t, m), (c, m) and (t,)"
        )
    if not (z > 0).any() or y.min() < 0 or y.max() >= len(V):
        raise ValueError(
            f"no active pair among {z.size}, or a label outside 0..{len(V) - 1}"
        )
    raise NotImplementedError


# %%
grade("lazy_neuron.mean_active_gradient", mean_active_gradient)

# %%
rng = np.random.default_rng(0)
slopes = [
    mean_active_gradient(
        rng.normal(size=(256, 64)),
        rng.normal(size=(10, 64)),
        rng.integers(0, 10, size=256),
    )
    for _ in range(200)
]
print(f"mean over 200 random layers: {np.mean(slopes):.1f}")
print(f"positive in every one: {min(slopes) > 0}")

# %% tags=["hide-input"]
fig, ax = figure(
    "At the start, descent pushes active neurons down",
    alt="Histogram of the mean gradient on active units over 200 random layers: all to the "
    "right of zero",
    size=(7, 3),
)
ax.hist(slopes, bins=30, color=BLUE)
ax.axvline(0, color=INK)
ax.set(xlabel="mean gradient on active neurons, one random layer each")
ax.set(yticks=[], xlim=(-0.05, 0.4))
ax.spines.left.set_visible(False)
show(fig)

# %% [markdown]
# The gradient is positive, so descent lowers active units. Note what the argument does not use: the labels
# were drawn at random. It speaks of the start of training only; it says nothing of where the fall ends.
#
# ## Make it explicit: Top-k
#
# If only few neurons matter for each token, allow no more than $k$:
#
# $$f(x) = V\,\mathrm{Top}_k\big(\mathrm{relu}(K^\top x)\big)$$
#
# $\mathrm{Top}_k$ keeps the $k$ largest *values* of each token (after the ReLU, so nothing negative
# survives) and sets all else to zero. With $k = m$ this is the dense layer. By hand, $k = 2$ and
# $K^\top x = (3, -5, 1, 2)$: the ReLU gives $(3, 0, 1, 2)$, Top-2 gives $(3, 0, 0, 2)$.


# %% exercise="lazy_neuron.topk_ffn" difficulty=2 importance=5 minutes=12
def topk_ffn(
    x: Float[np.ndarray, "t d"],
    K: Float[np.ndarray, "d m"],
    V: Float[np.ndarray, "d m"],
    *,
    k: int,
) -> Float[np.ndarray, "t d"]:
    """f(x) = V Top_k(relu(K^T x)) for each of t tokens.

    A token with fewer than k positive activations keeps fewer; of equals the first stays.
    ValueError where k lies outside 0..m or the shapes of K and V differ.
    """
    if K.shape != V.shape or not 0 <= k <= K.shape[1]:
        raise ValueError(
            f"K {K.shape} and V {V.shape} must agree, and k={k} lie in 0..{K.shape[1]}"
        )
    raise NotImplementedError


# %%
grade("lazy_neuron.topk_ffn", topk_ffn)

# %% [markdown]
# The definition that the package uses, to compare with yours:

# %%
print(inspect.getsource(inspect.unwrap(reference.topk_relu)))

# %% [markdown]
# ## How small may k be?
#
# Put Top-k into every layer of the trained model, without training it again. **Predict** before you move
# the slider: at which $k$ does the loss start to climb? And how many of the layer's multiplications does
# the smallest harmless $k$ save? The slider shows both: the loss on held-out text, and the arithmetic of
# the two matrices.

# %%
m = model.config["neurons"]
ks = [k for k in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512) if k < m] + [m]
small = torch.from_numpy(windows[:8])


@torch.no_grad()
def loss_at(k):
    limited = load("lm_relu", ffn=lambda x, w: fast.topk_relu(x @ w.up.T, k=k))
    logits = limited(small)[:, :-1]
    return float(
        torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), small[:, 1:].long().flatten()
        )
    )


losses = {k: loss_at(k) for k in ks}
harmless = min(k for k in ks if losses[k] < losses[m] + 0.01)
saved = 100 * (1 - harmless / m) / 2
print(f"smallest k on this grid that costs less than 0.01 nats: {harmless} of {m}")
print(f"multiplications saved there, both matrices together: {saved:.0f} %")


# %% tags=["hide-input"]
def draw(k=64):
    fig, (left, right) = figure(size=(8.6, 3.4), cols=2)
    left.set_title("Loss: flat until k is small")
    left.set(xscale="log", xlabel="k", ylabel="nats per byte")
    left.set_ylim(0, 1.15 * max(losses.values()))
    left.set_xticks([1, 8, 64, 512], ["1", "8", "64", "512"])
    left.plot(ks, list(losses.values()), color=GREY)
    left.plot(k, losses[k], "o", color=BLUE, markersize=11)
    note(left, f"{losses[k]:.2f}", k, losses[k], dx=0, dy=14, color=BLUE, ha="center")
    right.set_title("Arithmetic: one half stays")
    for row, share in enumerate((k / m, 1.0)):
        right.barh(row, 1, color=FAINT)
        right.barh(row, share, color=BLUE if share < 1 else GREY)
        note(right, f"{100 * share:.0f} %", 1, row)
    right.set(
        yticks=[0, 1], yticklabels=["V, second", "K, first"], xlim=(0, 1.2), xticks=[]
    )
    right.spines[["left", "bottom"]].set_visible(False)
    return fig


explore(
    draw,
    alt="Loss against k beside the share of multiplications of the two matrices: the loss is flat down to "
    "small k, and only the second matrix gets cheaper",
    k=ks,
)

# %% [markdown]
# However small $k$ is, half of the work stays: to know which neurons are active you multiply by all of $K$.
# Sparsity that is found after the fact saves the second matrix and never the first. Lesson 1.2 changes the
# layer so that half of the first matrix is enough, and lesson 1.3 guesses the active neurons before reading it.
#
# ## Make it fast
#
# The zeros are exact, so the second matrix can be read at the active neurons only. Nothing is approximated:

# %%
block = model.blocks[1].ffn
x = activations(model, windows[:1], "blocks.1.ffn.x")["blocks.1.ffn.x"][0].detach()
K, V = block.up.detach().T, block.down.detach()
gathered, whole = fast.gather_ffn(x, K, V), torch.relu(x @ K) @ V.T
share = float(
    fast.nonzero_stats(torch.relu(x @ K), torch.ones(len(x), dtype=torch.bool)).density
)
print(f"same output: {bool((gathered - whole).abs().max() < 1e-4)}")
kib = V.numel() * V.element_size() / 1024
print(f"V read for one token: {share * kib:.0f} KiB instead of {kib:.0f}")

# %% [markdown]
# One neuron should lie in one contiguous row: store $V^\top$, and `torch.nn.functional.embedding_bag` sums
# the rows it needs without copying them. Whether fewer bytes are less time is a question for a stopwatch,
# and for lesson 1.3.
#
# ## Is the paper right, here?
#
# Each claim, measured over three seeds (`sparselab claim lazy_neuron` does it again on your machine):

# %%
print(table("lazy_neuron"))

# %% [markdown]
# What holds: the fall from one half, deeper and wider networks being lazier, random targets not stopping
# it, Top-k costing almost nothing, better calibration under wrong labels. What does not, at this size: the
# few percent of T5, and the robustness to wrong labels and noisy inputs, which the paper finds on ImageNet.
# And one warning to remember: **the data matter**. A wide network on scikit-learn's 8 x 8 digits fits them
# without moving its weights far, and hardly gets lazy at all (last rows). A failed replication on too easy
# a task says little.
#
# > **What the released code does.** No official code was found. The paper describes one decision that no
# > equation shows: at large scale, Top-k is `jax.lax.approx_max_k` with a recall target of 0.95. That is an
# > approximate selection: up to one in twenty of the true top k may be missing, and the gradient follows
# > what was selected. When you compare an exact Top-k with the paper's numbers, you compare two methods.
#
# ## Remember
#
# 1. A trained ReLU transformer uses few of its neurons on any one token, different ones for different
#    tokens, and no term of the loss asks for it.
# 2. At the start of training the average gradient on active units is positive, whatever the labels: descent
#    switches neurons off.
# 3. Zeros found after the first matrix save the second one, at most half of the work. Measure per layer,
#    without padding, and say over how many tokens.
#
# Two questions without answers here. Weight decay also makes numbers small: does it make neurons lazier or
# less lazy? And GELU has no exact zeros: what would you have to decide before you could measure it?
#
# Further reading: Li et al., *The Lazy Neuron Phenomenon*, arXiv:2210.06313; Mirzadeh et al., *ReLU Strikes
# Back*, arXiv:2310.04564; Luo et al., *Sparsing Law*, arXiv:2411.02335.
