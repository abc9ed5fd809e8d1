"""TopK SAE: cases, facts, mistakes and hints."""

from typing import NamedTuple

import numpy as np

from sparselab.sae.topk import reference
from sparselab.sae.topk.reference import Code, Params, State

SIZES = dict(k=3, k_aux=2)


def params(rng, d=5, m=12, **changed):
    """Random weights with decoder rows of length 1, encoder untied, biases that matter."""
    drawn = Params(
        w_enc=rng.normal(size=(d, m)),
        b_enc=rng.normal(size=m),
        w_dec=unit_rows(rng.normal(size=(m, d))),
        b_dec=rng.normal(size=d),
    )
    return drawn._replace(**changed)


def unit_rows(w):
    return w / np.linalg.norm(w, axis=1, keepdims=True)


def state(rng, weights, *, steps=7):
    moments = [Params(*(rng.normal(size=p.shape) for p in weights)) for _ in range(2)]
    square = Params(*(0.1 + p**2 for p in moments[1]))
    return State(weights, moments[0], square, steps, rng.integers(0, 30, size=weights.b_enc.size))


def cases(rng):
    x, some = rng.normal(size=(8, 5)), params(rng)
    m = some.b_enc.size
    lively = some._replace(b_enc=some.b_enc + 40)
    silent = some._replace(b_enc=some.b_enc - 40)
    tied = params(rng, w_enc=np.ones((5, m)), b_enc=np.full(m, 2.0))
    perfect = Params(np.eye(5), np.zeros(5), np.eye(5), np.zeros(5))
    code = reference.encode(some, x, k=3)
    dead = np.arange(m) % 3 == 1
    batch = dict(params=some, x=x, dead=dead)

    yield "geometric_median", "scattered points", dict(x=x)
    yield "geometric_median", "symmetric about the origin", dict(x=np.concatenate([x, -x]))
    yield "geometric_median", "one far outlier", dict(x=np.concatenate([x[:4], -x[:4], 1e6 * x[:1]]))
    yield "geometric_median", "one row", dict(x=x[:1])
    yield "geometric_median", "all rows equal", dict(x=np.ones((4, 3)))
    yield "geometric_median", "no step", dict(x=x, iterations=0)
    yield "geometric_median", "no row", dict(x=x[:0])

    yield "init", "more latents than inputs", dict(x=x, directions=rng.normal(size=(9, 5)))
    yield "init", "fewer latents than inputs", dict(x=x, directions=rng.normal(size=(2, 5)))
    yield "init", "one row, one latent", dict(x=x[:1], directions=rng.normal(size=(1, 5)))
    yield "init", "a zero direction", dict(x=x, directions=np.eye(6, 5))
    yield "init", "widths that differ", dict(x=x, directions=rng.normal(size=(9, 4)))

    yield "encode", "3 of 12", dict(params=some, x=x, k=3)
    yield "encode", "1 of 12", dict(params=some, x=x, k=1)
    yield "encode", "all kept", dict(params=some, x=x, k=m)
    yield "encode", "all kept, all positive", dict(params=lively, x=x, k=m)
    yield "encode", "none positive", dict(params=silent, x=x, k=3)
    yield "encode", "fewer than k positive", dict(params=some, x=x, k=m - 1)
    yield "encode", "all tied", dict(params=tied, x=x, k=4)
    yield "encode", "one row", dict(params=some, x=x[:1], k=3)
    yield "encode", "no row", dict(params=some, x=x[:0], k=3)
    yield "encode", "wide enough for two levels", dict(params=params(rng, m=128), x=x, k=2)
    yield "encode", "k = 0", dict(params=some, x=x, k=0)
    yield "encode", "more than the latents", dict(params=some, x=x, k=m + 1)
    yield "encode", "width that differs", dict(params=some, x=x[:, :1], k=3)

    yield "decode", "3 of 12", dict(params=some, code=code)
    yield "decode", "one row", dict(params=some, code=Code(*(a[:1] for a in code)))
    yield "decode", "no row", dict(params=some, code=Code(*(a[:0] for a in code)))
    yield "decode", "nothing active", dict(params=some, code=code._replace(values=0 * code.values))
    yield "decode", "slots in another order", dict(params=some, code=Code(*(a[:, ::-1].copy() for a in code)))

    for op in ("loss", "gradients"):
        yield op, "a third dead", dict(**batch, **SIZES)
        yield op, "another weight of AuxK", dict(**batch, **SIZES, alpha=0.7)
        yield op, "without AuxK", dict(**batch, **SIZES, alpha=0.0)
        yield op, "none dead", dict(batch, dead=np.zeros(m, bool), **SIZES)
        yield op, "all dead", dict(batch, dead=np.ones(m, bool), **SIZES)
        yield op, "fewer dead than k_aux", dict(**batch, k=3, k_aux=40)
        yield op, "all kept", dict(**batch, k=m, k_aux=2)
        yield op, "all kept, all positive", dict(batch, params=lively, k=m, k_aux=2)
        yield op, "one of each", dict(**batch, k=1, k_aux=1)
        yield (
            op,
            "nothing left to explain",
            dict(params=perfect, x=abs(x), dead=np.arange(5) > 2, k=5, k_aux=2),
        )
        yield op, "none positive", dict(batch, params=silent, **SIZES)
        yield op, "all tied", dict(batch, params=tied, **SIZES)
        yield op, "two rows", dict(batch, x=x[:2], **SIZES)
        yield (
            op,
            "wide enough for two levels",
            dict(params=params(rng, m=128), x=x, dead=np.arange(128) % 2 == 0, k=2, k_aux=2),
        )
        yield op, "one row has no variance", dict(batch, x=x[:1], **SIZES)
        yield op, "k = 0", dict(**batch, k=0, k_aux=2)
        yield op, "k_aux = 0", dict(**batch, k=3, k_aux=0)
        yield op, "width that differs", dict(batch, x=x[:, :1], **SIZES)
        yield op, "more than the latents", dict(**batch, k=m + 1, k_aux=2)
        yield op, "dead of another length", dict(batch, dead=dead[:1], **SIZES)

    grad = rng.normal(size=some.w_dec.shape)
    yield "project", "random gradient", dict(w_dec=some.w_dec, grad=grad)
    yield "project", "gradient along the rows", dict(w_dec=some.w_dec, grad=3 * some.w_dec)
    yield "project", "square", dict(w_dec=some.w_dec[:5], grad=grad[:5])
    yield "project", "one row", dict(w_dec=some.w_dec[:1], grad=grad[:1])
    yield "project", "shapes that differ", dict(w_dec=some.w_dec, grad=grad[:, :1])

    yield "start", "12 latents", dict(params=some)
    yield "start", "one latent", dict(params=params(rng, m=1))
    yield "start", "one input", dict(params=params(rng, d=1))

    settings = dict(k=3, k_aux=2, window=20, lr=0.05)
    fresh, late = reference.start(some), state(rng, some)
    yield "step", "the first", dict(state=fresh, x=x, **settings)
    yield "step", "a later one", dict(state=late, x=x, **settings)
    yield "step", "kept with value 0", dict(state=state(rng, silent), x=x, **settings)
    yield "step", "other rates", dict(state=late, x=x, **settings, alpha=1.0, beta1=0.5, beta2=0.9, eps=1e-3)
    yield "step", "square decoder", dict(state=state(rng, params(rng, m=5)), x=x, **settings)
    yield "step", "no learning", dict(state=late, x=x, k=3, k_aux=2, window=20, lr=0.0)
    on_edge = late._replace(since_fired=np.full(m, 12))
    yield "step", "silent for exactly the window", dict(state=on_edge, x=x, **settings)
    yield "step", "window of one input", dict(state=late, x=x, k=3, k_aux=2, window=1, lr=0.05)
    yield (
        "step",
        "nothing left to explain",
        dict(state=state(rng, perfect), x=abs(x), k=5, k_aux=2, window=1, lr=0.05),
    )
    yield "step", "one of each", dict(state=late, x=x, k=1, k_aux=1, window=20, lr=0.05)
    yield "step", "k = 0", dict(state=late, x=x, k=0, k_aux=2, window=20, lr=0.05)
    yield "step", "k_aux = 0", dict(state=late, x=x, k=3, k_aux=0, window=20, lr=0.05)
    yield "step", "width that differs", dict(state=late, x=x[:, :1], **settings)
    yield "step", "window = 0", dict(state=late, x=x, k=3, k_aux=2, window=0, lr=0.05)
    yield "step", "one row has no variance", dict(state=late, x=x[:1], **settings)


