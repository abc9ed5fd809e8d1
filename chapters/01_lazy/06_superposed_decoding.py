# ---
# sparselab:
#   title: Superposed decoding
#   minutes: 60
# ---

# %% [markdown]
# An editor offers you three ways to go on with your sentence. **Must the model run three times?**
# Superposed decoding runs it once: it feeds the model one vector in which the last letters of all three
# drafts are mixed, and sorts out afterwards which answer belongs to whom.
#
# After this lesson you can
# - say what a network answers to a mixture of inputs, and measure for how many steps that lasts,
# - give each draft a voice of its own again, with counts of n-grams,
# - keep the books of several drafts that grow, die and have children,
# - judge "several drafts for the price of one" against the right rival: one batch.
#
# Guess first. Three texts in one batch, a row for each, take as many passes through the model as one text.
# How many times the time of superposed decoding do they take on a laptop?

# %%
my_guess = 3  # times

# %% tags=["hide-input"]
import inspect

import numpy as np
import torch
from jaxtyping import Float, Int
from torch.nn.functional import cosine_similarity

from sparselab.claims import stored, table
from sparselab.course import grade, hint
from sparselab.data import text
from sparselab.lazy.superposed_decoding import claim, fast, reference
from sparselab.lazy.superposed_decoding.reference import Grown
from sparselab.models import load
from sparselab.plots import (
    BLUE,
    FAINT,
    GREEN,
    GREY,
    INK,
    RED,
    curves,
    explore,
    figure,
    note,
    show,
)

torch.set_num_threads(1)  # the matrices are small: threads would wait for each other
model = claim.Bytes(load("lm_relu"))  # embeddings in, logits of the next byte out
E = model.embedding  # one row for each of 256 bytes


def predict(rows):
    """Log-probabilities of the next byte after each row of embeddings."""
    return model.logits(rows).log_softmax(-1)


# %% [markdown]
# ## Look first
#
# A small language model has read `The *chars* argument is not a`. Three drafts go on with three different
# letters: **s**, **c** and **n**. On the left is what the model expects after each of them, in three
# separate passes. On the right is its answer in one pass, where the last input is the plain mean of the
# three embeddings. Describe the right picture in a sentence before you read on.

# %%
prompt = torch.tensor(list(b"  The *chars* argument is not a "))
last = torch.tensor(list(b"scn"))
rows = E[torch.cat([prompt.expand(3, -1), last[:, None]], dim=1)]
own = predict(rows).exp()
blend = predict(rows.mean(0, keepdim=True))[0].exp()
print(f"after the blend, the favourite is {chr(blend.argmax())!r}")
print(f"favourites of the drafts: {[chr(p.argmax()) for p in own]}")


# %% tags=["hide-input"]
letters = list(b"aeioult")


def bars(ax, chance, color, title):
    ax.bar(range(len(letters)), chance[letters], color=color)
    ax.set(xticks=range(len(letters)), xticklabels=[chr(b) for b in letters])
    ax.set(ylim=(0, 0.75), yticks=[])
    ax.spines.left.set_visible(False)
    ax.set_title(title, fontsize=12, pad=4)


def three_and_one(columns):
    fig, axes = figure(rows=3, cols=columns, size=(2.9 * columns, 4.2))
    for ax, chance, letter in zip(axes[:, 0], own, "scn", strict=True):
        bars(ax, chance, GREY, f"after {letter}")
    for ax in axes[[0, 2], 1]:
        ax.set_axis_off()
    bars(axes[1, 1], blend, BLUE, "after the blend")
    return fig, axes


fig, axes = three_and_one(2)
fig.suptitle("The blend suits everyone a little", x=0.01, ha="left")
show(
    fig,
    alt="Chances of seven letters after s, c and n, and after the blend: the blend prefers a, "
    "which no draft prefers; t, which only s allows, is gone",
)

