"""TopK SAE in NumPy: the definition."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from sparselab.topk.exact import reference as exact

__all__ = ["geometric_median", "init", "encode", "decode", "loss", "gradients", "project", "start", "step"]


class Params(NamedTuple):
    """Weights of the autoencoder; row i of `w_dec` is the direction of latent i."""

    w_enc: Float[np.ndarray, "d m"]
    b_enc: Float[np.ndarray, " m"]
    w_dec: Float[np.ndarray, "m d"]
    b_dec: Float[np.ndarray, " d"]


class Code(NamedTuple):
    """The kept latents of each input by falling pre-activation, none twice, and their values >= 0."""

    values: Float[np.ndarray, "b k"]
    latent_idx: Int[np.ndarray, "b k"]


class Loss(NamedTuple):
    """`total = mse + alpha auxk`, each term a share of the variance that is there to explain."""

    total: Float[np.ndarray, ""]
    mse: Float[np.ndarray, ""]
    auxk: Float[np.ndarray, ""]


class State(NamedTuple):
    """Training state: weights, Adam's two moments, steps taken, inputs since each latent last fired."""

    params: Params
    mean: Params
    square: Params
    steps: int
    since_fired: Int[np.ndarray, " m"]


def geometric_median(x: Float[np.ndarray, "b d"], *, iterations: int = 100) -> Float[np.ndarray, " d"]:
    """The point with the least sum of distances to the rows of x, by Weiszfeld's iteration from the mean.

        c <- sum_b w_b x_b / sum_b w_b,   w_b = 1 / max(|x_b - c|, 1e-12)

    Raises ValueError where x has no row.
    """
    if not len(x):
        raise ValueError(f"the median of {len(x)} rows is not defined")
    centre = x.mean(axis=0)
    for _ in range(iterations):
        weight = 1 / np.maximum(np.linalg.norm(x - centre, axis=1), 1e-12)
        centre = weight @ x / weight.sum()
    return centre


def init(x: Float[np.ndarray, "b d"], directions: Float[np.ndarray, "m d"]) -> Params:
    """Weights to start from: decoder rows of length 1 along `directions` (normal draws), the encoder its
    transpose, no encoder bias, and the geometric median of the sample x as decoder bias.

    Raises ValueError where the widths differ or a direction is zero.
    """
    if x.shape[1] != directions.shape[1]:
        raise ValueError(f"x has width {x.shape[1]}, the directions {directions.shape[1]}")
    length = np.linalg.norm(directions, axis=1, keepdims=True)
    if not length.all():
        raise ValueError(f"direction {int(length.argmin())} is zero and has no unit vector")
    w_dec = directions / length
    return Params(w_dec.T.copy(), np.zeros(len(w_dec)), w_dec, geometric_median(x))


def encode(params: Params, x: Float[np.ndarray, "b d"], *, k: int) -> Code:
    """The k largest pre-activations of each row, then their ReLU; of equals the lower index is kept.

    Raises ValueError where the width of x is not the encoder's or k lies outside 1..m.
    """
    d, m = params.w_enc.shape
    if x.shape[1] != d:
        raise ValueError(f"x has width {x.shape[1]}, the encoder takes {d}")
    if not 1 <= k <= m:
        raise ValueError(f"k={k} must lie in 1..{m}, the latents")
    return _largest(_pre_activations(params, x), k)


def decode(params: Params, code: Code) -> Float[np.ndarray, "b d"]:
    """The sum of each row's kept directions, weighted by their values, plus b_dec."""
    return _dense(code, len(params.w_dec)) @ params.w_dec + params.b_dec


def loss(
    params: Params,
    x: Float[np.ndarray, "b d"],
    dead: Bool[np.ndarray, " m"],
    *,
    k: int,
    k_aux: int,
    alpha: float = 1 / 32,
) -> Loss:
    """Share of variance left by the kept latents, plus alpha times the share of it left by the dead ones.

        mse = |x - x'|^2 / |x - mean x|^2,   auxk = |e - e'|^2 / |e - mean e|^2,   e = x - x'

    `auxk` is 0 where no latent is dead or all residuals e are equal. Raises ValueError as `encode` does, and
    where k_aux is below 1 or all rows of x are equal.
    """
    _, residual, _, error = _forward(params, x, dead, k, k_aux)
    mse = (residual**2).sum() / _variation(x)
    auxk = (error**2).sum() / _variation(residual) if dead.any() and _differ(residual) else np.float64(0)
    return Loss(mse + alpha * auxk, mse, auxk)


