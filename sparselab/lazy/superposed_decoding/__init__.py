"""Superposed Decoding: several drafts from one forward pass per token, by mixing their last embeddings.

    x = sum_i gamma_i E[last_i],   gamma = softmax of the k drafts' scores
    log p_f = (1 - alpha) log p + alpha log p_ngram       p from x, one for all; p_ngram of each draft
    drafts <- the best k of score_i + log p_f[i, token]

A transformer answers a mixture of inputs nearly as an affine map would, for about ten tokens: with the
geometric mean of the drafts' own predictions, which cannot know which draft it serves. The n-grams do.
Forward passes and time are two facts: k rows in one batch take as many passes, and hardly more time where
decoding waits for memory.
"""

from sparselab.method import Claim, Method

METHOD = Method(
    package=__name__,
    title="Superposed Decoding",
    paper="arXiv:2405.18400",
    year=2024,
    chapter="1.6",
    backends=("numpy", "torch"),
    no_kernel="the forward pass is the model's own; the rest is bookkeeping on k x 9 numbers",
    gradient="none",
    source="official",
    claims=(
        Claim(
            text="passes of 3 nucleus samples, one after the other, over the passes of 3 drafts",
            metric="passes_ratio",
            at_least=3,
        ),
        Claim(text="the same in time (2.44 in the paper)", metric="speedup", at_least=2, timed=True),
        Claim(
            text="in time against the 3 samples in one batch, which takes as many passes",
            metric="batched_speedup",
            timed=True,
            at_least=2,
            reproduced=False,
        ),
        Claim(
            text="as released, the best of 3 beats nucleus' best of 3: nats per byte gained",
            metric="released_best_gain",
            at_least=0,
        ),
        Claim(
            text="as released, the best of 3 beats greedy decoding, one row of as many passes: nats gained",
            metric="released_best_over_greedy",
            at_least=0,
            reproduced=False,
        ),
        Claim(
            text="as released, 3 drafts share the blend: effective number",
            metric="released_voices",
            at_least=2,
            reproduced=False,
        ),
        Claim(
            text="as released, the mean draft beats the mean nucleus sample: nats per byte gained",
            metric="released_mean_gain",
            at_least=0,
            reproduced=False,
        ),
        Claim(
            text="tuned for the mean draft, it beats the mean nucleus sample: nats per byte gained",
            metric="mean_gain",
            at_least=0,
            reproduced=False,
        ),
        Claim(
            text="tuned for the mean draft, it beats the n-grams without a model: nats per byte gained",
            metric="mean_over_table",
            at_least=0,
            reproduced=False,
        ),
        Claim(text="beam search is the ceiling: nats per byte above", metric="beam_gap", at_least=0),
        Claim(text="n-grams carry drafts 2 and 3: nats per byte gained", metric="ngram_gain", at_least=0.1),
        Claim(text="cosine to the mixture at token 10", metric="last_cosine", at_least=0.6),
        Claim(
            text="nearer to it than the best draft alone: cosine gained",
            metric="last_cosine_over_best",
            at_least=0,
            reproduced=False,
        ),
        Claim(text="it falls: from token 2 to token 10", metric="cosine_fall", at_least=0),
        Claim(
            text="nearer to the drafts' geometric mean than to their mixture: ratio of divergences",
            metric="affinity_ratio",
            at_most=0.9,
        ),
        Claim(
            text="3 drafts are a real choice: share of bytes that differ",
            metric="differing",
            at_least=0.5,
            reproduced=False,
        ),
    ),
    claim_seconds=60,
)
