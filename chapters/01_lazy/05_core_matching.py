# ---
# sparselab:
#   title: Core neurons and core tokens
#   minutes: 60
# ---

# %% [markdown]
# A long prompt is read once; then the answer is written token by token, and each step reads every neuron
# and looks back at every token of the prompt. **Which neurons and which tokens could have stayed at home?**
#
# CoreMatching answers both with one count: the neurons that fire most over the prompt are its *core
# neurons*, the tokens that fire most of those are its *core tokens*. The code that was released does
# something else. You build both and measure what parts them.
#
# After this lesson you can
# - find the core neurons and core tokens of a prompt, by the rule and as released,
# - find the bend of a curve, and break the rule that finds it,
# - say what such a count cannot know,
# - say why a key of zeros is not a dropped key.
#
# Guess first. The cache holds the keys and values of 128 prompt tokens. To drop nine tenths, someone
# overwrites theirs with zeros. How many percent of its attention does the answer then spend on the zeros?

# %%
my_guess = 0  # percent

# %% tags=["hide-input"]
import inspect
from math import log

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from matplotlib.colors import ListedColormap
from torch.nn.functional import cross_entropy, scaled_dot_product_attention

from sparselab.claims import stored, table
from sparselab.course import grade, hint
from sparselab.data import images, text
from sparselab.lazy.core_matching import claim, fast, reference
from sparselab.lazy.core_matching.reference import Core
from sparselab.models import activations, load, reaching
from sparselab.plots import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PURPLE,
    RED,
    SKY,
    curves,
    explore,
    figure,
    note,
    show,
)

model = load("lm_gated")
PROMPT = 128
windows = text.windows(
    text.pydocs("held_out"), length=2 * PROMPT, n=12, rng=np.random.default_rng(0)
)
hidden = activations(model, windows[:, :PROMPT], "blocks.2.ffn.hidden")
hidden = hidden["blocks.2.ffn.hidden"].detach()  # the third layer: prompt, byte, neuron

# %% [markdown]
# ## Look first
#
# `lm_gated` is a byte-level language model whose feed-forward layers are gated, as in LLaMA. Below are 48
# bytes of a prompt. A mark says that the neuron is among the strongest fifth of those that fire on this byte.
# The neurons are sorted by how often that happens over the whole prompt.

# %%
a = hidden[0].double().numpy()  # one row per byte
print(f"{a.shape[0]} bytes, {a.shape[1]} neurons in this layer")
print(f"positive: {100 * (a > 0).mean():.0f} % of the activations")

# %% tags=["hide-input"]
strongest = np.stack([reference.core_neurons(row[None], beta=1.0).kept for row in a])
often = np.argsort(-strongest.sum(axis=0), kind="stable")
cut = int(0.4 * len(often))
fig, ax = figure(
    "Some neurons are strong on byte after byte",
    alt="The strongest firing neurons of 48 bytes, the neurons sorted by how often: dense "
    "rows at the bottom, hardly a mark at the top",
    size=(8, 4.4),
)
ax.imshow(
    strongest[:48, often].T,
    aspect="auto",
    origin="lower",
    cmap=ListedColormap(["#eceff3", BLUE]),
)
ax.axhline(cut - 0.5, color=RED)
note(ax, "core", 47.5, cut / 2, color=RED)
ax.set_ylabel("neuron, most frequent first")
ax.set_xticks(
    range(48), [chr(b) if b > 32 else "·" for b in windows[0, :48]], fontsize=9
)
show(fig)

# %% [markdown]
# What a practised eye sees: dense rows at the bottom, thin ones at the top, and no floor where they
# end. The red line is a choice, not a gap.
#
# ## Core neurons, exactly
#
# $a_t \in \mathbb{R}^m$ holds the activations of token $t$. Token $t$ **fires** neuron $n$ where
# $a_{tn} > 0$; let it fire $p_t$ of them.
#
# 1. Each token votes for its $\lfloor \rho\, p_t \rfloor$ largest entries.
# 2. $\mathrm{count}_n$ is the number of tokens that vote for neuron $n$.
# 3. The core is the $\lfloor \beta\, m \rfloor$ neurons with the largest counts, never one without a vote.
#
# The published shares are $\rho = 0.2$ and $\beta = 0.4$. By hand, with $\rho = 0.5$, $\beta = 0.4$, three
# tokens and five neurons:
#
# $$a = \begin{pmatrix} 5 & 4 & 1 & 2 & -9 \\ 3 & -1 & -2 & 2 & -9 \\ -1 & 6 & 2 & 1 & 3 \end{pmatrix}$$
#
# They fire 4, 2 and 4 neurons, so they vote for 2, 1 and 2: $\{0, 1\}$, $\{0\}$, $\{1, 4\}$. Counts
# $(2, 2, 0, 0, 1)$, core $\{0, 1\}$. The $-9$, the largest magnitude of all, counts as silence.
#
# The released code gives every token the same number of votes, from the mean of $p_t$: here
# $\lfloor 0.5 \cdot 10/3 \rfloor = 1$. A token that fires fewer then votes for silent neurons too.


