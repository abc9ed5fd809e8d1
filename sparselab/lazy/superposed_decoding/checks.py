"""Superposed Decoding's cases, facts, mistakes and hints."""

from collections import Counter

import numpy as np

from sparselab.judge import numpy as in_numpy
from sparselab.judge import same
from sparselab.lazy.superposed_decoding import reference
from sparselab.lazy.superposed_decoding.reference import NGrams

WEIGHTS = np.array([0.01, 0.04, 0.15, 0.18, 0.12])


def cases(rng):
    E, last = rng.normal(size=(7, 4)), np.array([2, 6, 0])
    scores = np.log([0.2, 0.05, 0.1])
    yield "superpose", "three drafts", dict(embedding=E, last=last, scores=scores)
    yield (
        "superpose",
        "two share their last token",
        dict(embedding=E, last=np.array([2, 6, 2]), scores=scores),
    )
    yield "superpose", "all share it", dict(embedding=E, last=np.array([5, 5, 5]), scores=scores)
    yield "superpose", "equal scores", dict(embedding=E, last=last, scores=np.full(3, -4.0))
    yield "superpose", "a dead draft", dict(embedding=E, last=last, scores=np.array([-1, -np.inf, -2]))
    yield "superpose", "scores of a long text", dict(embedding=E, last=last, scores=scores - 2000)
    yield "superpose", "one draft", dict(embedding=E, last=last[:1], scores=scores[:1])
    yield (
        "superpose",
        "as many drafts as tokens",
        dict(embedding=E[:3], last=np.array([2, 1, 0]), scores=scores),
    )
    yield "superpose", "all dead", dict(embedding=E, last=last, scores=np.full(3, -np.inf))
    yield "superpose", "a token too high", dict(embedding=E, last=last + 1, scores=scores)
    yield "superpose", "the padding token", dict(embedding=E, last=last - 1, scores=scores)
    yield "superpose", "a score for all", dict(embedding=E, last=last, scores=scores[:1])

    log_p = rng.normal(size=(3, 6)) * 2
    yield "geometric_mean", "three drafts", dict(log_p=log_p, scores=scores)
    yield "geometric_mean", "equal scores", dict(log_p=log_p, scores=np.zeros(3))
    yield "geometric_mean", "one draft", dict(log_p=log_p[:1], scores=scores[:1])
    yield "geometric_mean", "the same distribution", dict(log_p=log_p[[0, 0]], scores=scores[:2])
    yield (
        "geometric_mean",
        "impossible for one, so for all",
        dict(log_p=np.where(np.arange(18).reshape(3, 6) == 8, -np.inf, log_p), scores=scores),
    )
    yield "geometric_mean", "as many drafts as tokens", dict(log_p=log_p[:, :3], scores=scores)
    yield "geometric_mean", "scores of a long text", dict(log_p=log_p, scores=scores - 2000)
    yield "geometric_mean", "a dead draft", dict(log_p=log_p, scores=np.array([-1, -np.inf, -2]))
    yield "geometric_mean", "logits in the thousands", dict(log_p=1000 * log_p, scores=scores)
    yield "geometric_mean", "a score for all", dict(log_p=log_p, scores=scores[:1])
    yield "geometric_mean", "all dead", dict(log_p=log_p, scores=np.full(3, -np.inf))

    for k, v in ((2, 3), (2, 256), (3, 4), (3, 10), (5, 6), (8, 20)):
        yield "compromise", f"{k} drafts, {v} tokens", dict(k=k, v=v)

    logits = rng.normal(size=9) * 3
    yield "shortlist", "4 of 9", dict(logits=logits, keep=4)
    yield "shortlist", "sharp", dict(logits=logits, keep=4, temperature=0.06)
    yield "shortlist", "flat", dict(logits=logits, keep=5, temperature=3.0)
    yield "shortlist", "all tied", dict(logits=np.zeros(6), keep=4)
    yield "shortlist", "all kept", dict(logits=logits, keep=9)
    yield "shortlist", "greedy", dict(logits=logits, keep=1)
    yield "shortlist", "logits in the thousands", dict(logits=1000 * logits, keep=3)
    yield "shortlist", "none kept", dict(logits=logits, keep=0)
    yield "shortlist", "more than the vocabulary", dict(logits=logits, keep=10)
    yield "shortlist", "temperature 0", dict(logits=logits, keep=3, temperature=0.0)

    corpus = rng.integers(0, 5, size=400)
    yield "count", "to order 6", dict(corpus=corpus, vocab=5)
    yield "count", "pairs only", dict(corpus=corpus, vocab=5, orders=2)
    yield "count", "tokens 0 are counted, too", dict(corpus=np.zeros(9, int), vocab=3, orders=4)
    yield "count", "bytes", dict(corpus=rng.integers(0, 256, size=60), vocab=256)
    yield "count", "a corpus shorter than the order", dict(corpus=corpus[:4], vocab=5)
    yield "count", "one token has no n-gram", dict(corpus=corpus[:1], vocab=5)
    yield "count", "an empty corpus", dict(corpus=corpus[:0], vocab=5)
    yield "count", "an unknown token", dict(corpus=corpus, vocab=4)
    yield "count", "single tokens", dict(corpus=corpus, vocab=5, orders=1)
    yield "count", "keys beyond 63 bits", dict(corpus=corpus, vocab=32000)

    grams = reference.count(corpus, vocab=5)
    few = reference.count(corpus[:30], vocab=5)
    seen, tokens = np.stack([corpus[10:17], corpus[50:57], corpus[5:12]]), np.array([3, 0, 4])
    strange = np.stack([np.arange(7) % 5, np.full(7, 4)])
    settings = dict(tokens=tokens, weights=WEIGHTS, vocab=5)
    yield "ngram", "orders 2 to 6", dict(grams=grams, context=seen, **settings)
    yield "ngram", "all tokens", dict(grams=grams, context=seen, **settings | dict(tokens=np.arange(5)))
    yield "ngram", "few counts, unseen contexts", dict(grams=few, context=strange, **settings)
    yield "ngram", "orders 2 and 3", dict(grams=grams, context=seen, **settings | dict(weights=WEIGHTS[:2]))
    yield "ngram", "drafts of two tokens", dict(grams=grams, context=seen[:, :2], **settings)
    yield "ngram", "drafts of five tokens", dict(grams=grams, context=seen[:, :5], **settings)
    yield "ngram", "drafts of no token", dict(grams=grams, context=seen[:, :0], **settings)
    yield (
        "ngram",
        "one draft, one token",
        dict(grams=grams, context=seen[:1], **settings | dict(tokens=tokens[:1])),
    )
    yield (
        "ngram",
        "weights that sum to 2",
        dict(grams=grams, context=seen, **settings | dict(weights=4 * WEIGHTS)),
    )
    yield "ngram", "an empty table", dict(grams=NGrams(tokens[:0], tokens[:0]), context=seen, **settings)
    yield "ngram", "an unknown context", dict(grams=grams, context=seen + 3, **settings)
    yield "ngram", "an unknown token", dict(grams=grams, context=seen, **settings | dict(tokens=tokens + 1))
    yield "ngram", "a token below 0", dict(grams=grams, context=seen, **settings | dict(tokens=tokens - 1))

    log_p = np.log(np.array([0.5, 0.3, 0.15, 0.05]))
    own = np.array([[0.2, 0.0, 0.1, 0.01], [0.0, 0.3, 0.3, 0.3], [0.0, 0.0, 0.0, 0.0]])
    certain = np.array([0.0, -1.0, -np.inf, -np.inf])
    yield "interpolate", "a draft without support", dict(log_p=log_p, p_ngram=own, alpha=0.54)
    yield "interpolate", "all supported", dict(log_p=log_p, p_ngram=own + 0.1, alpha=0.3)
    yield (
        "interpolate",
        "all tied",
        dict(log_p=np.log(np.full(4, 0.25)), p_ngram=np.full((2, 4), 0.1), alpha=0.5),
    )
    yield "interpolate", "none supported", dict(log_p=log_p, p_ngram=0 * own, alpha=0.54)
    yield "interpolate", "n-grams off", dict(log_p=log_p, p_ngram=own, alpha=0.0)
    yield "interpolate", "n-grams alone", dict(log_p=certain, p_ngram=own, alpha=1.0)
    yield "interpolate", "a chance of zero from the model", dict(log_p=certain, p_ngram=own, alpha=0.54)
    yield "interpolate", "a small penalty", dict(log_p=log_p, p_ngram=own, alpha=0.54, penalty=1.5)
    yield "interpolate", "no penalty", dict(log_p=log_p, p_ngram=own, alpha=0.2, penalty=0.0)
    yield "interpolate", "one draft", dict(log_p=log_p, p_ngram=own[1:2], alpha=0.5)
    yield "interpolate", "one token", dict(log_p=log_p[:1], p_ngram=own[:, :1], alpha=0.5)
    yield "interpolate", "as many drafts as tokens", dict(log_p=log_p[:3], p_ngram=own[:, :3], alpha=0.5)
    yield "interpolate", "alpha above 1", dict(log_p=log_p, p_ngram=own, alpha=1.2)
    yield "interpolate", "alpha below 0", dict(log_p=log_p, p_ngram=own, alpha=-0.2)
    yield "interpolate", "a bonus", dict(log_p=log_p, p_ngram=own, alpha=0.5, penalty=-1.0)
    yield "interpolate", "other tokens", dict(log_p=log_p[:3], p_ngram=own, alpha=0.5)
    yield "interpolate", "one n-gram chance for all", dict(log_p=log_p, p_ngram=own[:, :1], alpha=0.5)

    drafts, tokens = np.array([[1, 4], [1, 2], [3, 0]]), np.array([7, 2, 9, 5])
    scores, log_p = np.array([-0.5, -0.7, -3.0]), -rng.exponential(size=(3, 4))
    sparse = np.where(np.arange(12).reshape(3, 4) % 5 == 1, log_p, -np.inf)
    beam = dict(drafts=drafts, scores=scores, tokens=tokens, log_p=log_p)
    yield "grow", "2 of 12", dict(**beam, keep=2)
    yield "grow", "3 of 12", dict(**beam, keep=3)
    yield "grow", "3, some end", dict(**beam, keep=3, eos=2)
    yield (
        "grow",
        "2, the favourite ends",
        dict(**beam | dict(log_p=log_p * np.array([0.01, 1, 1, 1])), keep=2, eos=7),
    )
    yield (
        "grow",
        "the only token ends",
        dict(drafts=drafts, scores=scores, tokens=tokens[:1], log_p=log_p[:, :1], keep=2, eos=7),
    )
    yield "grow", "rows that agree", dict(**beam | dict(log_p=np.tile(log_p[:1], (3, 1))), keep=3)
    yield "grow", "fewer possible than wanted", dict(**beam | dict(log_p=sparse), keep=4)
    yield "grow", "as many as there are", dict(**beam, keep=12)
    yield (
        "grow",
        "all tied",
        dict(**beam | dict(scores=np.zeros(3), log_p=np.full((3, 4), -1.0)), keep=5, eos=9),
    )
    yield (
        "grow",
        "the first step: one draft",
        dict(drafts=drafts[:1], scores=scores[:1], tokens=tokens, log_p=log_p[:1], keep=3),
    )
    yield "grow", "from an empty text", dict(**beam | dict(drafts=drafts[:, :0]), keep=1)
    yield "grow", "keep none", dict(**beam, keep=0)
    yield "grow", "log_p for other tokens", dict(**beam | dict(log_p=log_p[:, :3]), keep=2)
    yield "grow", "one row for all", dict(**beam | dict(log_p=log_p[:1]), keep=2)
    yield "grow", "one score for all", dict(**beam | dict(scores=scores[:1]), keep=2)

    yield from decoding(rng, corpus, grams)

    logits = rng.normal(size=(6, 5)) * 1.5
    draws = np.array([0.0, 0.2, 0.5, 0.8, 0.95, 0.999])
    steps = np.log(np.array([[0.5, 0.25, 0.125, 0.125]]))
    yield "nucleus", "p = 0.9", dict(logits=logits, draws=draws)
    yield "nucleus", "p = 0.5", dict(logits=logits, draws=draws, p=0.5)
    yield "nucleus", "the whole distribution", dict(logits=logits, draws=draws, p=1.0)
    yield "nucleus", "flat", dict(logits=logits, draws=draws, temperature=4.0)
    yield "nucleus", "sharp", dict(logits=logits, draws=draws, temperature=0.2)
    yield "nucleus", "almost greedy", dict(logits=logits, draws=draws, p=1e-9)
    yield "nucleus", "all tied", dict(logits=np.zeros((6, 5)), draws=draws, p=0.55)
    yield "nucleus", "a nucleus that just fits", dict(logits=np.tile(steps, (6, 1)), draws=draws, p=0.74)
    yield (
        "nucleus",
        "impossible tokens",
        dict(logits=np.where(logits > 0, logits, -np.inf) + 0 * logits[:, :1], draws=draws, p=1.0),
    )
    yield (
        "nucleus",
        "draws and masses on the edge",
        dict(logits=np.zeros((6, 4)), draws=np.arange(6) / 5, p=0.5),
    )
    yield "nucleus", "a draw of one half", dict(logits=np.zeros((6, 4)), draws=np.full(6, 0.5), p=0.5)
    yield "nucleus", "logits in the thousands", dict(logits=1000 * logits, draws=draws)
    yield "nucleus", "logits near a thousand", dict(logits=logits + 1000, draws=draws)
    yield "nucleus", "a draw above 1", dict(logits=logits, draws=1.5 * draws)
    yield "nucleus", "a draw below 0", dict(logits=logits, draws=draws - 0.1)
    yield "nucleus", "one row", dict(logits=logits[:1], draws=draws[3:4])
    yield "nucleus", "a vocabulary of one", dict(logits=logits[:, :1], draws=draws)
    yield "nucleus", "no row", dict(logits=logits[:0], draws=draws[:0])
    yield "nucleus", "p = 0", dict(logits=logits, draws=draws, p=0.0)
    yield "nucleus", "p above 1", dict(logits=logits, draws=draws, p=1.1)
    yield "nucleus", "temperature 0", dict(logits=logits, draws=draws, temperature=0.0)
    yield "nucleus", "one draw for all", dict(logits=logits, draws=draws[:1])