def gradients(
    params: Params,
    x: Float[np.ndarray, "b d"],
    dead: Bool[np.ndarray, " m"],
    *,
    k: int,
    k_aux: int,
    alpha: float = 1 / 32,
) -> Params:
    """What training follows: d loss.total / d params with the choice of latents and e held constant.

    Because e is constant, AuxK pulls on the dead latents alone, and on b_dec through x - b_dec. Raises
    ValueError as `loss` does.
    """
    code, residual, dead_code, error = _forward(params, x, dead, k, k_aux)
    on_output = -2 * residual / _variation(x)
    pull = _backward(params, x, code, on_output)
    pull = pull._replace(b_dec=pull.b_dec + on_output.sum(axis=0))
    if not _differ(residual):
        return pull
    on_aux = -2 * alpha * error / _variation(residual)
    return Params(*map(np.add, pull, _backward(params, x, dead_code, on_aux)))


def project(w_dec: Float[np.ndarray, "m d"], grad: Float[np.ndarray, "m d"]) -> Float[np.ndarray, "m d"]:
    """The gradient without the part that would only change a row's length: g_i - (g_i . w_i) w_i.

    The rows of `w_dec` have length 1. Raises ValueError where the shapes differ.
    """
    if w_dec.shape != grad.shape:
        raise ValueError(f"w_dec has shape {w_dec.shape}, its gradient {grad.shape}")
    return grad - (grad * w_dec).sum(axis=1, keepdims=True) * w_dec


def start(params: Params) -> State:
    """The state before the first step: moments zero, every latent counted as just fired."""
    zero = Params(*(np.zeros_like(p) for p in params))
    return State(params, zero, zero, 0, np.zeros(len(params.w_dec), np.int64))


def step(
    state: State,
    x: Float[np.ndarray, "b d"],
    *,
    k: int,
    k_aux: int,
    window: int,
    lr: float,
    alpha: float = 1 / 32,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
) -> State:
    """One training step on the batch x.

    1. `since_fired` grows by b, and is 0 for each latent kept with a value above 0; dead: `>= window`.
    2. Gradients; the decoder's is projected.
    3. Adam, with bias correction; then the decoder's rows are scaled to length 1.

    Raises ValueError as `loss` does, and where the window, in inputs, is below 1.
    """
    if window < 1:
        raise ValueError(f"window={window} must be at least 1 input")
    params = state.params
    code = encode(params, x, k=k)
    since_fired = state.since_fired + len(x)
    since_fired[code.latent_idx[code.values > 0]] = 0
    grad = gradients(params, x, since_fired >= window, k=k, k_aux=k_aux, alpha=alpha)
    grad = grad._replace(w_dec=project(params.w_dec, grad.w_dec))
    steps = state.steps + 1
    mean = Params(*map(lambda m, g: beta1 * m + (1 - beta1) * g, state.mean, grad))
    square = Params(*map(lambda s, g: beta2 * s + (1 - beta2) * g**2, state.square, grad))

    def moved(p, m, s):
        return p - lr * (m / (1 - beta1**steps)) / (np.sqrt(s / (1 - beta2**steps)) + eps)

    params = Params(*map(moved, params, mean, square))
    length = np.linalg.norm(params.w_dec, axis=1, keepdims=True)
    return State(params._replace(w_dec=params.w_dec / length), mean, square, steps, since_fired)


def _forward(params, x, dead, k, k_aux):
    """The code, what it leaves of x, the code of the dead latents, and what they leave of that."""
    code = encode(params, x, k=k)
    if k_aux < 1:
        raise ValueError(f"k_aux={k_aux} must be at least 1")
    if dead.shape != params.b_enc.shape:
        raise ValueError(f"dead has {dead.size} entries for {params.b_enc.size} latents")
    if not _differ(x):
        raise ValueError(f"x has {len(x)} rows and they do not differ: no variance is there to explain")
    residual = x - decode(params, code)
    of_dead = np.where(dead, _pre_activations(params, x), -np.inf)
    dead_code = _largest(of_dead, min(k_aux, int(dead.sum())))
    return code, residual, dead_code, residual - _dense(dead_code, len(params.w_dec)) @ params.w_dec


def _backward(params, x, code, on_output):
    """Gradients of <on_output, f W_dec> where f is the code: only latents with a value above 0 feel any."""
    f = _dense(code, len(params.w_dec))
    on_pi = on_output @ params.w_dec.T * (f > 0)
    return Params(
        w_enc=(x - params.b_dec).T @ on_pi,
        b_enc=on_pi.sum(axis=0),
        w_dec=f.T @ on_output,
        b_dec=-(on_pi @ params.w_enc.T).sum(axis=0),
    )


def _pre_activations(params, x):
    return (x - params.b_dec) @ params.w_enc + params.b_enc


def _largest(pi, k):
    values, latent_idx = exact.topk(pi, k=k)
    return Code(np.maximum(values, 0), latent_idx)


def _dense(code, m):
    f = np.zeros((len(code.values), m))
    np.put_along_axis(f, code.latent_idx, code.values, axis=1)
    return f


def _differ(x):
    return bool((x != x[:1]).any())


def _variation(x):
    """|x - mean x|^2, summed over rows and columns."""
    return ((x - x.mean(axis=0)) ** 2).sum()
