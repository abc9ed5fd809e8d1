"""TopK SAE beside what the common libraries compute: dense codes, or bags with `index_add` gradients."""

import numpy as np
import torch
import torch.nn.functional as F

from sparselab.bench import Case, Peer
from sparselab.sae.topk.reference import Code, Params

B, D, M, K = 1024, 768, 16384, 32


def params(rng, b_enc):
    """Weights with decoder rows of length 1 and a tied encoder."""
    w_dec = rng.standard_normal((M, D))
    w_dec /= np.linalg.norm(w_dec, axis=1, keepdims=True)
    return Params(w_dec.T, b_enc, w_dec, 0.1 * rng.standard_normal(D))


def codes(rng, chance):
    """K different latents for each input, drawn with the given chances: the first K of exponential clocks."""
    latent_idx = np.argpartition(rng.exponential(size=(B, M)) / chance, K, axis=1)[:, :K]
    return dict(params=params(rng, np.zeros(M)), code=Code(np.abs(rng.standard_normal((B, K))), latent_idx))


def batch(rng, x, *, favour=0.0):
    """Inputs and weights; a bias that falls over the latents lets the first of them do most of the work."""
    weights = params(rng, -favour * np.log1p(np.arange(M)))
    return dict(params=weights, x=x, dead=np.zeros(M, bool), k=K, k_aux=D // 2)


def dense_decode(params, code):
    """Scatter the code into (B, M) zeros, then one matrix product."""
    f = code.values.new_zeros(len(code.values), len(params.w_dec)).scatter_(1, code.latent_idx, code.values)
    return f @ params.w_dec + params.b_dec


def csr_decode(params, code):
    """The code as a sparse matrix, torch's own product."""
    b, k = code.values.shape
    rows = torch.arange(0, b * k + 1, k, device=code.values.device)
    f = torch.sparse_csr_tensor(
        rows, code.latent_idx.flatten(), code.values.flatten(), (b, len(params.w_dec))
    )
    return f @ params.w_dec + params.b_dec


def dense_gradients(params, x, dead, k, k_aux):
    """Autograd through a dense code: dictionary_learning, overcomplete, SAELens by default."""
    w_enc, b_enc, w_dec, b_dec = leaves = [p.detach().requires_grad_() for p in params]
    pi = F.linear(x - b_dec, w_enc.T, b_enc)
    values, latent_idx = pi.relu().topk(k, sorted=False)
    x_hat = torch.zeros_like(pi).scatter(1, latent_idx, values) @ w_dec + b_dec
    return torch.autograd.grad(mse(x, x_hat), leaves)


class BagEncoder(torch.autograd.Function):
    """Linear and top-k whose backward adds up one outer product for each kept latent: sparsify."""

    @staticmethod
    def forward(ctx, x, w, b, k):
        values, latent_idx = F.linear(x, w, b).relu().topk(k, sorted=False)
        ctx.save_for_backward(x, w, values, latent_idx)
        ctx.mark_non_differentiable(latent_idx)
        return values, latent_idx

    @staticmethod
    def backward(ctx, slope, _):
        x, w, values, latent_idx = ctx.saved_tensors
        slope, latents = slope * (values > 0), latent_idx.flatten()
        on_w = torch.zeros_like(w).index_add_(0, latents, (slope.unsqueeze(2) * x.unsqueeze(1)).flatten(0, 1))
        on_b = w.new_zeros(len(w)).index_add_(0, latents, slope.flatten())
        return F.embedding_bag(latent_idx, w, per_sample_weights=slope, mode="sum"), on_w, on_b, None


def bag_gradients(params, x, dead, k, k_aux):
    """Autograd through embedding bags, one outer product per kept latent: sparsify without Triton."""
    w_enc, b_enc, w_dec, b_dec = params
    leaves = [p.detach().requires_grad_() for p in (w_enc.T, b_enc, w_dec, b_dec)]
    w, b_enc, w_dec, b_dec = leaves
    values, latent_idx = BagEncoder.apply(x - b_dec, w, b_enc, k)
    x_hat = F.embedding_bag(latent_idx, w_dec, per_sample_weights=values, mode="sum") + b_dec
    on_w, *others = torch.autograd.grad(mse(x, x_hat), leaves)
    return on_w.T, *others


def mse(x, x_hat):
    """The loss without its AuxK, for no latent is dead."""
    return (x - x_hat).square().sum() / (x - x.mean(0)).square().sum()


CASES = [
    Case(
        id="S1",
        text=f"decode {B} codes of {K} of {M} latents to width {D}",
        op="decode",
        inputs={
            "latents even": lambda rng: codes(rng, np.ones(M)),
            "latents by Zipf": lambda rng: codes(rng, 1 / (1.0 + np.arange(M))),
            "one latent in sixteen": lambda rng: codes(rng, np.where(np.arange(M) % 16, 1e-9, 1)),
        },
        peers={"dense code": Peer(dense_decode), "CSR code": Peer(csr_decode)},
        read=4 * B * K * D,
        written=4 * B * D,
        levels={"on par": 25.0, "excellent": 36.0, "beyond": 45.0},
    ),
    Case(
        id="S2",
        text=f"loss gradients of {B} inputs, width {D}, {K} of {M} latents, none dead",
        op="gradients",
        inputs={
            "latents even": lambda rng: batch(rng, rng.standard_normal((B, D))),
            "few latents favoured": lambda rng: batch(rng, rng.standard_normal((B, D)), favour=0.5),
            "heavy tail": lambda rng: batch(rng, rng.standard_t(3, (B, D))),
        },
        peers={"dense code": Peer(dense_gradients), "bags, index_add": Peer(bag_gradients)},
        read=4 * (2 * D * M + B * M),
        written=4 * (2 * D * M + B * M),
        flops=2 * B * D * M,
        levels={"on par": 2.9, "excellent": 3.9, "beyond": 4.9},
        atol=1e-8,
    ),
]