def decoding(rng, corpus, grams):
    """Cases of the two loops, on a model with logits affine in the last embedding and the mean of all."""
    E, model = rng.normal(size=(5, 6)), toy(rng.normal(size=(6, 5)), rng.normal(size=(6, 5)))
    prompt, empty = corpus[:7], NGrams(corpus[:0], corpus[:0])
    given = dict(logits=model, embedding=E, prompt=prompt, grams=grams, weights=WEIGHTS)
    mild = dict(context=32, keep=4, temperature=0.8)
    yield "decode", "3 drafts, 6 tokens", dict(**given, **mild, steps=6)
    yield "decode", "as released", dict(**given, context=32, keep=5)
    yield "decode", "2 drafts without n-grams", dict(**given, **mild, steps=6, drafts=2, alpha=0.0)
    yield "decode", "greedy", dict(**given, **mild, steps=6, drafts=1, alpha=0.0)
    yield (
        "decode",
        "an empty table pays penalties",
        dict(**given | dict(grams=empty), **mild, steps=4, penalty=3.0),
    )
    yield "decode", "drafts that end", dict(**given, **mild, steps=6, eos=3)
    yield "decode", "more drafts than first tokens", dict(**given, context=32, keep=2, steps=3, drafts=4)
    yield "decode", "one token", dict(**given, **mild, steps=1)
    yield "decode", "a prompt of one", dict(**given | dict(prompt=prompt[:1]), **mild, steps=5)
    yield "decode", "to the end of the context", dict(**given, **mild | dict(context=12), steps=6)
    yield "decode", "past the end of the context", dict(**given, **mild | dict(context=12), steps=7)
    yield "decode", "a prompt longer than the context", dict(**given, **mild | dict(context=6), steps=1)
    yield "decode", "an empty prompt", dict(**given | dict(prompt=prompt[:0]), **mild)
    yield "decode", "an unknown token", dict(**given | dict(prompt=prompt + 3), **mild)
    yield "decode", "no step", dict(**given, **mild, steps=0)

    given = dict(logits=model, embedding=E, prompt=prompt)
    draws = rng.random((6, 3))
    yield "sample", "3 texts of 6 tokens", dict(**given, draws=draws, context=32)
    yield "sample", "a small nucleus", dict(**given, draws=draws, context=32, p=0.4)
    yield "sample", "flat", dict(**given, draws=draws, context=32, p=1.0, temperature=5.0)
    yield "sample", "one text, one token", dict(**given, draws=draws[:1, :1], context=7)
    yield "sample", "past the end of the context", dict(**given, draws=draws, context=11)
    yield "sample", "an empty prompt", dict(**given | dict(prompt=prompt[:0]), draws=draws, context=32)
    yield "sample", "an unknown token", dict(**given | dict(prompt=prompt - 5), draws=draws, context=32)
    yield "sample", "no draw", dict(**given, draws=draws[:0], context=32)