# ---------------------------------------------------------------- facts


def sums_of_unit_vectors_cancel(call, got, x, iterations=100):
    if iterations < 100:
        return True
    offset = x - got
    distance = np.linalg.norm(offset, axis=1, keepdims=True)
    if distance.min() < 1e-6:
        return True
    return np.linalg.norm((offset / distance).sum(axis=0)) < 1e-3 * len(x)


def moves_with_the_points(call, got, x, iterations=100):
    return np.abs(call(x=x + 3.0) - got - 3.0).max() < 1e-6


def starts_tied_and_unit(call, got, x, directions):
    return np.array_equal(got.w_enc, got.w_dec.T) and unit_length(got.w_dec) and not got.b_enc.any()


def unit_length(w_dec):
    return np.abs((w_dec**2).sum(axis=1) - 1).max() < 1e-12


def value_belongs_to_its_latent(call, got, params, x, k):
    pi = pre_activations(params, x)
    own = np.take_along_axis(pi, got.latent_idx, axis=1)
    return np.abs(got.values - np.maximum(own, 0)).max(initial=0) < 1e-9


def at_most_k_and_never_negative(call, got, params, x, k):
    return got.values.shape == (len(x), k) and (got.values >= 0).all()


def all_kept_is_the_relu_autoencoder(call, got, params, x, k):
    f = reference._dense(call(k=params.b_enc.size), params.b_enc.size)
    return np.abs(f - np.maximum(pre_activations(params, x), 0)).max(initial=0) < 1e-9


