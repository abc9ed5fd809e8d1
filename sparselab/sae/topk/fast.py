"""TopK SAE in torch: kept latents only, forward and backward; no dense code (b, m) is ever built.

The encoder's product is the one dense operation left. Decoding is an embedding bag over latents, and so is
each weight gradient, over the inputs that kept a latent. `init` stores w_enc as the view of an (m, d) array,
so that both weights have one contiguous row for each latent.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.optim.adam import adam

from sparselab.topk.exact import fast as exact

__all__ = ["geometric_median", "init", "encode", "decode", "loss", "gradients", "project", "start", "step"]


class Params(NamedTuple):
    w_enc: Float[Tensor, "d m"]
    b_enc: Float[Tensor, " m"]
    w_dec: Float[Tensor, "m d"]
    b_dec: Float[Tensor, " d"]


class Code(NamedTuple):
    values: Float[Tensor, "b k"]
    latent_idx: Int[Tensor, "b k"]


class Loss(NamedTuple):
    total: Float[Tensor, ""]
    mse: Float[Tensor, ""]
    auxk: Float[Tensor, ""]


class State(NamedTuple):
    params: Params
    mean: Params
    square: Params
    steps: int
    since_fired: Int[Tensor, " m"]


def geometric_median(x: Float[Tensor, "b d"], *, iterations: int = 100) -> Float[Tensor, " d"]:
    if not len(x):
        raise ValueError(f"the median of {len(x)} rows is not defined")
    centre = x.mean(dim=0)
    for _ in range(iterations):
        weight = 1 / torch.linalg.vector_norm(x - centre, dim=1).clamp(min=1e-12)
        centre = weight @ x / weight.sum()
    return centre


def init(x: Float[Tensor, "b d"], directions: Float[Tensor, "m d"]) -> Params:
    if x.shape[1] != directions.shape[1]:
        raise ValueError(f"x has width {x.shape[1]}, the directions {directions.shape[1]}")
    length = torch.linalg.vector_norm(directions, dim=1, keepdim=True)
    if not length.all():
        raise ValueError(f"direction {int(length.argmin())} is zero and has no unit vector")
    w_dec = directions / length
    return Params(w_dec.clone().T, w_dec.new_zeros(len(w_dec)), w_dec, geometric_median(x))


def encode(params: Params, x: Float[Tensor, "b d"], *, k: int) -> Code:
    d, m = params.w_enc.shape
    if x.shape[1] != d:
        raise ValueError(f"x has width {x.shape[1]}, the encoder takes {d}")
    if not 1 <= k <= m:
        raise ValueError(f"k={k} must lie in 1..{m}, the latents")
    pi = torch.addmm(params.b_enc - params.b_dec @ params.w_enc, x, params.w_enc)
    values, latent_idx = exact.topk(pi, k=k)
    return Code(values.relu(), latent_idx)


def decode(params: Params, code: Code) -> Float[Tensor, "b d"]:
    return _sum_of_rows(params.w_dec, code) + params.b_dec


def loss(
    params: Params,
    x: Float[Tensor, "b d"],
    dead: Bool[Tensor, " m"],
    *,
    k: int,
    k_aux: int,
    alpha: float = 1 / 32,
) -> Loss:
    """As the reference; differentiable, with `gradients` as its gradient."""
    code = encode(params, x, k=k)
    _check(params, x, dead, k_aux)
    residual = x - decode(params, code)
    mse = residual.square().sum() / _variation(x)
    auxk = torch.zeros_like(mse)
    if dead.any() and _differ(residual):
        residual = residual.detach()
        asleep, dead_code = _dead(params, x, dead, k_aux)
        auxk = (residual - _sum_of_rows(asleep.w_dec, dead_code)).square().sum() / _variation(residual)
    return Loss(mse + alpha * auxk, mse, auxk)


@torch.no_grad()
def gradients(
    params: Params,
    x: Float[Tensor, "b d"],
    dead: Bool[Tensor, " m"],
    *,
    k: int,
    k_aux: int,
    alpha: float = 1 / 32,
) -> Params:
    return _gradients(params, x, encode(params, x, k=k), dead, k_aux, alpha)


def project(w_dec: Float[Tensor, "m d"], grad: Float[Tensor, "m d"]) -> Float[Tensor, "m d"]:
    if w_dec.shape != grad.shape:
        raise ValueError(f"w_dec has shape {tuple(w_dec.shape)}, its gradient {tuple(grad.shape)}")
    along = torch.linalg.vecdot(grad, w_dec).unsqueeze(1)
    return torch.addcmul(grad, along, w_dec, value=-1)


def start(params: Params) -> State:
    mean, square = (Params(*(torch.zeros_like(p) for p in params)) for _ in range(2))
    return State(params, mean, square, 0, torch.zeros_like(params.b_enc, dtype=torch.int64))


@torch.no_grad()
def step(
    state: State,
    x: Float[Tensor, "b d"],
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
    if window < 1:
        raise ValueError(f"window={window} must be at least 1 input")
    code = encode(state.params, x, k=k)
    since_fired = state.since_fired + len(x)
    since_fired[code.latent_idx[code.values > 0]] = 0
    grad = _gradients(state.params, x, code, since_fired >= window, k_aux, alpha)
    grad = grad._replace(w_dec=project(state.params.w_dec, grad.w_dec))
    params, mean, square = (_copy(part) for part in state[:3])
    adam(
        *(_by_latent(part) for part in (params, grad, mean, square)),
        max_exp_avg_sqs=[],
        state_steps=[torch.tensor(float(state.steps), device=p.device) for p in params],
        fused=True,
        amsgrad=False,
        beta1=beta1,
        beta2=beta2,
        lr=lr,
        weight_decay=0.0,
        eps=eps,
        maximize=False,
    )
    params.w_dec.div_(torch.linalg.vector_norm(params.w_dec, dim=1, keepdim=True))
    return State(params, mean, square, state.steps + 1, since_fired)


def _copy(params: Params) -> Params:
    """A copy whose w_enc is the view of an (m, d) array, as its gradient is."""
    fresh = dict(memory_format=torch.contiguous_format)
    w_enc, w_dec = params.w_enc.T.clone(**fresh).T, params.w_dec.clone(**fresh)
    return Params(w_enc, params.b_enc.clone(), w_dec, params.b_dec.clone())


def _by_latent(params: Params) -> list[Tensor]:
    """The contiguous arrays: fused Adam goes by memory order, whatever the strides say."""
    return [params.w_enc.T, params.b_enc, params.w_dec, params.b_dec]


def _check(params: Params, x: Tensor, dead: Tensor, k_aux: int) -> None:
    if k_aux < 1:
        raise ValueError(f"k_aux={k_aux} must be at least 1")
    if dead.shape != params.b_enc.shape:
        raise ValueError(f"dead has {dead.numel()} entries for {params.b_enc.numel()} latents")
    if not _differ(x):
        raise ValueError(f"x has {len(x)} rows and they do not differ: no variance is there to explain")


def _gradients(params: Params, x: Tensor, code: Code, dead: Tensor, k_aux: int, alpha: float) -> Params:
    _check(params, x, dead, k_aux)
    residual = x - decode(params, code)
    on_output = residual * (-2 / _variation(x))
    pull = _backward(params, x, code, on_output)
    pull.b_dec.add_(on_output.sum(dim=0))
    if dead.any() and _differ(residual):
        asleep, dead_code = _dead(params, x, dead, k_aux)
        error = residual - _sum_of_rows(asleep.w_dec, dead_code)
        aux = _backward(asleep, x, dead_code, error * (-2 * alpha / _variation(residual)))
        which = dead.nonzero().squeeze(1)
        pull.w_enc.T.index_add_(0, which, aux.w_enc.T)
        pull.b_enc.index_add_(0, which, aux.b_enc)
        pull.w_dec.index_add_(0, which, aux.w_dec)
        pull.b_dec.add_(aux.b_dec)
    return pull


def _dead(params: Params, x: Tensor, dead: Tensor, k_aux: int) -> tuple[Params, Code]:
    """The autoencoder that the dead latents are on their own, and its code of x."""
    which = dead.nonzero().squeeze(1)
    asleep = Params(params.w_enc.T[which].T, params.b_enc[which], params.w_dec[which], params.b_dec)
    return asleep, encode(asleep, x, k=min(k_aux, len(which)))


def _backward(params: Params, x: Tensor, code: Code, on_output: Tensor) -> Params:
    """Gradients of <on_output, f W_dec>, f the code; each weight's is one bag per latent, over its inputs."""
    on_pi = _row_products(params.w_dec, code.latent_idx, on_output) * (code.values > 0)
    m = len(params.w_dec)
    order = code.latent_idx.flatten().argsort(stable=True)
    rows = order // code.latent_idx.shape[1]
    count = torch.bincount(code.latent_idx.flatten(), minlength=m)
    bags = dict(input=rows, offsets=count.cumsum(0) - count, mode="sum")
    on_latent, values = on_pi.flatten()[order], code.values.flatten()[order]
    w_enc = F.embedding_bag(weight=x - params.b_dec, per_sample_weights=on_latent, **bags).T
    w_dec = F.embedding_bag(weight=on_output, per_sample_weights=values, **bags)
    b_enc = on_pi.new_zeros(m).index_add_(0, code.latent_idx.flatten(), on_pi.flatten())
    return Params(w_enc, b_enc, w_dec, -(params.w_enc @ b_enc))


def _sum_of_rows(w_dec: Tensor, code: Code) -> Tensor:
    return F.embedding_bag(code.latent_idx, w_dec, per_sample_weights=code.values, mode="sum")


def _row_products(w_dec: Tensor, latent_idx: Tensor, on_output: Tensor) -> Tensor:
    """<on_output[b], w_dec[latent_idx[b, j]]>: how an embedding bag's output depends on its weights."""
    with torch.enable_grad():
        weights = torch.zeros_like(latent_idx, dtype=w_dec.dtype).requires_grad_()
        bags = F.embedding_bag(latent_idx, w_dec.detach(), per_sample_weights=weights, mode="sum")
        return torch.autograd.grad(bags, weights, on_output)[0]


def _differ(x: Tensor) -> bool:
    return bool((x != x[:1]).any())


def _variation(x: Tensor) -> Tensor:
    return (x - x.mean(dim=0)).square().sum()