def toy(last, mean):
    """Logits affine in the last embedding and in the mean of all, in arrays of the kind it is given."""

    def logits(rows):
        x = in_numpy(rows)
        out = x[:, -1] @ last + x.mean(axis=1) @ mean
        return rows.new_tensor(out) if hasattr(rows, "new_tensor") else out

    return logits


def counted(logits):
    """The same model, and the list of the (rows, length) of its calls."""
    calls = []

    def watched(rows):
        calls.append(tuple(rows.shape[:2]))
        return logits(rows)

    return watched, calls


# ---------------------------------------------------------------- facts


def weights_sum_to_one(call, got, embedding, last, scores):
    return same(call(embedding=np.ones_like(embedding)), np.ones(embedding.shape[1]))


def one_token_is_itself(call, got, embedding, last, scores):
    return same(call(last=np.full_like(last, last[0])), embedding[last[0]])


def drafts_may_be_renumbered(call, got, embedding, last, scores):
    return same(call(last=last[::-1].copy(), scores=scores[::-1].copy()), got)


def a_constant_changes_nothing(call, got, embedding, last, scores):
    return same(call(scores=scores - 5.0), got)


def affine_maps_pass_through(call, got, embedding, last, scores):
    to_logits = np.random.default_rng(0).normal(size=(embedding.shape[1], 4))
    return same(call(embedding=embedding @ to_logits + 2.0), got @ to_logits + 2.0)


def sums_to_one(call, got, log_p, scores):
    return same(np.exp(got).sum(), np.array(1.0))


def constants_of_rows_are_irrelevant(call, got, log_p, scores):
    return same(call(log_p=log_p + np.arange(len(log_p))[:, None]), got)


def an_affine_model_predicts_it(call, got, log_p, scores):
    """The rows as logits of an affine model with the unit vectors as embeddings."""
    if np.isinf(log_p).any():
        return np.isinf(got[np.isinf(log_p).any(axis=0)]).all()
    superposed = reference.superpose(log_p, np.arange(len(log_p)), scores)
    return same(got - got[0], superposed - superposed[0])


def distributions_in_logarithms(call, got, k, v):
    return got.shape == (k, v) and np.isfinite(got).all() and same(np.exp(got).sum(axis=1), np.ones(k))


def one_favourite_each(call, got, k, v):
    return all(len(_favourites(row)) == 1 for row in np.exp(got))


def geometric_mean_prefers_another(call, got, k, v):
    return not _favourites(np.exp(reference.geometric_mean(got, np.zeros(k)))) & set(got.argmax(axis=1))


def mixture_sides_with_a_draft(call, got, k, v):
    return _favourites(np.exp(got).mean(axis=0)) <= set(got.argmax(axis=1))


def _favourites(chance):
    """The most likely token, or several that share the first place."""
    return set(np.flatnonzero(chance > chance.max() * (1 - 1e-9)))


def shortlist_sums_to_one(call, got, logits, keep, temperature=1.0):
    return same(np.exp(got.log_p).sum(), np.array(1.0)) and (np.diff(got.log_p) <= 0).all()


def temperature_scales_logits(call, got, logits, keep, temperature=1.0):
    return same(call(logits=3 * logits, temperature=3 * temperature).log_p, got.log_p)