# %% exercise="core_matching.core_neurons" difficulty=2 importance=5 minutes=12
def core_neurons(
    a: Float[np.ndarray, "t m"],
    *,
    rho: float = 0.2,
    beta: float = 0.4,
    common: bool = False,
) -> Core:
    """Core(kept, count): which neurons are core, and how many tokens vote for each.

    With `common`, as released, every token has floor(rho * mean of p) votes. Of equals
    the lower index. The matrix above: kept (1, 1, 0, 0, 0), count (2, 2, 0, 0, 1).
    ValueError without a token or with rho or beta outside 0..1.
    """
    if not (len(a) and 0 <= rho <= 1 and 0 <= beta <= 1):
        raise ValueError(f"{len(a)} tokens, rho={rho}, beta={beta}: need 1, 0..1, 0..1")
    fires = (a > 0).sum(axis=1)
    votes = ...  # of each token
    count = np.zeros(a.shape[1], int)
    ...  # for each token t: add one to the count of each neuron it votes for
    raise NotImplementedError


# %%
grade("core_matching.core_neurons", core_neurons)

# %% [markdown]
# `hint("core_matching.core_neurons")` gives a hint, and a further one each time.
#
# ## Does the answer miss the others?
#
# All neurons read the prompt of 128 bytes. Then a share of the neurons of every layer, chosen once per
# prompt, computes the answer, its next 128 bytes; we count what that costs in bits per byte. Beside the
# core stand two plain rules: **random** neurons, and the **loudest**, those of largest mean square over the
# prompt. All three read the same bytes: at 60 %, 60 % of each layer's weights. A second model, `lm_relu`,
# has a ReLU and no gate.
#
# **Predict** for `lm_gated` with 60 % kept. Does the core cost (A) hardly anything, at most 0.1 bits;
# (B) more, but far less than random neurons; (C) as much as random neurons?

# %%
SHARES = (0.2, 0.4, 0.6, 0.8)


@torch.no_grad()
def bits(network, kept=None):
    """Bits per byte of the answers; `kept` maps points to each prompt's neurons."""
    is_prompt = torch.arange(2 * PROMPT - 1)[:, None] < PROMPT
    into = {
        point: lambda a, flags=flags: torch.where(is_prompt | flags[:, None], a, 0)
        for point, flags in (kept or {}).items()
    }
    with reaching(network, into):
        logits = network(windows[:, :-1])[:, PROMPT - 1 :]
    wanted = torch.from_numpy(windows[:, PROMPT:]).long()
    return float(cross_entropy(logits.flatten(0, 1), wanted.flatten())) / log(2)


def largest(score, k):
    """True for the k largest of each row; of equals the first."""
    best = score.argsort(dim=-1, descending=True, stable=True)[..., :k]
    return torch.zeros_like(score, dtype=torch.bool).scatter(-1, best, True)


def choose(rule, a, beta):
    if rule == "core":
        cores = [core_neurons(one, beta=beta).kept for one in a.double().numpy()]
        return torch.from_numpy(np.stack(cores))
    score = a.square().mean(dim=1) if rule == "loudest" else torch.rand(a[:, 0].shape)
    return largest(score, int(beta * a.shape[2]))


torch.manual_seed(0)
measured = {}
for name in ("lm_gated", "lm_relu"):
    network = load(name)
    maps = activations(network, windows[:, :PROMPT], "blocks.*.ffn.hidden")
    maps = {point: a.detach() for point, a in maps.items()}
    dense = bits(network)
    print(f"{name}, dense: {dense:.2f} bits per byte. Above it, 20 to 80 % wanted:")
    for rule, draws in (("core", 1), ("loudest", 1), ("random", 3)):
        curve = []
        for beta in SHARES:
            tries = [
                {point: choose(rule, a, beta) for point, a in maps.items()}
                for _ in range(draws)
            ]
            share = np.mean([float(k.float().mean()) for k in tries[0].values()])
            curve.append((share, np.mean([bits(network, k) for k in tries]) - dense))
        measured[name, rule] = np.array(curve).T
        more = "".join(f"{bits_more:6.2f}" for _, bits_more in curve)
        print(f"  {rule:8}{more}   (of 80 % wanted {100 * curve[3][0]:.0f} % kept)")