# %% [markdown]
# What a practised eye sees: **a** comes first after the blend and is nobody's favourite. **t** has
# vanished: "st" is common, but neither "ct" nor "nt" starts a word. A letter survives if *all* drafts can
# live with it.
#
# ## Say it exactly
#
# Of $k$ drafts, number $i$ ends in the token $\mathrm{last}_i$ and has the **score** $s_i$, the logarithm of
# its probability so far. The next input is one vector instead of $k$:
#
# $$x = \sum_{i=1}^{k} \gamma_i\, E[\mathrm{last}_i], \qquad
# \gamma = \mathrm{softmax}(s_1, \dots, s_k), \qquad E \in \mathbb{R}^{v \times d},\ x \in \mathbb{R}^d$$
#
# This is **superposition**. By hand: two drafts of probability 0.3 and 0.1 ending in tokens with embeddings
# $(4, 0)$ and $(0, 8)$. The weights are $3/4$ and $1/4$, so $x = (3, 2)$.


# %% exercise="superposed_decoding.superpose" difficulty=1 importance=5 minutes=6
def superpose(
    embedding: Float[np.ndarray, "v d"],
    last: Int[np.ndarray, " k"],
    scores: Float[np.ndarray, " k"],
) -> Float[np.ndarray, " d"]:
    """One input vector: embeddings of the last tokens, weighted by softmax(scores).

    A score of -inf counts for nothing. Scores of a long text may be near -2000, where
    np.exp gives 0. Scores log 0.3 and log 0.1, rows (4, 0) and (0, 8): (3, 2).
    ValueError for unknown tokens, another number of scores, or no finite score.
    """
    if len(last) != len(scores) or not (scores > -np.inf).any():
        raise ValueError(f"{len(last)} drafts and the scores {scores}")
    if not 0 <= last.min() <= last.max() < len(embedding):
        raise ValueError(f"tokens {last} leave the vocabulary of {len(embedding)}")
    raise NotImplementedError


# %%
grade("superposed_decoding.superpose", superpose)

# %% [markdown]
# `hint("superposed_decoding.superpose")` gives you a hint, and a further one each time you ask.
#
# ## What does a mixture of inputs predict?
#
# Take pencil and paper. Suppose the logits were affine in the last embedding, $f(e) = We + b$. What are the
# logits of the mixture $\sum_i \gamma_i e_i$? And what is their softmax, written with the drafts' own
# predictions $p_i = \mathrm{softmax}(f(e_i))$?
#
# Since the weights sum to 1, $f(\sum_i \gamma_i e_i) = \sum_i \gamma_i f(e_i)$. Logits are logarithms of
# probabilities up to a constant, and a weighted sum of logarithms is a product of powers:
#
# $$p(v) \propto \prod_{i=1}^{k} p_i(v)^{\gamma_i}$$
#
# the **geometric mean** of the drafts' predictions, and not the mixture $\sum_i \gamma_i p_i(v)$. With two
# drafts of equal weight, $p_1 = (0.64, 0.04, 0.32)$ and $p_2 = (0.04, 0.64, 0.32)$:
#
# | | token 0 | token 1 | token 2 |
# |---|---|---|---|
# | mixture | 0.34 | 0.34 | 0.32 |
# | geometric mean | 0.25 | 0.25 | 0.50 |
#
# The mixture would take a side. The geometric mean takes the compromise. The package's definition:

# %%
print(inspect.getsource(inspect.unwrap(reference.geometric_mean)))

# %% [markdown]
# Can $k$ drafts be overruled as two were? Build such drafts.


# %% exercise="superposed_decoding.compromise" difficulty=2 importance=3 minutes=8
def compromise(k: int, v: int) -> Float[np.ndarray, "k v"]:
    """Logarithms of the predictions of k drafts, of equal weight, over v > k tokens.

    Each draft has one favourite. The favourite of their geometric mean is no draft's
    favourite; the favourite of their mixture is. All chances are above 0.
    """
    raise NotImplementedError


# %%
grade("superposed_decoding.compromise", compromise)

# %% [markdown]
# A transformer is not affine. **Predict:** give it blends of two letters, from all **c** to all **n**. The
# mixture would carry the chance of **e** up along a straight line. Which sketch does the real model draw:
# (A) nearly that line; (B) a gentler curve, the geometric mean; (C) a switch, first one letter, then the
# other? (Bars: the model. Dashes: the mixture. Dots: the geometric mean.)