def every_ngram_is_counted(call, got, corpus, vocab, orders=6):
    text = corpus.tolist()
    counts = Counter(tuple(text[i : i + n]) for n in range(2, orders + 1) for i in range(len(text) - n + 1))
    table = dict(zip(map(tokens_of(vocab), got.key), np.diff(got.upto, prepend=0), strict=True))
    return table == counts and (np.diff(got.key) > 0).all()


def tokens_of(vocab):
    def tokens(key):
        digits, key = [], int(key)
        while key:
            key, digit = divmod(key, vocab + 1)
            digits.append(digit - 1)
        return tuple(reversed(digits))

    return tokens


def chances_sum_to_the_weights_of_seen_contexts(call, got, grams, context, tokens, weights, vocab):
    total = call(tokens=np.arange(vocab)).sum(axis=1)
    reachable = [sum(c) for c in _subsets(weights[: context.shape[1]])]
    return all(np.abs(np.array(reachable) - t).min() < 1e-12 for t in total)


def _subsets(weights):
    subsets = [()]
    for weight in weights:
        subsets += [(*s, weight) for s in subsets]
    return subsets


def weights_are_linear(call, got, grams, context, tokens, weights, vocab):
    return same(call(weights=3 * weights), 3 * got)


def only_the_last_tokens_matter(call, got, grams, context, tokens, weights, vocab):
    longer = np.concatenate([np.zeros((len(context), 2), int), context], axis=1)
    return context.shape[1] < len(weights) or same(call(context=longer), got)


def scale_of_lambda_shifts_supported_drafts(call, got, log_p, p_ngram, alpha, penalty=200.0):
    if alpha == 0:
        return same(call(p_ngram=3 * p_ngram), got)
    supported = ((p_ngram > 0) & (log_p > -np.inf)).any(axis=1, keepdims=True)
    return same(call(p_ngram=3 * p_ngram), got + np.where(supported, alpha * np.log(3), 0))


def penalty_once_for_unsupported_drafts(call, got, log_p, p_ngram, alpha, penalty=200.0):
    supported = ((p_ngram > 0) & (log_p > -np.inf)).any(axis=1, keepdims=True)
    return same(got, call(penalty=0.0) - np.where(supported | (alpha == 0), 0, penalty))


def never_above_zero(call, got, log_p, p_ngram, alpha, penalty=200.0):
    return (call(p_ngram=np.minimum(p_ngram, 1)) <= 0).all()


def drafts_are_distinct(call, got, drafts, scores, tokens, log_p, keep, eos=None):
    texts = [tuple(t) for t in (*got.tokens, *got.ended)]
    parents = {tuple(t) for t in drafts}
    return len(set(texts)) == len(texts) and (
        len(parents) < len(drafts) or all(t[:-1] in parents for t in texts)
    )


def best_first(call, got, drafts, scores, tokens, log_p, keep, eos=None):
    return (np.diff(got.scores) <= 0).all() and (np.diff(got.ended_scores) <= 0).all()


def score_is_parent_plus_token(call, got, drafts, scores, tokens, log_p, keep, eos=None):
    if len({tuple(d) for d in drafts}) < len(drafts):
        return True
    place = {tuple(d): i for i, d in enumerate(drafts)}
    column = {int(t): j for j, t in enumerate(tokens)}
    expected = [
        scores[place[tuple(d[:-1])]] + log_p[place[tuple(d[:-1])], column[int(d[-1])]] for d in got.tokens
    ]
    return same(got.scores, np.array(expected, float))


def a_constant_keeps_the_drafts(call, got, drafts, scores, tokens, log_p, keep, eos=None):
    moved = call(scores=scores - 4.0)
    return same(moved.tokens, got.tokens) and same(moved.scores, got.scores - 4.0)


def best_pair_survives(call, got, drafts, scores, tokens, log_p, keep, eos=None):
    best = (scores[:, None] + log_p).max()
    return same(max([*got.scores, *got.ended_scores]), best)


def one_stream(call, got, logits, embedding, prompt, grams, weights, **sizes):
    watched, calls = counted(logits)
    call(logits=watched)
    lengths = [len(prompt) + i for i in range(sizes.get("steps", 10))]
    return calls == [(1, length) for length in lengths][: len(calls)] and (
        sizes.get("eos") is not None or len(calls) == len(lengths)
    )


def cost_does_not_depend_on_drafts(call, got, logits, embedding, prompt, grams, weights, **sizes):
    (one, few), (many, more) = counted(logits), counted(logits)
    call(logits=one, drafts=1, eos=None)
    call(logits=many, drafts=5, eos=None)
    return few == more


def one_draft_alone_is_greedy(call, got, logits, embedding, prompt, grams, weights, **sizes):
    alone = call(drafts=1, alpha=0.0, eos=None).tokens[0]
    text = list(prompt)
    for _ in range(sizes.get("steps", 10)):
        stream = embedding[np.array(text)][None]
        text.append(int(np.argmax(logits(stream)[0])))
    return text[len(prompt) :] == alone.tolist()


def drafts_differ(call, got, logits, embedding, prompt, grams, weights, **sizes):
    return len({tuple(d) for d in got.tokens}) == len(got.tokens) <= sizes.get("drafts", 3)


def ranked_by_score_per_token(call, got, logits, embedding, prompt, grams, weights, **sizes):
    return (np.diff(got.scores / got.lengths) <= 1e-12).all() and (got.scores <= 0).all()


def padded_after_the_end(call, got, logits, embedding, prompt, grams, weights, **sizes):
    eos = sizes.get("eos")
    for draft, length in zip(got.tokens, got.lengths, strict=True):
        ends = length < sizes.get("steps", 10)
        if (draft[length:] != -1).any() or (draft[:length] < 0).any() or (ends and draft[length - 1] != eos):
            return False
        if eos is not None and (draft[: length - 1] == eos).any():
            return False
    return True


def rises_with_the_draw(call, got, logits, draws, p=0.9, temperature=1.0):
    """Draws 0 and almost 1 give the most and the least likely token of the nucleus."""
    least = call(draws=np.full(len(draws), 1 - 1e-12))
    rows = range(len(draws))
    inside = all(logits[i, least[i]] <= logits[i, got[i]] for i in rows)
    return inside and same(call(draws=np.zeros(len(draws))), logits.argmax(axis=1))


def nucleus_is_smallest(call, got, logits, draws, p=0.9, temperature=1.0):
    """The least likely token that can be drawn: with it the mass reaches p, without it it does not."""
    least = call(draws=np.full(len(draws), 1 - 1e-12))
    chance = np.exp(logits / temperature - (logits / temperature).max(axis=1, keepdims=True))
    chance /= chance.sum(axis=1, keepdims=True)
    for row, token in zip(chance, least, strict=True):
        before = row[row > row[token]].sum() + row[:token][row[:token] == row[token]].sum()
        if before >= p + 1e-12 or before + row[token] < p - 1e-9:
            return False
    return True