def is_affine_in_the_values(call, got, params, code):
    twice = call(code=code._replace(values=2 * code.values))
    return np.abs(twice - params.b_dec - 2 * (got - params.b_dec)).max(initial=0) < 1e-9


def total_adds_up(call, got, params, x, dead, k, k_aux, alpha=1 / 32):
    return abs(got.total - got.mse - alpha * got.auxk) <= 1e-12 * abs(got.total)


def shift_changes_nothing(call, got, params, x, dead, **sizes):
    moved = call(params=params._replace(b_dec=params.b_dec + 2), x=x + 2, dead=dead, **sizes)
    return abs(moved.total - got.total) <= 1e-9 * abs(got.total)


def nothing_dead_nothing_added(call, got, params, x, dead, **sizes):
    return call(dead=np.zeros_like(dead)).auxk == 0


def auxk_leaves_the_living_alone(call, got, params, x, dead, **sizes):
    without = call(**{**sizes, "alpha": 0.0})
    change = [np.abs(a - b) for a, b in zip(got, without, strict=True)]
    alive = ~dead
    return not (change[0][:, alive].any() or change[1][alive].any() or change[2][alive].any())


def auxk_reaches_b_dec_through_centring(call, got, params, x, dead, **sizes):
    without = call(**{**sizes, "alpha": 0.0})
    through = -params.w_enc @ (got.b_enc - without.b_enc)
    return np.abs(got.b_dec - without.b_dec - through).max() < 1e-9 * (1 + np.abs(through).max())