# %%
pair = rows[1:]  # the drafts that end in c and in n
shares = np.linspace(0, 1, 11)
weights = torch.tensor(np.stack([1 - shares, shares], axis=1)).float()
real = predict(torch.einsum("sk,ktd->std", weights, pair)).exp().numpy()
log_p = predict(pair)
geometric = torch.stack([w @ log_p for w in weights]).softmax(-1).numpy()
mixture = (weights @ log_p.exp()).numpy()
for name, way in dict(mixture=mixture, geometric=geometric, real=real).items():
    e = way[:, ord("e")]
    print(f"{name}: {e[3]:.2f} of e with 30 % n, {e[7]:.2f} with 70 % n")


# %% tags=["hide-input"]
def draw(percent_n=50):
    at = int(np.argmin(np.abs(100 * shares - percent_n)))
    fig, (left, right) = figure(size=(9, 3.5), cols=2)
    bars(left, real[at], BLUE, f"{100 - percent_n} % c, {percent_n} % n")
    left.plot(range(len(letters)), geometric[at][letters], "o", color=RED)
    left.plot(range(len(letters)), mixture[at][letters], "_", color=INK, ms=22, mew=2)
    right.set(xlabel="percent n", ylabel="chance of e", ylim=(0, 0.75), xlim=(0, 100))
    for way, color in ((mixture, INK), (geometric, RED), (real, BLUE)):
        right.plot(100 * shares, way[:, ord("e")], color=color)
    right.plot(percent_n, real[at, ord("e")], "o", color=BLUE, markersize=11)
    note(right, "the model", 69, 0.67, color=BLUE, dx=0, ha="center")
    note(right, "mixture", 34, 0.3, color=INK, dx=0, ha="center")
    note(right, "geometric mean", 99, 0.06, color=RED, dx=0, ha="right")
    return fig


explore(
    draw,
    alt="Chances after a blend of c and n: the model's chance of e stays near 0, then jumps "
    "past the middle, where the mixture would rise along a line",
    percent_n=range(0, 101, 10),
)

# %% [markdown]
# (C). Like a picture of two superposed figures, the blend is read as one or the other, and as both only near
# the middle. There the geometric mean is the better of two rough guides. Over many prompts, each with its
# three likeliest next bytes mixed in equal parts:

# %%
near_geometric, near_mixture = [], []
for start in claim.prompts("test", np.random.default_rng(0)):
    three = predict(E[start][None])[0].topk(3).indices
    rows3 = E[torch.cat([start.expand(3, -1), three[:, None]], dim=1)]
    each, got = predict(rows3), predict(rows3.mean(0, keepdim=True))[0]
    near_geometric.append(
        claim.divergence(fast.geometric_mean(each, torch.zeros(3)), got)
    )
    near_mixture.append(claim.divergence(each.exp().mean(0).log(), got))
print(f"divergence from the geometric mean: {np.mean(near_geometric):.1f} nats")
print(f"divergence from the mixture:        {np.mean(near_mixture):.1f} nats")

# %% [markdown]
# ## How long does it last?
#
# The blends stay in the text that the model has read, and they pile up. The paper follows the **cosine**
# between the last hidden state after the blends and the mean of the hidden states of separate runs: with
# Llama-2-7B it stays above 0.6 for ten tokens. Is 0.6 much? A number needs a rival. Here is a lazy one:
# **read one draft and ignore the others.**
#
# Three samples of ten bytes, mixed in equal parts at every step. **Predict:** after ten steps, which is
# nearer to the mean of the three, the blend or one draft alone?

# %%
rng = np.random.default_rng(0)
blended, alone = [], []
for start in claim.prompts("test", rng):
    draws = torch.from_numpy(rng.random((10, 3))).float()
    drafts = claim.nucleus(model, start, draws, batch=True)
    streams = E[torch.cat([start.expand(3, -1), drafts], dim=1)]
    separate = model.at(streams, "blocks.5.residual")[:, -10:]
    together = model.at(streams.mean(0, keepdim=True), "blocks.5.residual")[0, -10:]
    blended.append(cosine_similarity(together, separate.mean(0), dim=-1))
    alone.append(cosine_similarity(separate, separate.mean(0), dim=-1).mean(0))
blended, alone = torch.stack(blended).numpy(), torch.stack(alone).numpy()
for step in (1, 2, 10):
    one, other = blended[:, step - 1].mean(), alone[:, step - 1].mean()
    print(f"step {step}: blend {one:.2f}, one draft alone {other:.2f}")