def one_pass_per_token(call, got, logits, embedding, prompt, draws, **sizes):
    watched, calls = counted(logits)
    call(logits=watched)
    return calls == [(draws.shape[1], len(prompt) + i) for i in range(len(draws))]


def one_by_one_is_the_same(call, got, logits, embedding, prompt, draws, **sizes):
    alone = [call(draws=draws[:, i : i + 1].copy())[0] for i in range(draws.shape[1])]
    return same(np.stack(alone), got)


CHECKS = {
    "superpose": [
        ("the weights sum to 1", weights_sum_to_one),
        ("drafts that share their last token give its own embedding", one_token_is_itself),
        ("the order of the drafts does not matter", drafts_may_be_renumbered),
        ("adding a constant to all scores changes nothing", a_constant_changes_nothing),
        (
            "behind an affine map stands the weighted mean of the drafts' own outputs",
            affine_maps_pass_through,
        ),
    ],
    "geometric_mean": [
        ("it is a distribution", sums_to_one),
        ("a constant added to a row changes nothing", constants_of_rows_are_irrelevant),
        ("a model with affine logits predicts it from the superposed input", an_affine_model_predicts_it),
    ],
    "compromise": [
        ("each row is a distribution, given as finite logarithms", distributions_in_logarithms),
        ("each draft has one favourite", one_favourite_each),
        ("the favourite of the geometric mean is the favourite of no draft", geometric_mean_prefers_another),
        ("the favourite of the mixture is the favourite of a draft", mixture_sides_with_a_draft),
    ],
    "shortlist": [
        ("it is a distribution, best first", shortlist_sums_to_one),
        ("three times the logits at three times the temperature is the same", temperature_scales_logits),
    ],
    "count": [("each n-gram of the corpus is counted, in the order of the keys", every_ngram_is_counted)],
    "ngram": [
        (
            "over all tokens the sum is that of the weights whose context was seen",
            chances_sum_to_the_weights_of_seen_contexts,
        ),
        ("three times the weights give three times the chance", weights_are_linear),
        ("tokens before the longest context do not matter", only_the_last_tokens_matter),
    ],
    "interpolate": [
        (
            "a factor on the n-grams shifts all supported drafts alike",
            scale_of_lambda_shifts_supported_drafts,
        ),
        ("a draft without support pays the penalty once", penalty_once_for_unsupported_drafts),
        ("no score rises: log p_f <= 0", never_above_zero),
    ],
    "grow": [
        ("new drafts are distinct and each continues a parent", drafts_are_distinct),
        ("the best come first", best_first),
        ("a score is the parent's plus the token's", score_is_parent_plus_token),
        ("adding a constant to all scores changes no draft", a_constant_keeps_the_drafts),
        ("the best pair of all is among them", best_pair_survives),
    ],
    "decode": [
        ("one forward pass of one row per token, on a stream that grows by one", one_stream),
        ("the passes do not depend on the number of drafts", cost_does_not_depend_on_drafts),
        ("one draft without n-grams is greedy decoding", one_draft_alone_is_greedy),
        ("the drafts differ", drafts_differ),
        ("they are ranked by score per token, none above 0", ranked_by_score_per_token),
        ("a shorter draft ends in eos and is padded by -1", padded_after_the_end),
    ],
    "nucleus": [
        (
            "a draw of 0 takes the most likely token, a draw near 1 the least likely of the nucleus",
            rises_with_the_draw,
        ),
        ("the nucleus is the smallest set that holds p", nucleus_is_smallest),
    ],
    "sample": [
        ("one forward pass of k rows per token", one_pass_per_token),
        ("drawn one by one, the texts are the same", one_by_one_is_the_same),
    ],
}

SCORES = {"shortlist": lambda logits, **sizes: logits}


# ---------------------------------------------------------------- mistakes


def mixing(weigh):
    """A wrong superposition: embeddings mixed by `weigh(scores)`."""

    def answer(embedding, last, scores):
        reference.superpose(embedding, last, scores)
        return weigh(scores) @ embedding[last]

    return answer


def uniform(scores):
    return np.full(len(scores), 1 / len(scores))


def not_normalised(scores):
    return np.exp(scores)


def softmax_of_probabilities(scores):
    p = np.exp(scores - scores.max())
    return np.exp(p / p.sum()) / np.exp(p / p.sum()).sum()


def best_only(scores):
    return np.eye(len(scores))[scores.argmax()]


def gamma_by_base_two(scores):
    p = 2.0 ** (scores - scores.max())
    return p / p.sum()


def underflowing(scores):
    with np.errstate(invalid="ignore"):
        return np.exp(scores) / np.exp(scores).sum()


def scores_as_shares(scores):
    with np.errstate(invalid="ignore"):
        return scores / scores.sum()


def gamma(scores):
    p = np.exp(scores - scores.max())
    return p / p.sum()


def mixture(log_p, scores):
    reference.geometric_mean(log_p, scores)
    p = np.exp(log_p - log_p.max(axis=1, keepdims=True))
    with np.errstate(divide="ignore"):
        return np.log(gamma(scores) @ (p / p.sum(axis=1, keepdims=True)))


def plain_sum(log_p, scores):
    reference.geometric_mean(log_p, scores)
    return gamma(scores) @ log_p


def equal_mean(log_p, scores):
    reference.geometric_mean(log_p, scores)
    return reference.geometric_mean(log_p, np.zeros(len(scores)))


def product(log_p, scores):
    return reference.geometric_mean(log_p * len(scores), scores)


def bids(k, v, *, own, shared, rest=1e-3):
    """Each of k drafts gives `own` to its favourite, `shared` to one token that all know, a little to all."""
    chance = np.full((k, v), rest / v)
    chance[:, -1] = shared
    chance[np.arange(k), np.arange(k)] = own
    return chance / chance.sum(axis=1, keepdims=True)


def liked_too_well(k, v):
    return np.log(bids(k, v, own=0.55, shared=0.45))


def all_alike(k, v):
    return np.log(bids(1, v, own=0.7, shared=0.3)).repeat(k, axis=0)


def nothing_in_common(k, v):
    return np.log(bids(k, v, own=0.9, shared=0.1 / v, rest=0.1))


def zero_elsewhere(k, v):
    with np.errstate(divide="ignore"):
        return np.log(bids(k, v, own=0.7, shared=0.3 / k, rest=0.0))


def probabilities(k, v):
    return bids(k, v, own=1.0, shared=0.5 / k)


def undecided(k, v):
    return np.log(bids(k, v, own=0.5, shared=0.5))


def listing(change):
    """A wrong shortlist: the right tokens with another log_p."""

    def answer(logits, *, keep, temperature=1.0):
        right = reference.shortlist(logits, keep=keep, temperature=temperature)
        return right._replace(log_p=change(logits, right, temperature))

    return answer