def is_the_slope_of_the_loss(call, got, params, x, dead, k, k_aux, alpha=1 / 32):
    """Without AuxK nothing is held constant, so central differences of the loss must agree."""
    plain = call(alpha=0.0)
    rng = np.random.default_rng(5)
    along = Params(*(rng.normal(size=p.shape) for p in params))

    def value(t):
        moved = Params(*(p + t * a for p, a in zip(params, along, strict=True)))
        return reference.loss(moved, x, dead, k=k, k_aux=k_aux, alpha=0.0).total

    slopes = [(value(h) - value(-h)) / (2 * h) for h in (1e-6, 1e-5)]
    if abs(slopes[0] - slopes[1]) > 1e-5 * (1 + abs(slopes[0])):
        return True  # a change of support lies within the step
    mine = sum((g * a).sum() for g, a in zip(plain, along, strict=True))
    return abs(mine - slopes[0]) < 1e-5 * (1 + abs(mine))


def is_orthogonal_to_the_rows(call, got, w_dec, grad):
    return np.abs((got * w_dec).sum(axis=1)).max() < 1e-9


def projecting_again_changes_nothing(call, got, w_dec, grad):
    return np.abs(call(grad=got) - got).max() < 1e-9


def rows_stay_unit(call, got, state, x, **settings):
    return unit_length(got.params.w_dec)


def the_fired_start_at_zero(call, got, state, x, k, **settings):
    code = reference.encode(state.params, x, k=k)
    fired = np.isin(np.arange(len(got.since_fired)), code.latent_idx[code.values > 0])
    return np.array_equal(got.since_fired, np.where(fired, 0, state.since_fired + len(x)))


def every_part_is_positive_or_counts(call, got, state, x, **settings):
    return got.steps == state.steps + 1 and all((s >= 0).all() for s in got.square)


def pre_activations(params, x):
    return (x - params.b_dec) @ params.w_enc + params.b_enc


CHECKS = {
    "geometric_median": [
        ("the unit vectors from the median to the points cancel", sums_of_unit_vectors_cancel),
        ("moving all points moves the median alike", moves_with_the_points),
    ],
    "init": [("encoder and decoder start tied, rows of length 1, b_enc at 0", starts_tied_and_unit)],
    "encode": [
        ("every value is the ReLU of its own latent's pre-activation", value_belongs_to_its_latent),
        ("k values per row, none negative", at_most_k_and_never_negative),
        ("with k = m it is the ReLU autoencoder", all_kept_is_the_relu_autoencoder),
    ],
    "decode": [("doubling the values doubles all but the bias", is_affine_in_the_values)],
    "loss": [
        ("total = mse + alpha auxk", total_adds_up),
        ("moving x and b_dec alike changes nothing", shift_changes_nothing),
        ("no dead latent, no AuxK", nothing_dead_nothing_added),
    ],
    "gradients": [
        ("AuxK moves no weight of a living latent", auxk_leaves_the_living_alone),
        ("AuxK reaches b_dec only through x - b_dec", auxk_reaches_b_dec_through_centring),
        ("without AuxK it is the slope of the loss", is_the_slope_of_the_loss),
    ],
    "project": [
        ("what is left is orthogonal to every row", is_orthogonal_to_the_rows),
        ("projecting twice is projecting once", projecting_again_changes_nothing),
    ],
    "step": [
        ("decoder rows have length 1 afterwards", rows_stay_unit),
        ("a latent kept with a value above 0 has just fired, no other", the_fired_start_at_zero),
        ("one more step is counted and second moments are not negative", every_part_is_positive_or_counts),
    ],
}

# Slots whose value is 0 after the ReLU add nothing, so they may name any latent.
SCORES = {"encode": lambda params, x, k: np.maximum(pre_activations(params, x), 0)}


# ---------------------------------------------------------------- mistakes


def along_the_batch(params, x, *, k):
    pi = pre_activations(params, x)
    if not 1 <= k <= pi.shape[1]:
        raise ValueError(f"k={k}")
    kept = np.argsort(np.argsort(-pi, axis=0, kind="stable"), axis=0) < k
    return reference._largest(np.where(kept, pi, 0), k)