# %% tags=["hide-input"]
fig, ax = figure(
    "Past the first steps, one draft alone is as near",
    alt="Cosine to the mean hidden state of three drafts, by step: the blend falls below "
    "the curve of one draft that ignores the others",
    size=(7.6, 3.6),
)
ax.set(xlabel="step", ylabel="cosine to the mean", ylim=(0, 1.02), xlim=(1, 10))
lines = {"three, blended": blended.mean(0), "one draft alone": alone.mean(0)}
curves(ax, range(1, 11), lines, colors=dict(zip(lines, (BLUE, GREY), strict=True)))
show(fig)

# %% [markdown]
# Three vectors at right angles have a cosine of $1/\sqrt{3} = 0.58$ with their mean. A figure of 0.6 alone
# shows little. A byte is also a smaller step than a word piece, so do not carry these counts over to Llama;
# carry over the question.
#
# ## A voice of its own
#
# The blend gives one distribution, and it cannot know which draft it serves. So each draft asks a second,
# cheap witness: how often did *its own* last tokens go on with this one, in the training text? **N-grams**
# of orders 2 to 6 are mixed with fixed weights $\lambda_n$:
#
# $$p_{\mathrm{ng}}(v) = \sum_{n=2}^{6} \lambda_n\,
# \frac{\mathrm{count}(\text{last } n-1 \text{ tokens},\ v)}
# {\mathrm{count}(\text{last } n-1 \text{ tokens},\ \text{anything})}$$
#
# By hand, training text `abcabd`, a draft that ends in `ab`. Order 2: after `b` came `c` once and `d` once.
# Order 3: after `ab`, the same. With $\lambda = (0.1, 0.4)$, `c` and `d` get $0.1/2 + 0.4/2 = 0.25$ each. An
# unseen context adds nothing, and the weights need not sum to 1.
#
# Why several orders? **Predict:** how does the share of contexts that the training text knows fall from
# order 2 to 6, and how does the chance of the true next byte change where the context is known?

# %%
train, held_out = (text.pydocs(part) for part in ("train", "held_out"))
grams = fast.count(torch.from_numpy(train).long(), vocab=256)
places = text.windows(held_out, length=6, n=1000, rng=np.random.default_rng(0))
context, true = torch.from_numpy(places[:, :5]).long(), places[:, 5]
every = torch.arange(256)
for n, unit in enumerate(torch.eye(5), start=2):
    chance = fast.ngram(grams, context, every, unit, vocab=256).numpy()
    known = chance.sum(axis=1) > 0
    right = chance[known, true[known]].mean()
    print(f"order {n}: knows {100 * known.mean():.0f} %, gives the truth {right:.2f}")
print(f"{len(grams.key):,} n-grams, {16 * len(grams.key) / 2**20:.1f} MiB of tables")

# %% [markdown]
# Short contexts are always known and say little; long ones say more and are known less often. (The paper's
# tables, from 200 million tokens, take 14 GB: as much as the model they assist.)
#
# Model and n-grams meet in a geometric mean again, this time left unnormalised, so that drafts can be
# compared with each other:
#
# $$\log p_f(v) = (1 - \alpha) \log p(v) + \alpha \log p_{\mathrm{ng}}(v)$$
#
# Three cases need care. A token that the draft's n-grams have never seen there is impossible: $-\infty$. A
# draft for which this holds for *every* listed token would die, so it keeps $(1 - \alpha) \log p$ and pays a
# **penalty**, once. And $\alpha = 0$ switches the n-grams off altogether.


# %% exercise="superposed_decoding.interpolate" difficulty=3 importance=5 minutes=12
def interpolate(
    log_p: Float[np.ndarray, " c"],
    p_ngram: Float[np.ndarray, "k c"],
    *,
    alpha: float,
    penalty: float = 200.0,
) -> Float[np.ndarray, "k c"]:
    """log p_f of each of c tokens after each of k drafts.

    p = (1/2, 1/4), p_ngram = ((1/8, 0), (0, 0)), alpha = 1/2, penalty 3. Draft 0:
    log sqrt(1/16) = log 1/4, and -inf. Draft 1 has no support: (log 1/2) / 2 - 3 and
    (log 1/4) / 2 - 3. Where log_p is -inf the answer is, too. No NaN, no warning.
    ValueError for alpha outside [0, 1], a negative penalty, or another number of tokens.
    """
    if not 0 <= alpha <= 1 or penalty < 0 or p_ngram.shape[1] != len(log_p):
        raise ValueError(f"{alpha=}, {penalty=}, {p_ngram.shape} for {len(log_p)}")
    raise NotImplementedError