# %% tags=["hide-input"]
fig, axes = figure(
    "With a gate, the vote is hardly better than chance",
    alt="Extra bits per byte against the share of neurons kept: in the gated model the core lies on random "
    "neurons and the loudest far below; in the ReLU model core and loudest coincide at 40 percent",
    size=(9, 3.9),
    cols=2,
)
for ax, name in zip(axes, ("lm_gated", "lm_relu"), strict=True):
    ax.set_title(name, fontsize=12)
    ax.set(xlabel="neurons kept, percent", ylim=(0, 3.4), xlim=(0, 85))
    ax.set_xticks([20, 40, 60, 80])
    core_dy = -8 if name == "lm_gated" else 6
    for rule, color, dy in (
        ("random", GREY, 8),
        ("core", BLUE, core_dy),
        ("loudest", GREEN, -4),
    ):
        share, more = measured[name, rule]
        ax.plot(100 * share, more, "o-", color=color)
        note(ax, rule, 100 * share[0], more[0], dx=-9, dy=dy, color=color)
axes[0].set_ylabel("bits per byte above dense")
show(fig)

# %% [markdown]
# (C). In the gated model the vote is a little better than chance at 20 and 40 %, no better at 60 %, and
# worse at 80 %: the fifth of the neurons with the fewest votes is worth more than a random fifth. Adding
# up squares instead of votes halves the cost up to 40 %, from the same pass over the prompt. In the ReLU
# model votes and squares agree at 40 %. (Its core ends at 60 %: a token fires few of these neurons, and
# one without a vote is never core. Read the share kept, not the share wanted.)
#
# ## A sign that means nothing
#
# What is different with a gate? There $a_n = \mathrm{act}(\mathrm{gate}_n \cdot x)\,(\mathrm{up}_n \cdot x)$,
# and the neuron writes $a_n\,\mathrm{down}_n$. Take half of the neurons and change the sign of
# $\mathrm{up}_n$ and of $\mathrm{down}_n$. **Predict** what changes: the logits, the core, both, neither?

# %%
flipped = load("lm_gated")
draw = torch.Generator().manual_seed(0)
with torch.no_grad():
    for block in flipped.blocks:
        sign = torch.where(torch.rand(len(block.ffn.up), generator=draw) < 0.5, -1, 1)
        block.ffn.up *= sign[:, None]
        block.ffn.down *= sign
    same_logits = bool((flipped(windows) - model(windows)).abs().max() < 1e-4)
    other = activations(flipped, windows[:, :PROMPT], "blocks.2.ffn.hidden")


def cores(a):
    return torch.stack([fast.core_neurons(one).kept for one in a])


def overlaps(a, core):
    return torch.stack([fast.overlap(o, c) for o, c in zip(a, core, strict=True)])


after = other["blocks.2.ffn.hidden"]
one, two = cores(hidden), cores(after)
stay = float((one & two).sum() / one.sum())
chance = float(one.float().mean())
print(f"same logits: {same_logits}")
print(
    f"core neurons that stay core: {100 * stay:.0f} % (by chance {100 * chance:.0f} %)"
)
one, two = largest(overlaps(hidden, one), 13), largest(overlaps(after, two), 13)
stay, chance = float((one & two).sum() / one.sum()), 13 / PROMPT
print(
    f"top tenth of tokens that stay: {100 * stay:.0f} % (by chance {100 * chance:.0f} %)"
)

# %% [markdown]
# The function is the same; its core is another set, and so are its core tokens. In a gated layer the sign
# of an activation is a convention, and "fires" asks for the convention. (A square has no sign: the loudest
# neurons stay.) LLaMA's layers have this symmetry, too. Whether training gives the sign a meaning in a
# large model, this does not say.
#
# ## Core tokens
#
# The **overlap** of token $t$ is the number of core neurons that it fires:
#
# $$g_t = |\{n : a_{tn} > 0 \text{ and } n \in \mathrm{core}\}|$$

# %%
print(inspect.getsource(inspect.unwrap(reference.overlap)))

# %% [markdown]
# Try it on pictures, where you can see the tokens. `vit_relu` reads an 8 x 8 digit as 16 patches, and its
# layers have a ReLU, so firing is meant as it is said. **Predict:** in the first layer, which patches fire
# the most core neurons, those with the stroke or those of blank paper?

# %%
vit = load("vit_relu")
digits = images.digits("held_out")
patches = activations(vit, digits.images, "blocks.0.ffn.hidden")
patches = patches["blocks.0.ffn.hidden"].detach()
g = overlaps(patches, cores(patches)).numpy()
ink = digits.images.reshape(-1, 4, 2, 4, 2).mean(axis=(2, 4)).reshape(-1, 16)
fires = (patches > 0).sum(dim=2).numpy()
for name, of in (("blank", ink == 0), ("more than half black", ink > 0.5)):
    print(f"{name}, {100 * of.mean():.0f} % of all patches:")
    print(f"  overlap {g[of].mean():.0f} of {fires[of].mean():.0f} neurons that fire")

# %% tags=["hide-input"]
fig, axes = figure(
    "The core tokens of a digit are its blank paper",
    alt="Five digits above, their patches shaded by overlap below: the dark patches are those without ink",
    size=(8, 3.7),
    rows=2,
    cols=5,
)
for column, i in enumerate((0, 1, 5, 6, 8)):
    axes[0, column].imshow(digits.images[i], cmap="Greys")
    axes[1, column].imshow(g[i].reshape(4, 4), cmap="Blues")