def by_magnitude(params, x, *, k):
    pi = pre_activations(params, x)
    if not 1 <= k <= pi.shape[1]:
        raise ValueError(f"k={k}")
    latent_idx = np.argsort(-np.abs(pi), axis=1, kind="stable")[:, :k]
    return Code(np.maximum(np.take_along_axis(pi, latent_idx, axis=1), 0), latent_idx)


def no_relu(params, x, *, k):
    code = reference.encode(params, x, k=k)
    return code._replace(values=np.take_along_axis(pre_activations(params, x), code.latent_idx, axis=1))


def not_centred(params, x, *, k):
    return reference.encode(params._replace(b_dec=0 * params.b_dec), x, k=k)


def no_encoder_bias(params, x, *, k):
    return reference.encode(params._replace(b_enc=0 * params.b_enc), x, k=k)


def smallest(params, x, *, k):
    pi = pre_activations(params, x)
    if not 1 <= k <= pi.shape[1]:
        raise ValueError(f"k={k}")
    latent_idx = np.argsort(pi, axis=1, kind="stable")[:, :k]
    return Code(np.maximum(np.take_along_axis(pi, latent_idx, axis=1), 0), latent_idx)


def losing(auxk=None, mse=None):
    """A wrong loss: the reference's forward pass with one term computed otherwise."""

    def wrong(params, x, dead, *, k, k_aux, alpha=1 / 32):
        right = reference.loss(params, x, dead, k=k, k_aux=k_aux, alpha=alpha)
        _, residual, dead_code, error = reference._forward(params, x, dead, k, k_aux)
        one = mse(x, residual) if mse else right.mse
        two = auxk(params, x, dead, residual, dead_code, error, k_aux) if auxk and dead.any() else right.auxk
        return reference.Loss(one + alpha * two, one, two)

    return wrong


def share_left(residual, left):
    return (left**2).sum() / reference._variation(residual)


def with_bias(params, x, dead, residual, dead_code, error, k_aux):
    return share_left(residual, error - params.b_dec)


def signed(params, x, dead, residual, dead_code, error, k_aux):
    own = np.take_along_axis(pre_activations(params, x), dead_code.latent_idx, axis=1)
    f = reference._dense(dead_code._replace(values=own), len(dead))
    return share_left(residual, residual - f @ params.w_dec)


def of_the_living(params, x, dead, residual, dead_code, error, k_aux):
    code = reference._largest(np.where(dead, -np.inf, pre_activations(params, x)), min(k_aux, (~dead).sum()))
    return share_left(residual, residual - reference._dense(code, len(dead)) @ params.w_dec)


def of_x(params, x, dead, residual, dead_code, error, k_aux):
    return share_left(x, error)


class Pulls(NamedTuple):
    """One forward pass and what its two losses pull: on the output, and on the output of the dead."""

    params: Params
    x: np.ndarray
    code: Code
    on_output: np.ndarray
    dead_code: Code
    on_aux: np.ndarray
    on_residual: np.ndarray


def pulling(change):
    """A wrong gradient: `change` of the right one, given the pulls behind it."""

    def wrong(params, x, dead, *, k, k_aux, alpha=1 / 32):
        right = reference.gradients(params, x, dead, k=k, k_aux=k_aux, alpha=alpha)
        code, e, dead_code, left = reference._forward(params, x, dead, k, k_aux)
        on_output = -2 * e / reference._variation(x)
        on_aux = on_residual = 0 * e
        if dead.any() and reference._differ(e):
            spread, centred = reference._variation(e), e - e.mean(axis=0)
            on_aux = -2 * alpha * left / spread
            on_residual = -on_aux - 2 * alpha * (left**2).sum() * centred / spread**2
        return change(right, Pulls(params, x, code, on_output, dead_code, on_aux, on_residual))

    return wrong


def add(one, other, sign=1.0):
    return Params(*(a + sign * b for a, b in zip(one, other, strict=True)))