# %%
grade("superposed_decoding.interpolate", interpolate)

# %% [markdown]
# Back to the three drafts. One shared answer goes in, three different ones come out:

# %%
drafts = torch.cat([prompt.expand(3, -1), last[:, None]], dim=1)
likely = fast.shortlist(blend.log(), keep=9)
heard = fast.ngram(grams, drafts, likely.token_idx, claim.WEIGHTS, vocab=256)
log_f = interpolate(likely.log_p.numpy(), heard.numpy(), alpha=0.54)
voices = np.zeros((3, 256))
voices[:, likely.token_idx] = np.exp(log_f - log_f.max(1, keepdims=True))
voices /= voices.sum(1, keepdims=True)
print(f"favourites now: {[chr(p.argmax()) for p in voices]}")
for name, answer in {"the blend": blend.numpy(), "with n-grams": voices}.items():
    shared = np.minimum(own.numpy(), answer).sum(1)  # 1 where two distributions agree
    print(f"overlap with the drafts' own predictions, {name}: {shared.round(2)}")

# %% tags=["hide-input"]
fig, axes = three_and_one(3)
for ax, chance, letter in zip(axes[:, 2], voices, "scn", strict=True):
    bars(ax, chance, GREEN, f"{letter}, with n-grams")
fig.suptitle("The n-grams give each draft its own answer", x=0.01, ha="left")
show(
    fig,
    alt="Left the true predictions after s, c and n, in the middle the shared one of the "
    "blend, right the shared one weighed with each draft's n-grams: it differs by draft "
    "and comes nearer to the truth on the left",
)

# %% [markdown]
# The right column needs no second pass, only look-ups of $3 \times 9$ pairs. But it can only weigh what the
# blend has put on the list of the nine likeliest tokens.
#
# ## Keep the books
#
# Each draft can go on with each listed token: a table of $k \times c$ scores
# $s_i + \log p_f[i, v]$. The best pairs of the *whole* table are the new drafts. A good draft may have
# several children and a bad one none. A child carries the text of its **parent**.
#
# Some pairs end with the token `eos` and are finished. So that enough others are left, look at the best
# $2k$ pairs: the finished among them are set aside, and of the rest the first $k$ go on.


# %% exercise="superposed_decoding.grow" difficulty=3 importance=5 minutes=15
def grow(
    drafts: Int[np.ndarray, "k s"],
    scores: Float[np.ndarray, " k"],
    tokens: Int[np.ndarray, " c"],
    log_p: Float[np.ndarray, "k c"],
    *,
    keep: int,
    eos: int | None = None,
) -> Grown:
    """Grown(tokens, scores, ended, ended_scores): the best pairs, best first.

    Drafts (5, 6) with scores (-1, -2), one token each, tokens (8, 9), log_p
    ((-1, -4), (-1, -2)), keep 2: totals ((-2, -5), (-3, -4)), so tokens ((5, 8), (6, 8))
    with scores (-2, -3); nothing has ended. Of equals the lower draft, then the earlier
    token. Pairs of score -inf are dropped, so fewer may be left. ValueError for keep
    below 1 and for shapes that do not fit.
    """
    if keep < 1 or log_p.shape != (len(drafts), len(tokens)):
        raise ValueError(f"{keep=}, {log_p.shape} for {len(drafts)}, {len(tokens)}")
    if len(scores) != len(drafts):
        raise ValueError(f"{len(scores)} scores for {len(drafts)} drafts")
    raise NotImplementedError


# %%
grade("superposed_decoding.grow", grow)

# %% [markdown]
# ## Put it together
#
# Your three functions and one pass per byte. Two settings are left: the **temperature**, by which the
# logits are divided before the list is made, and $\alpha$. The released ones are 0.06 and 0.54.

# %%
E64, lam = E.double().numpy(), claim.WEIGHTS.double().numpy()
counts = reference.NGrams(*(a.numpy() for a in grams))