for ax in axes.flat:
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
axes[0, 0].set_ylabel("digit")
axes[1, 0].set_ylabel("overlap")
show(fig)

# %% [markdown]
# Blank paper. A tempting story: most patches are blank, so they elect the core. But they are not most: read
# the numbers. A blank patch fires five times as many neurons as a black one, and of either's neurons half
# are core. The overlap says how much a patch fires, and little else. (It has more votes, too: a share
# $\rho$ of what it fires.)
#
# ## How many tokens? The elbow
#
# Sort the overlaps, the largest first, and lay a straight line, the **chord**, from the first to the last.
# The elbow is where the curve lies furthest from the chord; keep the tokens at or above it. By hand:
#
# $$g = (1, 9, 0, 5) \;\Rightarrow\; \text{sorted } (9, 5, 1, 0),\quad \text{chord } (9, 6, 3, 0),\quad
# \text{gaps } (0, 1, 2, 0)$$
#
# The largest gap is at the value 1, so $T = 1$, and three tokens stay. As published the distance has no
# sign: a curve *above* its chord counts as well. Here `signed=True` looks below only. Distances of whole
# numbers often tie; multiply by $t - 1$ and stay with integers, and the first of equals is well defined.


# %% exercise="core_matching.elbow" difficulty=3 importance=4 minutes=12
def elbow(g: Int[np.ndarray, " t"], *, signed: bool = True) -> Int[np.ndarray, ""]:
    """The overlap T at which the sorted curve lies furthest below its chord.

    Without `signed`: furthest from it on either side. Of equals the first. The example
    above: 1. ValueError without a token.
    """
    raise NotImplementedError


# %%
grade("core_matching.elbow", elbow)

# %% [markdown]
# A curve that bends one way has one hump, below its chord. Overlaps are often a bell: many tokens in the
# middle, few at both ends. Sorted, a bell makes an S, with a hump below the chord near its start and one
# above near its end. What does the unsigned rule do when both are equally high? Make it happen.


# %% exercise="core_matching.tipping_pair" difficulty=2 importance=3 minutes=8
def tipping_pair(t: int) -> Int[np.ndarray, "2 t"]:
    """Two rows of t overlaps: the second is the first with one more for ONE token.

    Without `signed`, the elbow keeps at most a quarter of the first row's tokens and at
    least three quarters of the second row's. Whole numbers from 0 up.
    """
    raise NotImplementedError


# %%
grade("core_matching.tipping_pair", tipping_pair)

# %% [markdown]
# Is that a curiosity? The slider goes through twelve real prompts. Blue: the signed rule. Red: the
# published one.

# %%
g = overlaps(hidden, cores(hidden)).numpy()
kept_shares = {
    signed: [float((one >= elbow(one, signed=signed)).mean()) for one in g]
    for signed in (True, False)
}
for signed, name in ((True, "signed"), (False, "either side")):
    low, high = min(kept_shares[signed]), max(kept_shares[signed])
    print(f"{name}: keeps {100 * low:.0f} to {100 * high:.0f} % of a prompt")


# %% tags=["hide-input"]
def draw_elbows(prompt=1):
    sorted_g = np.sort(g[prompt - 1])[::-1]
    place = np.arange(PROMPT)
    fig, ax = figure(size=(7.4, 3.8))
    ax.plot(place, np.linspace(sorted_g[0], sorted_g[-1], PROMPT), color=INK, lw=1)
    ax.plot(place, sorted_g, color=GREY)
    for signed, color, dy in ((False, RED, 48), (True, BLUE, -48)):
        share = kept_shares[signed][prompt - 1]
        value = int(elbow(g[prompt - 1], signed=signed))
        at = int((sorted_g >= value).sum()) - 1
        ax.plot(at, value, "o", color=color, markersize=12 if not signed else 7)
        word = "signed" if signed else "either side"
        note(
            ax,
            f"{word}: {100 * share:.0f} % kept",
            at,
            value,
            dx=0,
            dy=dy,
            color=color,
            ha="left" if at < PROMPT / 2 else "right",
        )
    ax.set(xlabel="token of the prompt, by falling overlap", ylabel="overlap")
    ax.set_ylim(g.min() - 5, g.max() + 15)
    return fig


explore(
    draw_elbows,
    alt="Sorted overlaps of one prompt with their chord: an S; the signed elbow keeps a small part, the "
    "unsigned one on many prompts nearly all",
    prompt=list(range(1, 13)),
)

# %% [markdown]
# ## Does the core hear the question?
#
# In a vision-language model the picture comes first, the question after it, and core tokens are meant to be
# those that matter *for the question*. To test that one must know the truth, so here is a small world: 64
# patches in a grid, each a letter in a colour; then four words, the last of which names a letter; the
# answer is its colour. A small gated transformer learns it before your eyes.
#
# **Predict:** mark the 8 patches of largest overlap, then ask about another letter on the same picture.
# How many of the 8 change?