def not_renormalised(logits, right, temperature):
    return reference.shortlist(logits, keep=len(logits), temperature=temperature).log_p[: len(right.log_p)]


def multiplied_by_temperature(logits, right, temperature):
    return reference.shortlist(logits * temperature, keep=len(right.log_p)).log_p


def no_logarithm(logits, right, temperature):
    return np.exp(right.log_p)


def least_likely(logits, *, keep, temperature=1.0):
    right = reference.shortlist(-logits, keep=keep, temperature=temperature)
    return right._replace(log_p=right.log_p[::-1])


def mixed_orders(rule):
    """A wrong n-gram mixture: `rule` combines one order's chances over orders, from the lowest."""

    def answer(grams, context, tokens, weights, *, vocab):
        reference.ngram(grams, context, tokens, weights, vocab=vocab)
        unit = np.eye(len(weights))
        each = [reference.ngram(grams, context, tokens, row, vocab=vocab) for row in unit]
        seen = [
            reference.ngram(grams, context, np.arange(vocab), row, vocab=vocab).sum(1) > 0 for row in unit
        ]
        return rule(np.array(each), np.array(seen), weights, context)

    return answer


def highest_order(each, seen, weights, context):
    out = np.zeros(each.shape[1:])
    for chance, was_seen in zip(each, seen, strict=True):
        out[was_seen] = chance[was_seen]
    return out


def renormalised_weights(each, seen, weights, context):
    total = (weights[:, None] * seen).sum(axis=0)
    return np.einsum("o,okc->kc", weights, each) / np.where(total > 0, total, 1)[:, None]


def weights_reversed(each, seen, weights, context):
    return np.einsum("o,okc->kc", weights[::-1], each)


def unweighted(each, seen, weights, context):
    return each.sum(axis=0)


def first_tokens(grams, context, tokens, weights, *, vocab):
    reference.ngram(grams, context, tokens, weights, vocab=vocab)
    return reference.ngram(grams, context[:, : len(weights)], tokens, weights, vocab=vocab)


def over_listed_tokens(grams, context, tokens, weights, *, vocab):
    right = reference.ngram(grams, context, tokens, weights, vocab=vocab)
    out = np.zeros_like(right)
    for row in np.diag(weights):
        each = reference.ngram(grams, context, tokens, row, vocab=vocab)
        total = each.sum(axis=1, keepdims=True)
        out += row.sum() * each / np.where(total > 0, total, 1)
    return out


def combining(rule):
    """A wrong interpolation: `rule` makes it from the arguments and the right one, unless alpha = 0."""

    def answer(log_p, p_ngram, *, alpha, penalty=200.0):
        right = reference.interpolate(log_p, p_ngram, alpha=alpha, penalty=penalty)
        if alpha == 0:
            return right
        return rule(log_p, p_ngram, right, alpha, penalty)

    return answer


def arithmetic(log_p, p_ngram, right, alpha, penalty):
    any_support = ((p_ngram > 0) & (log_p > -np.inf)).any(axis=1, keepdims=True)
    with np.errstate(divide="ignore"):
        mean = np.log((1 - alpha) * np.exp(log_p) + alpha * p_ngram)
    return np.where(any_support, mean, right)


def arithmetic_for_all(log_p, p_ngram, right, alpha, penalty):
    with np.errstate(divide="ignore"):
        return np.log((1 - alpha) * np.exp(log_p) + alpha * p_ngram)


def straight(log_p, p_ngram, *, alpha, penalty=200.0):
    reference.interpolate(log_p, p_ngram, alpha=alpha, penalty=penalty)
    with np.errstate(divide="ignore", invalid="ignore"):
        return (1 - alpha) * log_p + alpha * np.log(p_ngram)


def nan_for_zero(log_p, p_ngram, right, alpha, penalty):
    with np.errstate(divide="ignore", invalid="ignore"):
        mixed = (1 - alpha) * log_p + alpha * np.log(p_ngram)
        none = ~(mixed > -np.inf).any(axis=1, keepdims=True)
        return np.where(none, (1 - alpha) * log_p - penalty, mixed)


def each_token_pays(log_p, p_ngram, right, alpha, penalty):
    alone = np.where(log_p > -np.inf, (1 - alpha) * np.where(log_p > -np.inf, log_p, 0), -np.inf) - penalty
    return np.where(right > -np.inf, right, alone)


def each_token_pays_always(log_p, p_ngram, *, alpha, penalty=200.0):
    reference.interpolate(log_p, p_ngram, alpha=alpha, penalty=penalty)
    with np.errstate(divide="ignore", invalid="ignore"):
        mixed = (1 - alpha) * log_p + alpha * np.log(p_ngram)
        return np.where(p_ngram > 0, mixed, (1 - alpha) * log_p - penalty)


def exponents_swapped(log_p, p_ngram, right, alpha, penalty):
    flipped = reference.interpolate(log_p, p_ngram, alpha=max(1 - alpha, 1e-300), penalty=penalty)
    any_support = ((p_ngram > 0) & (log_p > -np.inf)).any(axis=1, keepdims=True)
    return np.where(any_support, flipped, right)


def model_undamped(log_p, p_ngram, right, alpha, penalty):
    any_support = ((p_ngram > 0) & (log_p > -np.inf)).any(axis=1, keepdims=True)
    return np.where(any_support, right, log_p - penalty)


def renormalised_rows(log_p, p_ngram, right, alpha, penalty):
    total = np.log(np.exp(right - right.max(axis=1, keepdims=True)).sum(axis=1, keepdims=True))
    return right - right.max(axis=1, keepdims=True) - total


def growing(choose):
    """A step on the (drafts, columns) that `choose(total, log_p, keep)` lists, best first."""

    def answer(drafts, scores, tokens, log_p, *, keep, eos=None):
        reference.grow(drafts, scores, tokens, log_p, keep=keep, eos=eos)
        total = scores[:, None] + log_p
        parent, column = choose(total, log_p, keep)
        value = total[parent, column]
        parent, column, value = (a[value > -np.inf] for a in (parent, column, value))
        return _split(drafts[parent], tokens[column], value, keep, eos)

    return answer


def _split(parents, new, value, keep, eos):
    longer = np.concatenate([parents, new[:, None]], axis=1)
    ends = np.array([t == eos for t in new], bool)
    return reference.Grown(longer[~ends][:keep], value[~ends][:keep], longer[ends], value[ends])


def _ranked(total, limit):
    return np.divmod(np.argsort(-total.ravel(), kind="stable")[:limit], total.shape[1])


def by_position(drafts, scores, tokens, log_p, *, keep, eos=None):
    right = reference.grow(drafts, scores, tokens, log_p, keep=keep, eos=eos)
    rows = np.arange(len(right.tokens)) % len(drafts)
    ended = np.arange(len(right.ended)) % len(drafts)
    return right._replace(
        tokens=np.concatenate([drafts[rows], right.tokens[:, -1:]], axis=1),
        ended=np.concatenate([drafts[ended], right.ended[:, -1:]], axis=1),
    )