def write(prompt, *, alpha, temperature, steps=10):
    stream, drafts, scores = E64[prompt], prompt[None], np.zeros(1)
    for step in range(steps):
        if step:
            x = superpose(E64, drafts[:, -1], scores)
            stream = np.concatenate([stream, x[None]])
        logits = model.logits(torch.from_numpy(stream[None]).float())[0].double()
        short = reference.shortlist(logits.numpy(), keep=9, temperature=temperature)
        heard = reference.ngram(counts, drafts, short.token_idx, lam, vocab=256)
        log_f = interpolate(short.log_p, heard, alpha=alpha if step else 0.0)
        new = grow(drafts, scores, short.token_idx, log_f, keep=3)
        drafts, scores = new.tokens, new.scores
    return drafts[:, len(prompt) :], scores


settings = {"released": claim.RELEASED, "softer": claim.MIX}
for name, setting in settings.items():
    alpha, temperature = setting["alpha"], setting["temperature"]
    mine, scores = write(prompt.numpy(), alpha=alpha, temperature=temperature)
    theirs = claim.superposed(model, prompt, grams, **setting)
    print(f"{name}: alpha {alpha}, temperature {temperature}")
    for draft in mine:
        print("   ", repr(bytes(draft.astype(np.uint8)).decode(errors="replace")))
    print("    the torch path agrees:", bool((torch.from_numpy(mine) == theirs).all()))

# %% [markdown]
# ## Whom does the model hear?
#
# The weights $\gamma$ say how much of each draft is in the blend. Their **effective number** is
# $\exp(-\sum_i \gamma_i \log \gamma_i)$: 3 for three equal weights, 1 if one has everything. **Predict** it
# for both settings, on average.

# %%
some = claim.prompts("test", np.random.default_rng(0))[:20]
for name, setting in settings.items():
    kept = [s for p in some for _, _, s in claim.follow(model, p, grams, **setting)]
    print(f"{name}: {np.mean([claim.effective_number(s) for s in kept]):.1f} of 3")

# %% [markdown]
# At the released temperature the logits are multiplied by 17, the scores run apart, and the blend is the
# best draft with a trace of the others. The model then reads that draft nearly undisturbed, and the other
# two are carried along by their n-grams. A blend that really holds three drafts is one that the model, as
# you saw, does not read well.
#
# ## How good are the drafts?
#
# The measure is the mean log-probability per byte that the model gives to a draft when it reads it alone
# afterwards (higher is better). It rewards dull texts, so compare like with like: the best of three with
# the best of three. **Order them** before you run: greedy decoding (always the likeliest byte; one text),
# beam search (three rows), nucleus sampling (three rows; draws from the likeliest bytes that hold 90 %),
# superposed decoding with both settings and without n-grams, and the n-grams without any model.

# %%
rng = np.random.default_rng(1)
WAYS = {
    "greedy": lambda p: claim.superposed(model, p, grams, drafts=1, keep=1, alpha=0.0),
    "beam search": lambda p: claim.beam(model, p),
    "nucleus": lambda p: claim.nucleus(
        model, p, torch.from_numpy(rng.random((10, 3))).float(), batch=True
    ),
    "superposed, released": lambda p: claim.superposed(
        model, p, grams, **claim.RELEASED
    ),
    "superposed, softer": lambda p: claim.superposed(model, p, grams),
    "softer, no n-grams": lambda p: claim.superposed(model, p, grams, alpha=0.0),
    "n-grams, no model": lambda p: claim.table_alone(p, grams),
}
texts, best, mean = {}, {}, {}
for name, way in WAYS.items():
    texts[name] = [way(p) for p in some]
    pairs = zip(some, texts[name], strict=True)
    quality = [claim.log_probability(model, p, drafts) for p, drafts in pairs]
    best[name] = float(torch.stack([q.max() for q in quality]).mean())
    mean[name] = float(torch.stack([q.mean() for q in quality]).mean())
    print(f"{name:21} best {best[name]:.2f}, mean {mean[name]:.2f}")
pairs = zip(texts["superposed, released"], texts["greedy"], strict=True)
same = sum(bool((three == one).all(1).any()) for three, one in pairs)
print(f"greedy's text is one of the released drafts: {same} of {len(some)} times")