# %%
torch.manual_seed(1)
rng = np.random.default_rng(1)
reader = claim.trained(rng)
seen = claim.questions(rng, n=64, patches=64, asked=1)
shapes = seen.tokens[:, :64] // claim.COLOURS
asked = seen.tokens[:, -1] - claim.ASK - 3
others = np.array([row[row != s][0] for row, s in zip(shapes, asked, strict=True)])
again = seen.tokens.copy()
again[:, -1] = claim.ASK + 3 + others
print(f"answers right: more than 9 in 10: {claim.accuracy(reader, seen) > 0.9}")

with torch.no_grad():
    first, second = (
        activations(reader, tokens, "blocks.1.ffn.hidden")["blocks.1.ffn.hidden"]
        for tokens in (seen.tokens, again)
    )
scores = {
    "core": [overlaps(a, cores(a))[:, :64] for a in (first, second)],
    "last word": [overlaps(a, a[:, -1] > 0)[:, :64] for a in (first, second)],
}
for name, (g1, g2) in scores.items():
    agree = float((largest(g1, 8) & largest(g2, 8)).sum(dim=1).float().mean())
    print(f"{name}: of 8 patches at least 6 stay the same: {agree >= 6}")
moved = float((first - second)[:, :64].abs().max())
print(f"patches fire the same whatever is asked: {moved < 1e-5}")

# %% tags=["hide-input"]
PAINT = [BLUE, ORANGE, GREEN, RED, PURPLE, SKY, INK, "#8a7a00"]
picture = 0
fig, axes = figure(
    "The core marks the same patches, whatever you ask",
    alt="A grid of 64 coloured letters four times: the 8 patches that the core chooses are the same for "
    "two questions; those that the last word's neurons choose differ and hold most of the letters asked for",
    size=(7.8, 8.4),
    rows=2,
    cols=2,
)
for row, (name, pair) in zip(axes, scores.items(), strict=True):
    for ax, score, wanted in zip(row, pair, (asked, others), strict=True):
        chosen = largest(score, 8)[picture].reshape(8, 8).numpy()
        ax.imshow(chosen, cmap=ListedColormap(["#f1f3f6", "#b9d7ea"]))
        for i, s in enumerate(shapes[picture]):
            y, x = divmod(i, 8)
            colour = PAINT[seen.tokens[picture, i] % claim.COLOURS]
            ax.text(x, y, chr(65 + s), color=colour, ha="center", va="center")
            if s == wanted[picture]:
                ax.plot(x, y, "o", mfc="none", mec=INK, markersize=19, mew=1.8)
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
        ax.set_title(f"What colour is {chr(65 + wanted[picture])}?", fontsize=12)
    row[0].set_ylabel(f"overlap with the {name}", weight="bold")
show(fig)

# %% [markdown]
# Shaded: the 8 patches chosen; ringed: those that answer the question. In the upper row hardly a patch
# moves, and there is a reason. The model is causal: it computes a patch before it reads the question, so
# what a patch fires cannot depend on the question. The core could, but 64 patches vote in it and 4 words.
# Put the neurons of the **last word** alone in place of the core, and the choice listens.
#
# Now the bake-off: each rule chooses 8 of 64 patches, for three models trained from three seeds.
# "Attention" ranks the patches by the attention that the last word pays them in that layer.

# %% tags=["hide-input"]
metrics = stored("core_matching")["metrics"]
fig, ax = figure(
    "The core chooses like chance, the last word far better",
    alt="Recall of the relevant patches by layer: the core stays near the line of chance in all three "
    "layers, the last word lies between one half and four fifths, attention falls from nearly all to chance",
    size=(7.6, 3.8),
)
ax.set(ylim=(0, 1.05), xticks=[1, 2, 3], xlabel="layer", xlim=(0.9, 3.1))
ax.set_ylabel("share of relevant patches found")
ax.plot([1, 3], [8 / 64] * 2, color=INK, linestyle=":", linewidth=1.5)
note(ax, "8 of 64 by chance", 1.25, 8 / 64, dx=0, dy=-12, weight="normal")
rules = {"last word": "last", "attention": "attention", "core": "core"}
curves(
    ax,
    [1, 2, 3],
    {
        name: np.transpose([metrics[f"{key}_{i}_recall"] for i in range(3)])
        for name, key in rules.items()
    },
    colors={"core": BLUE, "last word": GREEN, "attention": GREY},
)
show(fig)
per_fired = np.median(metrics["share_recall"])
print(f"core overlap divided by what a patch fires, best layer: {per_fired:.2f}")