def not_detached(right, p):
    through = reference._backward(p.params, p.x, p.code, -p.on_residual)
    return add(right, through._replace(b_dec=through.b_dec - p.on_residual.sum(axis=0)))


def aux_with_bias(right, p):
    return right._replace(b_dec=right.b_dec + p.on_aux.sum(axis=0))


def centring_forgotten(right, p):
    return right._replace(b_dec=p.on_output.sum(axis=0))


def output_bias_forgotten(right, p):
    return right._replace(b_dec=right.b_dec - p.on_output.sum(axis=0))


def every_latent_feels(right, p):
    on_pi = p.on_output @ p.params.w_dec.T
    return right._replace(w_enc=(p.x - p.params.b_dec).T @ on_pi, b_enc=on_pi.sum(axis=0))


def encoder_not_centred(right, p):
    return right._replace(w_enc=right.w_enc + np.outer(p.params.b_dec, right.b_enc))


def aux_trains_the_decoder_only(right, p):
    aux = reference._backward(p.params, p.x, p.dead_code, p.on_aux)
    return add(right, aux._replace(w_dec=0 * aux.w_dec), -1.0)


def columns(w_dec, grad):
    if w_dec.shape != grad.shape:
        raise ValueError(f"{w_dec.shape} {grad.shape}")
    return grad - (grad * w_dec).sum(axis=0) * w_dec


def no_length(w_dec, grad):
    return grad - (grad * w_dec).sum(axis=1, keepdims=True)


def only_the_part_along(w_dec, grad):
    return grad - reference.project(w_dec, grad)


def stepping(**replaced):
    """A wrong step: the reference's, with one of its parts replaced."""
    parts = dict(
        project=reference.project,
        renorm=unit_rows,
        fired=lambda code: code.latent_idx[code.values > 0],
        passed=len,
        correction=lambda beta, steps: 1 - beta**steps,
        dead=lambda since, window: since >= window,
    )
    parts |= replaced

    def wrong(state, x, *, k, k_aux, window, lr, alpha=1 / 32, beta1=0.9, beta2=0.999, eps=1e-8):
        if window < 1:
            raise ValueError(f"window={window}")
        weights, code = state.params, reference.encode(state.params, x, k=k)
        since = state.since_fired + parts["passed"](x)
        since[parts["fired"](code)] = 0
        grad = reference.gradients(weights, x, parts["dead"](since, window), k=k, k_aux=k_aux, alpha=alpha)
        grad = grad._replace(w_dec=parts["project"](weights.w_dec, grad.w_dec))
        steps = state.steps + 1
        mean = Params(*(beta1 * m + (1 - beta1) * g for m, g in zip(state.mean, grad, strict=True)))
        square = Params(*(beta2 * s + (1 - beta2) * g * g for s, g in zip(state.square, grad, strict=True)))
        moved = [
            p
            - lr
            * (a / parts["correction"](beta1, steps))
            / (np.sqrt(b / parts["correction"](beta2, steps)) + eps)
            for p, a, b in zip(weights, mean, square, strict=True)
        ]
        moved[2] = parts["renorm"](moved[2])
        return State(Params(*moved), mean, square, steps, since)

    return wrong


def unit_columns(w):
    return w / np.linalg.norm(w, axis=0, keepdims=True)