# %% tags=["hide-input"]
fig, ax = figure(
    "As released: greedy's best, the n-grams' mean",
    alt="Best and mean log-probability per byte of seven ways to write: beam search leads in "
    "both, the released setting is near greedy in the best and near the n-grams alone in the "
    "mean",
    size=(8, 4.2),
)
for place, name in enumerate(reversed(WAYS)):
    color = BLUE if "superposed" in name or "softer" in name else GREY
    ax.plot([mean[name], best[name]], [place, place], color=FAINT, linewidth=4)
    ax.plot(mean[name], place, "o", color=color, mfc="white", markersize=9)
    ax.plot(best[name], place, "o", color=color, markersize=9)
ax.set(yticks=range(len(WAYS)), yticklabels=list(reversed(WAYS)))
ax.set(xlabel="log-probability per byte, nats: mean of three (open), best (filled)")
show(fig)

# %% [markdown]
# The best released draft beats the best sample, as in the paper; but greedy decoding, one row and the same
# ten passes, does that too, and mostly with the same text. The mean released draft is worse than the mean
# sample, and hardly better than what the n-grams write without any model: a table that remembers five bytes
# carries drafts 2 and 3.
#
# **Play.** Best and mean want opposite settings. Move $\alpha$, at the released temperature, and follow the
# two points and the drafts of our sentence (with their log-probability per byte).

# %%
tuning = claim.prompts("tune", np.random.default_rng(0))[:16]
alphas = [0.0, 0.2, 0.4, 0.54, 0.7, 0.9]
written, found = {}, {}
for alpha in alphas:
    quality = []
    for start in [*tuning, prompt]:
        setting = claim.RELEASED | dict(alpha=alpha)
        drafts = claim.superposed(model, start, grams, **setting)
        quality.append(claim.log_probability(model, start, drafts))
    written[alpha] = drafts, quality.pop()
    per_draft = torch.stack(quality)  # a row for each prompt
    found[alpha] = float(per_draft.amax(1).mean()), float(per_draft.mean())
for alpha in (0.0, 0.54, 0.9):
    print(f"alpha {alpha}: best {found[alpha][0]:.2f}, mean {found[alpha][1]:.2f}")


# %% tags=["hide-input"]
def tune(alpha=0.54):
    fig, (left, right) = figure(size=(9, 3.4), cols=2)
    for which, name, color in ((0, "best of three", BLUE), (1, "mean of three", RED)):
        left.plot(alphas, [found[a][which] for a in alphas], color=color)
        at = found[alpha][which]
        left.plot(alpha, at, "o", color=color, markersize=11)
        note(left, f"{name}: {at:.2f}", 0, (-0.33, -1.35)[which], dx=0, color=color)
    left.set(xlabel="alpha", ylabel="nats per byte", ylim=(-1.5, -0.2))
    right.set_axis_off()
    right.set_title("The *chars* argument is not a ...", fontsize=12)
    for place, (draft, q) in enumerate(zip(*written[alpha], strict=True)):
        words = bytes(draft.tolist()).decode(errors="replace").replace("\n", "↵")
        line = f"{words.replace(' ', '·'):10}  {q:.2f}"
        right.text(0, 0.8 - 0.25 * place, line, family="monospace", fontsize=16)
    return fig


explore(
    tune,
    alt="Best and mean log-probability against alpha, beside three drafts: up to 0.7 the mean "
    "rises with alpha, while the best sinks",
    alpha=alphas,
)

# %% [markdown]
# The best of three needs no n-grams: it is, most of the time, greedy's text. The others need them. No
# setting serves both, so say with every figure which of the two it is.
#
# ## What does it cost?
#
# The claim "three drafts for the price of one" counts **passes**. The rivals: three samples one after the
# other, and the same three samples as three rows of a batch. Think of a model with a cache, which computes
# one new place per row and pass. **Predict** for the batch, as a multiple of superposed decoding: passes,
# bytes of weights read, multiplications.

# %%
parameters = sum(p.numel() for p in model.lm.parameters())
mib = parameters * 4 / 2**20
costs = {"superposed": (10, 1), "one by one": (30, 1), "one batch": (10, 3)}
print("               passes  rows  weights read  multiplications")
for name, (passes, count) in costs.items():
    read, times = passes * mib, passes * count * parameters / 1e6
    print(f"{name:14} {passes:6} {count:5} {read:9.0f} MiB {times:14.0f} M")