def token_alone(total, log_p, keep):
    return _ranked(log_p, 2 * keep)


def one_child_each(total, log_p, keep):
    column = total.argmax(axis=1)
    order = np.argsort(-total.max(axis=1), kind="stable")[: 2 * keep]
    return order, column[order]


def too_few_candidates(total, log_p, keep):
    return _ranked(total, keep)


def all_candidates(total, log_p, keep):
    return _ranked(total, total.size)


def right_candidates(total, log_p, keep):
    return _ranked(total, 2 * keep)


def ended_go_on(drafts, scores, tokens, log_p, *, keep, eos=None):
    return reference.grow(drafts, scores, tokens, log_p, keep=keep)


def dead_drafts_too(drafts, scores, tokens, log_p, *, keep, eos=None):
    reference.grow(drafts, scores, tokens, log_p, keep=keep, eos=eos)
    total = scores[:, None] + log_p
    parent, column = _ranked(total, 2 * keep)
    return _split(drafts[parent], tokens[column], total[parent, column], keep, eos)


def drawing(change):
    """A wrong nucleus: `change(chance, draw, p)` names the place of the token in the sorted row."""

    def answer(logits, draws, *, p=0.9, temperature=1.0):
        reference.nucleus(logits, draws, p=p, temperature=temperature)
        tokens = []
        for row, draw in zip(logits, draws, strict=True):
            order = np.argsort(-row, kind="stable")
            chance = np.exp((row[order] - row.max()) / temperature)
            tokens.append(order[change(chance / chance.sum(), draw, p)])
        return np.array(tokens, np.int64)

    return answer


def without_the_last(chance, draw, p):
    size = max(int((np.cumsum(chance) < p).sum()), 1)
    upto = np.cumsum(chance[:size])
    return min((upto <= draw * upto[-1]).sum(), size - 1)


def mass_not_renormalised(chance, draw, p):
    size = 1 + (np.cumsum(chance)[:-1] < p).sum()
    return min((np.cumsum(chance[:size]) <= draw).sum(), size - 1)


def from_the_whole(chance, draw, p):
    return min((np.cumsum(chance) <= draw).sum(), len(chance) - 1)


def greedy(chance, draw, p):
    return 0


def min_p(chance, draw, p):
    size = max(int((chance >= (1 - p) * chance[0]).sum()), 1)
    upto = np.cumsum(chance[:size])
    return min((upto <= draw * upto[-1]).sum(), size - 1)


def right_place(chance, draw, p):
    size = next(i + 1 for i in range(len(chance)) if chance[: i + 1].sum() >= p or i + 1 == len(chance))
    left = draw * chance[:size].sum()
    for place in range(size):
        left -= chance[place]
        if left < 0:
            return place
    return size - 1


WRONG = {
    "superpose": [
        ("the weights are the drafts' probabilities, not equal shares", mixing(uniform)),
        ("the weights must sum to 1", mixing(not_normalised)),
        (
            "exponentiate once: these probabilities went through a softmax again",
            mixing(softmax_of_probabilities),
        ),
        ("all drafts are mixed, not the best one taken", mixing(best_only)),
        ("scores are natural logarithms", mixing(gamma_by_base_two)),
        ("the chances of a long text are all 0: subtract the largest score first", mixing(underflowing)),
        ("scores are logarithms: exponentiate them", mixing(scores_as_shares)),
    ],
    "geometric_mean": [
        ("a weighted mean of LOGARITHMS: this is the mixture", mixture),
        ("the mean of logarithms is not normalised", plain_sum),
        ("the rows weigh by the drafts' probabilities", equal_mean),
        ("a mean, not a product: the weights sum to 1", product),
    ],
    "compromise": [
        ("all like the common token so well that it leads in the mixture, too", liked_too_well),
        ("the drafts agree: there is nothing to compromise on", all_alike),
        ("no token is likely enough for every draft", nothing_in_common),
        ("a chance of 0 has no logarithm: leave every token a little", zero_elsewhere),
        ("logarithms are asked for", probabilities),
        ("a draft with two favourites has none", undecided),
    ],
    "shortlist": [
        ("renormalise over the tokens that are left", listing(not_renormalised)),
        ("logits are divided by the temperature", listing(multiplied_by_temperature)),
        ("give logarithms of the probabilities", listing(no_logarithm)),
        ("the most likely tokens, not the least", least_likely),
    ],
    "ngram": [
        (
            "all orders add up, each with its weight; this is the highest seen order alone",
            mixed_orders(highest_order),
        ),
        ("an unseen context adds 0: the weights are not renormalised", mixed_orders(renormalised_weights)),
        ("weights[0] belongs to order 2", mixed_orders(weights_reversed)),
        ("each order counts with its weight", mixed_orders(unweighted)),
        ("a context is the LAST n - 1 tokens of the draft", first_tokens),
        ("the denominator counts every token after the context, not the listed ones", over_listed_tokens),
    ],
    "interpolate": [
        ("a geometric mean: weigh the logarithms, not the probabilities", combining(arithmetic)),
        ("a geometric mean: weigh the logarithms, not the probabilities", combining(arithmetic_for_all)),
        ("0 times -inf is NaN: treat impossible tokens apart", combining(nan_for_zero)),
        ("drafts without support pay the penalty, and alpha = 0 switches the n-grams off", straight),
        ("the penalty is for drafts without any support, not for single tokens", combining(each_token_pays)),
        ("the penalty is for drafts without any support, not for single tokens", each_token_pays_always),
        ("the n-grams have the exponent alpha, the model 1 - alpha", combining(exponents_swapped)),
        ("a draft without support keeps the exponent 1 - alpha on the model", combining(model_undamped)),
        ("the mean stays unnormalised: drafts must remain comparable", combining(renormalised_rows)),
    ],
    "grow": [
        ("append the token to the draft it was scored for, not to draft number j", by_position),
        ("rank by the draft's score plus the token's, not by the token alone", growing(token_alone)),
        ("a good draft may have several children: rank all pairs together", growing(one_child_each)),
        ("look at 2 keep pairs, or ended drafts leave too few to go on", growing(too_few_candidates)),
        ("only the best 2 keep pairs may end or go on", growing(all_candidates)),
        ("a draft that ends in eos does not go on", ended_go_on),
        ("a pair of score -inf is dropped: return fewer drafts", dead_drafts_too),
    ],
    "nucleus": [
        ("the token that carries the sum past p belongs to the nucleus", drawing(without_the_last)),
        ("renormalise over the nucleus, or its last token gets all the rest", drawing(mass_not_renormalised)),
        ("draw from the nucleus, not from the whole distribution", drawing(from_the_whole)),
        ("draw, do not take the most likely", drawing(greedy)),
        ("p bounds the sum of probabilities, not a single one", drawing(min_p)),
    ],
}