WRONG = {
    "encode": [
        ("the k largest of each row (one input), not of each column (one latent)", along_the_batch),
        ("rank the pre-activations, not their magnitude: a large negative one is not kept", by_magnitude),
        ("after the selection comes the ReLU: a kept negative pre-activation counts as 0", no_relu),
        ("the decoder bias is subtracted from x first", not_centred),
        ("the encoder bias is missing", no_encoder_bias),
        ("keep the largest, not the smallest", smallest),
    ],
    "loss": [
        ("the dead latents decode without bias: the residual excludes b_dec already", losing(with_bias)),
        ("the values of dead latents pass the ReLU too", losing(signed)),
        ("AuxK is made of the dead latents, not of the living", losing(of_the_living)),
        ("AuxK is a share of the variance of the residual, not of x", losing(of_x)),
        (
            "the denominator is the variation about the mean of the batch, not about 0",
            losing(mse=lambda x, residual: (residual**2).sum() / (x**2).sum()),
        ),
        (
            "one ratio of two sums, not a mean of ratios",
            losing(
                mse=lambda x, residual: np.mean(
                    (residual**2).sum(axis=1) / ((x - x.mean(axis=0)) ** 2).sum(axis=1)
                )
            ),
        ),
    ],
    "gradients": [
        ("the residual is a constant in AuxK: it must not pull on living latents", pulling(not_detached)),
        (
            "the dead latents decode without bias, so AuxK has no direct pull on b_dec",
            pulling(aux_with_bias),
        ),
        ("b_dec is also subtracted from x in the encoder: that path is missing", pulling(centring_forgotten)),
        ("b_dec is also added to the output: that path is missing", pulling(output_bias_forgotten)),
        ("only latents kept with a value above 0 feel the output", pulling(every_latent_feels)),
        ("the encoder saw x - b_dec, not x", pulling(encoder_not_centred)),
        ("AuxK trains the encoder of the dead latents as well", pulling(aux_trains_the_decoder_only)),
    ],
    "project": [
        ("a direction is a row: sum over axis 1", columns),
        ("subtract the component times the direction itself", no_length),
        ("remove the part along the row and keep the rest", only_the_part_along),
    ],
    "step": [
        ("the decoder's gradient is projected before Adam", stepping(project=lambda w, g: g)),
        ("scale the rows of w_dec to length 1, not the columns", stepping(renorm=unit_columns)),
        ("after Adam the rows of w_dec are scaled to length 1 again", stepping(renorm=lambda w: w)),
        ("a latent kept with value 0 has not fired", stepping(fired=lambda code: code.latent_idx)),
        ("`since_fired` counts inputs, not steps", stepping(passed=lambda x: 1)),
        (
            "a latent is dead as soon as `since_fired` reaches the window",
            stepping(dead=lambda since, window: since > window),
        ),
        ("Adam's moments start at 0: divide by 1 - beta^t", stepping(correction=lambda beta, t: 1.0)),
        (
            "the bias correction counts this step: t starts at 1",
            stepping(correction=lambda beta, t: 1 - beta ** max(t - 1, 1)),
        ),
    ],
}


# ---------------------------------------------------------------- right, written otherwise


def relu_first(params, x, *, k):
    if x.shape[1] != len(params.w_enc) or not 1 <= k <= params.b_enc.size:
        raise ValueError(f"x {x.shape}, k={k}")
    f = np.maximum(x @ params.w_enc + (params.b_enc - params.b_dec @ params.w_enc), 0)
    latent_idx = f.argsort(axis=1)[:, ::-1][:, :k]
    return np.take_along_axis(f, latent_idx, axis=1), latent_idx


def in_words(params, x, dead, *, k, k_aux, alpha=1 / 32):
    """The loss by plain loops over the inputs."""
    code = reference.encode(params, x, k=k)
    if k_aux < 1 or len(dead) != params.b_enc.size or (x == x[0]).all():
        raise ValueError(f"k_aux={k_aux}")
    rows = [v @ params.w_dec[i] + params.b_dec for v, i in zip(*code, strict=True)]
    e = x - np.array(rows)
    left = e.copy()
    for b, pi in enumerate(np.maximum(pre_activations(params, x), 0)):
        for i in sorted(np.flatnonzero(dead), key=lambda i: -pi[i])[:k_aux]:  # noqa: B023
            left[b] -= pi[i] * params.w_dec[i]
    mse = np.sum(e * e) / (x.var(axis=0).sum() * len(x))
    auxk = (
        np.sum(left * left) / (e.var(axis=0).sum() * len(e))
        if dead.any() and np.ptp(e, axis=0).any()
        else 0.0
    )
    return mse + alpha * auxk, mse, auxk