# %% [markdown]
# The paper's rule is close to chance, also when the overlap is divided by what a patch fires. The released code's idea, one late token in place of the core, does
# far better. Plain attention beats both in the first layer and is chance in the third, perhaps because the
# answer has been fetched by then. What this does not say: in a large vision model some patches may matter
# for most questions, and a vote may find those. This world has none.
#
# ## To drop, to mask, to zero
#
# Once the tokens are chosen, deeper layers carry only those. For each of them that should be what masking
# gives: the full prompt, with the dropped keys hidden. Layers 4 to 6 of `lm_gated` read one text of 256
# bytes; of its 128 prompt bytes 13 stay.
#
# **Predict** which equals masking: tokens at their old positions, tokens numbered anew, or both?

# %%
states = activations(model, windows[:1], "blocks.2.residual")["blocks.2.residual"]
stays = torch.ones(2 * PROMPT, dtype=torch.bool)
stays[:PROMPT] = largest(torch.from_numpy(g[0]), 13)
old = torch.arange(2 * PROMPT)
deeper = load("lm_gated").blocks[3:]


@torch.no_grad()
def through(x, positions, shown=None):
    """Layers 4 to 6, tokens at these positions; `shown` hides the keys that are not."""
    rotary = deeper[0].attention.rotate
    t = len(positions)
    seen = torch.ones(t, t, dtype=torch.bool).tril()
    if shown is not None:
        seen &= shown | torch.eye(t, dtype=torch.bool)

    def rotate(y):
        line = y.new_zeros(*y.shape[:2], 2 * PROMPT, y.shape[3])
        line[:, :, positions] = y
        return rotary(line)[:, :, positions]

    def look(q, k, v):
        return scaled_dot_product_attention(q, k, v, attn_mask=seen)

    for block in deeper:
        block.attention.rotate, block.attention.attend = rotate, look
        x = block(x)
        block.attention.rotate = rotary
    return x


masked = through(states, old, shown=stays)[:, stays]
x, positions = fast.prune(states[0], old, stays)
for name, at in (("old positions", positions), ("numbered anew", torch.arange(len(x)))):
    equal = bool((through(x[None], at) - masked).abs().max() < 1e-3)
    print(f"{name}: equal to masking: {equal}")
print(f"tokens in layers 4 to 6: {len(x)} of {len(old)}")
per_token = 3 * 2 * states.shape[2] * states.element_size()  # keys, values, 3 layers
kib = np.array([13, PROMPT]) * per_token / 1024
print(f"the prompt's cache there: {kib[0]:.0f} KiB of {kib[1]:.0f}")

# %% [markdown]
# Positions belong to the token. (Rotary positions see distances only, but the distances change.)
#
# The released code drops nothing: it keeps every slot of the cache and writes zeros into it. A masked key has the logit $-\infty$ and the weight 0. A key of zeros has the logit $q \cdot 0 = 0$, and
# $e^0 = 1$: with $Z = \sum_{\text{kept}} e^{q \cdot k_s / \sqrt d}$,
#
# $$\text{masked} = \frac{1}{Z}\sum_{\text{kept}} e^{q \cdot k_s / \sqrt d}\, v_s, \qquad
# \text{zeroed} = \frac{Z}{Z + \text{dropped}} \cdot \text{masked}.$$
#
# By hand, one query $q = 1$ of width 1, keys $(\ln 3, 7)$, values $(4, 5)$, the first kept. Masked: only
# one token is left, so 4. Zeroed: weights $3 : 1$, so $\tfrac34 \cdot 4 + \tfrac14 \cdot 0 = 3$.


# %% exercise="core_matching.attend" difficulty=2 importance=5 minutes=10
def attend(
    q: Float[np.ndarray, "t d"],
    k: Float[np.ndarray, "s d"],
    v: Float[np.ndarray, "s e"],
    kept: Bool[np.ndarray, " s"],
    *,
    zeroed: bool = False,
) -> Float[np.ndarray, "t e"]:
    """softmax(q k^T / sqrt(d)) v, the tokens not kept masked, or zeroed in k and v.

    t queries, s cached tokens. The example above: 4, zeroed 3. ValueError where sizes
    differ or none is kept.
    """
    if not (q.shape[1] == k.shape[1] and len(k) == len(v) == len(kept) and kept.any()):
        shapes = f"q {q.shape}, k {k.shape}, v {v.shape}"
        raise ValueError(f"{shapes} with {kept.sum()} of {len(kept)} flags set")
    raise NotImplementedError


# %%
grade("core_matching.attend", attend)

# %% [markdown]
# How much weight zeros take in a trained model depends on where 0 lies among its logits. **Predict:** of the
# true logits between answer bytes and prompt bytes, what share is below 0?

# %%
inside = activations(model, windows, ["blocks.3.attention.q", "blocks.3.attention.k"])
q, k = (one[0].detach().double().numpy() for one in inside.values())  # heads, t, d
logits = np.einsum("htd,hsd->hts", q[:, PROMPT:], k[:, :PROMPT]) / np.sqrt(q.shape[2])
print(f"logits below 0, layer 4, all heads: {100 * (logits < 0).mean():.0f} %")