def token_by_token(embedding, last, scores):
    reference.superpose(embedding, last, scores)
    weight = np.zeros(len(embedding))
    for token, share in zip(last, gamma(scores), strict=True):
        weight[token] += share
    return weight @ embedding


def weighted_row_by_row(log_p, scores):
    if len(log_p) != len(scores) or not np.isfinite(scores).any():
        raise ValueError(f"{log_p.shape}, {scores}")
    weight = np.exp(scores - np.logaddexp.reduce(scores))
    mean = np.zeros(log_p.shape[1])
    for share, row in zip(weight, log_p, strict=True):
        mean += share * row
    return mean - np.logaddexp.reduce(mean)


def row_by_row(k, v):
    rows = []
    for favourite in range(k):
        row = np.full(v, 1e-4 / v)
        row[k] = 0.5 / k
        row[favourite] = 0
        row[favourite] = 1 - row.sum()
        rows.append(np.log(row))
    return np.array(rows)


def one_by_one(logits, *, keep, temperature=1.0):
    if not 1 <= keep <= len(logits) or temperature <= 0:
        raise ValueError(f"keep={keep}, temperature={temperature}")
    left, tokens = logits.copy(), []
    for _ in range(keep):
        tokens.append(int(left.argmax()))
        left[tokens[-1]] = -np.inf
    scaled = logits[tokens] / temperature
    return np.array(tokens), scaled - np.logaddexp.reduce(scaled)


def from_a_dictionary(grams, context, tokens, weights, *, vocab):
    for given in (context, tokens):
        if given.size and (given.min() < 0 or given.max() >= vocab):
            raise ValueError(f"tokens outside 0..{vocab - 1}")
    counts = {}
    for gram, times in zip(map(tokens_of(vocab), grams.key), np.diff(grams.upto, prepend=0), strict=True):
        counts.setdefault(gram[:-1], Counter())[gram[-1]] = times
    out = np.zeros((len(context), len(tokens)))
    for i, draft in enumerate(context.tolist()):
        for n, weight in enumerate(weights, start=1):
            after = counts.get(tuple(draft[-n:])) if n <= len(draft) else None
            for j, token in enumerate(tokens if after else ()):
                out[i, j] += weight * after[token] / after.total()
    return out


def by_token(log_p, p_ngram, *, alpha, penalty=200.0):
    if not 0 <= alpha <= 1 or penalty < 0 or p_ngram.shape[1] != len(log_p):
        raise ValueError(f"{p_ngram.shape}, {log_p.shape}, {alpha}, {penalty}")
    rows = []
    for own in p_ngram:
        pairs = list(zip(np.exp(log_p), own, strict=True))
        if alpha == 0:
            rows.append(log_p)
            continue
        with np.errstate(divide="ignore"):
            mixed = np.log([p ** (1 - alpha) * q**alpha if p and q else 0.0 for p, q in pairs])
            alone = np.log([p ** (1 - alpha) if p else 0.0 for p, _ in pairs]) - penalty
        rows.append(mixed if np.isfinite(mixed).any() else alone)
    return np.array(rows)


RIGHT = {
    "superpose": [token_by_token],
    "geometric_mean": [weighted_row_by_row],
    "compromise": [row_by_row],
    "shortlist": [one_by_one],
    "ngram": [from_a_dictionary],
    "interpolate": [by_token],
    "grow": [growing(right_candidates)],
    "nucleus": [drawing(right_place)],
}

ANOTHER = "another compromise"
EQUIVALENT = {
    "superpose": {
        "len(last) != len(scores) or not (scores > -np.inf).any() => not (scores > -np.inf).any() "
        "(if len(last) != len(scores) or not (scores > -np.inf).any():)": "the product refuses them, too",
    },
    "compromise": {
        "0.001 / v => 0.001 (chance = np.full((k, v), 0.001 / v))": ANOTHER,
        "0.001 => 0.0015 (chance = np.full((k, v), 0.001 / v))": ANOTHER,
        "0.5 => 0.75 (chance[:, k] = 0.5 / k)": ANOTHER,
        "1 => 2 (chance[range(k), range(k)] = 1)": ANOTHER,
    },
    "geometric_mean": {
        "len(log_p) != len(scores) => False (if len(log_p) != len(scores):)": "the product refuses them, too",
    },
    "nucleus": {
        "len(draws) != len(logits) => False (if len(draws) != len(logits):)": "zip refuses them, too",
        "True => False (for row, draw in zip(logits, draws, strict=True):)": "they are equally long",
    },
}

HINTS = {
    "superpose": [
        "Turn the scores into weights first: they are logarithms of probabilities.",
        "Subtract the largest score before np.exp, or a long text's chances are all 0; divide by the sum.",
        "weights @ embedding[last] mixes the rows; two drafts with the same token add up by themselves.",
    ],
    "geometric_mean": [
        "Which operation on logarithms is a product of powers?",
        "Weigh the rows of log_p by the drafts' probabilities and add them up.",
        "Then subtract the logarithm of the sum of exponentials, so that it is a distribution.",
    ],
    "compromise": [
        "Each draft has a favourite of its own. Which token could all of them accept as their second choice?",
        "Token i for draft i, token k for all: much for the first, some for the second, a trace of the rest.",
        "The mixture gives a favourite 1/k of its chance: the common token must stay below, say at 1/(2 k).",
    ],
    "shortlist": [
        "Choose first, normalise second.",
        "np.argsort(-logits, kind='stable')[:keep] are the tokens.",
        "Divide their logits by the temperature and subtract the log of their own sum of exponentials.",
    ],
    "ngram": [
        "For one draft, one order and one token: two counts and a division.",
        "Of order n the context is the last n - 1 tokens; skip the order if the draft is shorter.",
        "N-grams with the same context stand side by side: keys (v + 1) key(context) + 1 onwards.",
    ],
    "interpolate": [
        "Three kinds of entries: supported, unsupported in a draft that has support, and drafts without any.",
        "Supported: (1 - alpha) log_p + alpha log p_ngram. In the same draft, everything else is -inf.",
        "No support at all: (1 - alpha) log_p - penalty; keep -inf where the model says so.",
    ],
    "grow": [
        "Every draft may be continued by every token: a table of k c sums, ranked as a whole.",
        "From a flat place in that table, // and % by the number of tokens give the parent and the token.",
        "Take 2 keep places, drop -inf, split by token == eos, and cut those that go on to keep.",
    ],
    "nucleus": [
        "Sort one row by falling probability; the nucleus is a prefix of it.",
        "A token belongs to it if the sum of those BEFORE it is below p.",
        "The draw times the mass of the nucleus lands in one token's stretch of the running sum.",
    ],
}