measured = stored("superposed_decoding")["metrics"]
sequential, batched = (np.median(measured[m]) for m in ("speedup", "batched_speedup"))
print(f"time, measured: one by one {sequential:.1f}, one batch {batched:.1f}")

# %% tags=["hide-input"]
fig, axes = figure(size=(9.4, 3.0), cols=4)
panels = {
    "passes": (1, 3, 1),
    "weights read": (1, 3, 1),
    "multiplications": (1, 3, 3),
    "time, measured": (1, sequential, batched),
}
for ax, (title, heights) in zip(axes, panels.items(), strict=True):
    ax.bar(range(3), heights, color=(BLUE, FAINT, GREY))
    for place, height in enumerate(heights):
        ax.text(place, height + 0.06, f"{height:.2g}", ha="center", weight="bold")
    ax.set_title(title, fontsize=12)
    ax.set(ylim=(0, max(3.4, my_guess + 0.4)), yticks=[], xticks=range(3))
    ax.set_xticklabels(["super-\nposed", "one by\none", "one\nbatch"], fontsize=9)
    ax.spines.left.set_visible(False)
axes[3].axhline(my_guess, color=INK, linestyle=":", linewidth=1.5)
show(
    fig,
    alt="Passes, bytes of weights, multiplications and measured time of three samples one by "
    "one and in one batch, relative to superposed decoding: only in multiplications is the "
    "batch three times as dear",
)

# %% [markdown]
# The dotted line is your guess. Where decoding waits for memory, weights are what it waits for, and one
# batch reads them as often as superposed decoding does. What superposition really saves is multiplications
# and room: keys and values of new tokens are stored for one stream instead of three. The paper times its
# rivals one after the other, at batch size 1; that is where its factor of 2.44 comes from. (Our times are
# without a cache: each pass computes the whole text again, for all ways alike.)
#
# In torch a step is one forward pass and a few operations on $3 \times 9$ numbers; the n-grams of all pairs
# are found by one `torch.searchsorted` per order in a sorted table of integers. There is no kernel to
# write: the pass is the model's own.
#
# ## Is the paper right, here?
#
# `sparselab claim superposed_decoding` measures it again on your machine.

# %%
print(table("superposed_decoding"))

# %% [markdown]
# What holds: a third of the passes; a best of three above nucleus's; n-grams that carry drafts 2 and 3; an
# answer nearer to the geometric mean than to the mixture. What does not, at this size: the speed against a
# batch; a mean draft above nucleus's, even when tuned for it; a best of three above greedy decoding; three
# drafts that share the blend, or that differ in more than a few bytes. And a row that holds can say little:
# the cosine of 0.92 is what reading the best draft alone gives as well. The paper works with word pieces,
# Llama-2-7B and n-grams of 200 million tokens; none of that was tried here.
#
# > **What the released code does.** It keeps the $3k$ likeliest tokens and renormalises over them, where the
# > paper's pseudo-code says $k$. It mixes embeddings as a half-precision weight vector over the whole
# > vocabulary times $E$, where small weights become zero. With fewer possible pairs than wanted it fills up
# > with dead drafts of score $-\infty$. A draft that ends early never returns: its ranking computes
# > $0 \cdot \infty$, which is NaN and sorts last. $\alpha = 0$ gives $0 \cdot (-\infty)$, NaN again, and an
# > error. And it adds the maximum before a softmax instead of subtracting it; softmax does not care, until
# > it overflows.
#
# ## Remember
#
# 1. A mixture of inputs gives, at best, the geometric mean of the predictions: what all drafts accept. It
#    cannot say which draft it serves; n-grams must.
# 2. A score belongs to a pair of parent and token; rank all pairs together, and copy the parent's text.
# 3. Judge a count of passes against one batch, a cosine against one draft alone, and a best of three against
#    greedy decoding.
#
# Two questions without answers here. Could a model be *trained* to read blends as mixtures? And if the
# scores are only used to rank, which other weights $\gamma$ would let the model hear all three drafts?
#
# Further reading: Shen et al., *Superposed Decoding*, arXiv:2405.18400; Holtzman et al., *The Curious Case
# of Neural Text Degeneration* (nucleus sampling), arXiv:1904.09751; Khandelwal et al., *Generalization
# through Memorization* (another cheap witness), arXiv:1911.00172.