def latent_by_latent(params, x, dead, *, k, k_aux, alpha=1 / 32):
    """The gradients one kept latent of one input at a time."""
    _, residual, dead_code, error = reference._forward(params, x, dead, k, k_aux)
    code = reference.encode(params, x, k=k)
    w_enc, b_enc, w_dec, b_dec = (np.zeros_like(p) for p in params)
    terms = [(code, 2 / reference._variation(x) * -residual)]
    b_dec += terms[0][1].sum(axis=0)
    if dead.any() and residual.any():
        terms.append((dead_code, 2 * alpha / reference._variation(residual) * -error))
    for one, pull in terms:
        for b in range(len(x)):
            for value, i in zip(one.values[b], one.latent_idx[b], strict=True):
                if value > 0:
                    slope = pull[b] @ params.w_dec[i]
                    w_dec[i] += value * pull[b]
                    w_enc[:, i] += slope * (x[b] - params.b_dec)
                    b_enc[i] += slope
                    b_dec -= slope * params.w_enc[:, i]
    return w_enc, b_enc, w_dec, b_dec


def by_matrices(w_dec, grad):
    if w_dec.shape != grad.shape:
        raise ValueError(f"{w_dec.shape} {grad.shape}")
    return np.array([(np.eye(w.size) - np.outer(w, w)) @ g for w, g in zip(w_dec, grad, strict=True)])


RIGHT = {
    "encode": [relu_first],
    "loss": [in_words],
    "gradients": [latent_by_latent],
    "project": [by_matrices],
    "step": [stepping()],
}

EQUIVALENT = {
    "step": {
        "w_dec.shape != grad.shape => False (if w_dec.shape != grad.shape:)": (
            "a gradient has the shape of its weight"
        ),
        "dead.shape != params.b_enc.shape => False (if dead.shape != params.b_enc.shape:)": (
            "`dead` comes from `since_fired`, one entry for each latent"
        ),
    }
}

HINTS = {
    "encode": [
        "Three moves: centre x, apply the affine encoder, choose k latents of each row.",
        "Sort each row of pi by falling value, stably, and take the first k indices; then take their values.",
        "np.argsort(-pi, axis=1, kind='stable')[:, :k] are the indices; np.maximum(values, 0) the values.",
    ],
    "loss": [
        "Two shares of variance, one of x and one of the residual e; each is one number over another.",
        "mse: the sum of e squared over that of (x - its mean over the batch) squared. auxk: the same with e "
        "for x, and above the bar what the k_aux largest dead latents leave of e, decoded without bias.",
        "np.where(dead, pi, -np.inf) hides the living; choose min(k_aux, dead.sum()); none dead: auxk = 0.",
    ],
    "gradients": [
        "Write the pull on the output first: how does the loss change with x'? All else follows from it.",
        "f the dense code, g the pull on x': w_dec gets f.T @ g. A latent with f > 0 gets g @ w_dec.T and "
        "passes it on to w_enc (times x - b_dec), to b_enc and, with a minus sign, to b_dec.",
        "g = -2 (x - x') / sum((x - mean)^2). AuxK has its own f (of dead latents) and its own g; only the "
        "first g reaches b_dec directly.",
    ],
    "project": [
        "A row of length 1 may turn but must not grow: which part of its gradient would make it grow?",
        "That part is the gradient's component along the row: one number for each row.",
        "grad - (grad * w_dec).sum(axis=1, keepdims=True) * w_dec",
    ],
    "step": [
        "Follow the three points of the docstring in order; the weights used before Adam are the old ones.",
        "Count first: every since_fired grows by len(x), then those kept with a value above 0 go to 0.",
        "Adam: mean / (1 - beta1**t) over sqrt(square / (1 - beta2**t)) + eps with t = steps + 1; then "
        "divide w_dec by the lengths of its rows.",
    ],
}