# Your function for a query that sees the prompt only: values of 1 add up what is left.
keep, ones = largest(torch.from_numpy(g[:1]), 13)[0].numpy(), np.ones((PROMPT, 1))
left = [
    attend(query[None, PROMPT], key[:PROMPT], ones, keep, zeroed=True).item()
    for query, key in zip(q, k, strict=True)
]
low, high = 100 * (1 - max(left)), 100 * (1 - min(left))
print(
    f"weight on 115 zeros beside 13 bytes: {low:.0f} to {high:.0f} % in the four heads"
)

# %% tags=["hide-input"]
fig, ax = figure(
    "Zeroing lifts a key above nearly all true ones",
    alt="Histogram of the true attention logits of layer 4: nearly all lie below 0, where every zeroed key lands",
    size=(7.6, 3.6),
)
ax.hist(logits.ravel(), bins=np.linspace(-20, 6, 80), color=GREY)
ax.axvline(0, color=RED, linewidth=3)
note(ax, "every zeroed key", 0, 0.9, color=RED, high=True)
note(ax, "true keys", -7, 0.6, color=GREY, high=True, dx=-6)
ax.set(xlabel="logit of an answer byte and a prompt byte, layer 4", yticks=[])
ax.spines.left.set_visible(False)
show(fig)

# %% [markdown]
# The model has learnt to push what it does not need below 0. A zero pulls it back up: the tokens that were
# meant to leave now weigh more than most that stayed.
#
# Now all of it. `lm_gated` reads the prompt densely; then, in layers 4 to 6, the answer sees its own bytes
# and the core tokens chosen in layer 3. The other prompt bytes are masked, or zeroed; all else is equal.
# **Predict** which is worse: zeros, or no prompt at all?

# %%
score = torch.from_numpy(g)
is_answer = torch.arange(2 * PROMPT - 1)[:, None] >= PROMPT
earlier = torch.ones(2 * PROMPT - 1, 2 * PROMPT - 1, dtype=torch.bool).tril()
later = load("lm_gated")


@torch.no_grad()
def seeing(kept, *, zeroed):
    """Bits per byte above dense, and the share of the answers' attention on zeros."""
    own = torch.ones(len(kept), PROMPT - 1, dtype=torch.bool)
    shown, spent = torch.cat([kept, own], dim=1)[:, None], []

    def masking(q, k, v):
        seen = earlier & (shown[:, :, None] | ~is_answer)
        return scaled_dot_product_attention(q, k, v, attn_mask=seen)

    def zeroing(q, k, v):
        dense = scaled_dot_product_attention(q, k, v, is_causal=True)
        keys, zeros = k * shown[..., None], (~shown)[..., None].to(v).expand_as(v)
        weight = scaled_dot_product_attention(q, keys, zeros, is_causal=True)
        spent.append(float(weight[:, :, PROMPT:].mean()))
        v = v * shown[..., None]
        rest = scaled_dot_product_attention(q, keys, v, is_causal=True)
        return torch.where(is_answer, rest, dense)

    for block in later.blocks[3:]:
        block.attention.attend = zeroing if zeroed else masking
    return bits(later) - dense_bits, np.mean(spent) if zeroed else 0.0


dense_bits = bits(model)
KEPT = [0, 4, 13, 32, 64, 96, 128]
by_kept = {
    n: [seeing(largest(score, n), zeroed=zeroed) for zeroed in (False, True)]
    for n in KEPT
}
(as_masked, _), (as_zeroed, weight) = by_kept[13]
print(f"attention on zeros: {100 * weight:.0f} %, your guess: {my_guess} %")
print("bits per byte above dense")
print(f"  13 core tokens, zeros for the others: {as_zeroed:.2f}")
print(f"  13 core tokens, the others masked:    {as_masked:.2f}")
print(f"  no prompt, all masked:                {by_kept[0][0][0]:.2f}")
last = torch.arange(PROMPT).expand_as(score)
print(
    f"  the last 13 bytes, the others masked: {seeing(largest(last, 13), zeroed=False)[0]:.2f}"
)

# %% [markdown]
# Zeros are worse than no prompt at all. And once more the core disappoints: 13 core tokens do no better
# than none, the last 13 bytes lose nothing. A byte model lives on what it has just read: with 0.02 bits at
# stake this is a weak test of the *choice*, but not of the *zeros*.
#
# Move the slider. "Zero means gone": where does that break most?


# %% tags=["hide-input"]
def draw_cache(kept=13):
    weight = by_kept[kept][1][1]
    fig, (left, right) = figure(size=(8.8, 3.2), cols=2)
    left.set_title("Attention of the answer, zeroed", fontsize=12)
    left.barh(0, 1 - weight, height=0.5, color=BLUE)
    left.barh(0, weight, height=0.5, left=1 - weight, color=RED)
    note(left, f"on bytes: {100 * (1 - weight):.0f} %", 0, 0.5, color=BLUE, dx=0)
    if weight:
        note(left, f"on zeros: {100 * weight:.0f} %", 1, 0.5, color=RED, dx=-1)
    left.set(xlim=(0, 1), ylim=(-1, 1), xticks=[], yticks=[])
    left.spines[:].set_visible(False)
    right.set_title("Bits per byte above dense", fontsize=12)
    for way, color, name, height in (
        (0, BLUE, "masked", -0.013),
        (1, RED, "zeroed", 0.08),
    ):
        right.plot(KEPT, [by_kept[n][way][0] for n in KEPT], color=color, alpha=0.3)
        value = by_kept[kept][way][0]
        right.plot(kept, value, "o", color=color, markersize=10)
        note(right, f"{name}: {value:.3f}", 45, height, color=color)
    right.set(xlabel="prompt bytes kept, of 128", ylim=(-0.03, 0.12))
    return fig


explore(
    draw_cache,
    alt="Share of attention on zeroed tokens, and bits above dense for masked and zeroed prompts, against the "
    "number of prompt bytes kept: the fewer stay, the more the zeros take, and zeroing costs more throughout",
    kept=KEPT,
)

# %% [markdown]
# ## Make it fast
#
# The sets are chosen once per prompt. Copy the core's rows and columns into three small matrices, and every
# step of the answer is dense arithmetic on those. No kernel is needed.

# %%
weights = reader.blocks[1].ffn
layer = fast.Gated(*(w.detach() for w in (weights.gate, weights.up, weights.down)))
core = cores(first[:1])[0]
x = activations(reader, seen.tokens[:1], "blocks.1.ffn.x")["blocks.1.ffn.x"][0].detach()
small = fast.gather(layer, core)
whole = torch.where(core, first[0], 0) @ layer.down.T
print(f"same output: {bool((fast.ffn(x, small) - whole).abs().max() < 1e-4)}")
sizes = [sum(w.numel() * w.element_size() for w in f) / 1024 for f in (small, layer)]
print(f"weights read for one token: {sizes[0]:.0f} KiB instead of {sizes[1]:.0f}")
beta = sizes[0] / sizes[1]
print(f"the copy pays after {2 * beta / (1 - beta):.1f} tokens")

both = [reference.core_neurons(one.double().numpy()).kept for one in first[:4]]
print(f"torch chooses the same core: {np.array_equal(cores(first[:4]).numpy(), both)}")

# %% [markdown]
# The copy reads and writes a share $\beta$ of the layer, and each token then saves $1 - \beta$ of it: it
# pays after $2\beta / (1 - \beta)$ tokens. What it costs: prompts with different cores cannot share a
# batch.
#
# ## Is the paper right, here?
#
# Each claim over three seeds (`sparselab claim core_matching` measures them on your machine):

# %%
print(table("core_matching"))

# %% [markdown]
# What holds is mostly arithmetic: the weight of zeros, the elbow that jumps. More neurons cost fewer bits,
# and at 40 % the core beats random neurons and the core of *other* text, by little beside the 1.6 bits that
# it loses. What does not hold: that 60 % is nearly all, that negative activations do not matter, that the
# overlap finds the tokens asked for.
#
# Why? Votes by magnitude win back 0.16 bits, so the sign is a part of it; squares win back 0.7, so the
# counting is a larger one. The overlap grows with all that a token fires, and patches are computed before
# the question. And one suspect was not questioned: these layers have 352 neurons, LLaMA-7B's 11008, which may leave more to
# spare. No vision-language model was run here; the paper's own figures stand untested.
#
# > **What the released code does.** It patches one LLaVA model. In place of the core it takes what *one*
# > token fires, the fifth from the end; the picture must lie at positions 5 to 580. In layers 5 to 18, each
# > for itself, tokens strictly above the unsigned elbow stay (none, if all overlaps are equal). Zeros go into
# > the others' keys and values after that layer's attention has run: the prompt is read as before, no token
# > leaves, no byte is freed, and only the answer meets the zeros. A second file does shorten the sequence,
# > but waits for a cache length that a model of 32 layers never has. Core neurons are in an older
# > repository, CoreInfer, with one number of votes for all tokens.
#
# ## Remember
#
# 1. Tokens elect the core neurons and are then measured against them. That overlap grows with whatever a
#    token fires, and it cannot follow a question that comes later.
# 2. Before you trust "fires", ask what the sign means; before you trust an elbow, look at the other hump.
# 3. A zeroed key is not gone: its logit is 0, above most true ones. Drop it, or mask it.
#
# Two questions without answers here. If the question came *before* the picture, would core tokens hear it?
# And what would a core look like that is invariant to the sign, and still needs only one pass?
#
# Further reading: Wang et al., *CoreMatching*, arXiv:2505.19235; Wang et al., *CoreInfer*,
# arXiv:2410.18311; Chen et al., *An Image is Worth 1/2 Tokens After Layer 2* (FastV), arXiv:2403.06764.
