"""ReLUfication's cases, facts, mistakes and hints."""

import numpy as np

from sparselab.judge import same
from sparselab.lazy.relufication import reference


def cases(rng):
    z = rng.normal(size=(5, 6))
    edge = np.array([[0.5, -0.5, 0.0, 2.0], [0.25, 0.75, -2.0, 0.5]])
    yield "shifted_relu", "a shift of 0.5", dict(z=z, shift=0.5)
    yield "shifted_relu", "a negative shift", dict(z=z, shift=-0.25)
    yield "shifted_relu", "no shift is the ReLU", dict(z=z, shift=0.0)
    yield "shifted_relu", "values at the shift", dict(z=edge, shift=0.5)
    yield "shifted_relu", "one row", dict(z=z[0], shift=1.0)
    yield "shifted_relu", "no tokens", dict(z=z[:0], shift=1.0)
    yield "fatrelu", "a threshold of 0.5", dict(z=z, threshold=0.5)
    yield "fatrelu", "values at the threshold are dropped", dict(z=edge, threshold=0.5)
    yield "fatrelu", "threshold 0 is the ReLU", dict(z=edge, threshold=0.0)
    yield "fatrelu", "nothing passes", dict(z=z, threshold=9.0)
    yield "fatrelu", "one row", dict(z=z[0], threshold=1.0)
    yield "fatrelu", "a negative threshold", dict(z=z, threshold=-0.1)

    x, up, gate = rng.normal(size=(7, 4)), rng.normal(size=(9, 4)), rng.normal(size=(9, 4))
    yield "hidden", "with a gate", dict(x=x, up=up, gate=gate)
    yield "hidden", "without a gate", dict(x=x, up=up, gate=None)
    yield "hidden", "with a gate and a shift", dict(x=x, up=up, gate=gate, shift=0.7)
    yield "hidden", "without a gate, with a shift", dict(x=x, up=up, gate=None, shift=0.7)
    yield "hidden", "a batch of sequences", dict(x=rng.normal(size=(2, 3, 4)), up=up, gate=gate)
    yield "hidden", "all tied at zero", dict(x=np.zeros((2, 4)), up=up, gate=None)
    yield "hidden", "as many neurons as inputs", dict(x=x, up=up[:4], gate=gate[:4], shift=0.1)
    yield "hidden", "one token", dict(x=x[:1], up=up, gate=gate)
    yield "hidden", "one input", dict(x=x, up=up[:, :1], gate=None)
    yield "hidden", "widths that differ", dict(x=x, up=up[:, :3], gate=None)
    yield "hidden", "one input of the gate for four", dict(x=x, up=up, gate=gate[:, :1])
    yield "hidden", "one gate for nine neurons", dict(x=x, up=up, gate=gate[:1])

    scale = rng.uniform(0.5, 2, size=4)
    yield "sparse_norm", "positive scales", dict(x=x, scale=scale)
    yield "sparse_norm", "a negative and a zero scale", dict(x=x, scale=scale * np.array([1, -1, 0, 1]))
    yield "sparse_norm", "small inputs feel eps", dict(x=1e-3 * x, scale=scale)
    yield "sparse_norm", "a large eps", dict(x=x, scale=scale, eps=0.5)
    yield "sparse_norm", "a batch of sequences", dict(x=rng.normal(size=(2, 3, 4)), scale=scale)
    yield "sparse_norm", "a zero token", dict(x=np.zeros((2, 4)), scale=scale)
    yield "sparse_norm", "all negative", dict(x=-np.abs(x), scale=scale)
    yield "sparse_norm", "one scale for four", dict(x=x, scale=scale[:1])
    yield "sparse_norm", "a width of one", dict(x=x[:, :1], scale=scale[:1])

    a = np.maximum(rng.normal(size=(11, 8)) - 1.0, 0) * (np.arange(8) != 3)
    gated = a * np.where(np.arange(8) % 2, -1, 1)
    yield "aggregated_sparsity", "one neuron never fires", dict(a=a)
    yield "aggregated_sparsity", "gated activations have both signs", dict(a=gated)
    yield "aggregated_sparsity", "all fire at once", dict(a=np.abs(a) + 0.1)
    yield "aggregated_sparsity", "silence", dict(a=np.zeros((3, 4)))
    yield "aggregated_sparsity", "one token", dict(a=a[:1])
    yield "aggregated_sparsity", "no tokens", dict(a=a[:0])
    yield "aggregated_sparsity", "one neuron", dict(a=a[:, :1])

    for op in ("union", "loaded"):
        yield op, "windows of 3 in 11 tokens", dict(a=a, window=3)
        yield op, "gated activations have both signs", dict(a=gated, window=2)
        yield op, "windows of one token", dict(a=a, window=1)
        yield op, "one window", dict(a=a, window=11)
        yield op, "a window of more than half", dict(a=a, window=6)
        yield op, "windows that fit", dict(a=a[:8], window=2)
        yield op, "three windows", dict(a=a[:9], window=3)
        yield op, "all active", dict(a=a + 0.1, window=4)
        yield op, "silence", dict(a=np.zeros((5, 4)), window=2)
        yield op, "one token", dict(a=a[:1], window=1)
        yield op, "a window of none", dict(a=a, window=0)
        yield op, "a window longer than the text", dict(a=a, window=12)

    p = np.array([0.02, 0.08, 0.5, 0.9])
    yield "union_density", "8 tokens", dict(p=p, tokens=8)
    yield "union_density", "the card's 8 %", dict(p=np.array(0.08), tokens=2)
    yield "union_density", "one token", dict(p=p, tokens=1)
    yield "union_density", "no tokens", dict(p=p, tokens=0)
    yield "union_density", "rates by layer and neuron", dict(p=rng.random((2, 3)), tokens=4)
    yield "union_density", "a density above 1", dict(p=np.array([0.5, 1.5]), tokens=2)
    yield "union_density", "a negative density", dict(p=np.array([-0.1, 0.5]), tokens=2)
    yield "union_density", "fewer tokens than none", dict(p=p, tokens=-1)


def lowered_by_the_shift(call, got, z, shift):
    return same(got[got > 0], z[got > 0] - shift)


def keeps_its_value(call, got, z, threshold):
    return ((got == 0) | (got == z)).all() and (got[z > threshold] > threshold).all()


def higher_is_sparser(call, got, z, threshold):
    return ((call(threshold=threshold + 0.5) != 0) <= (got != 0)).all()


def gate_decides(call, got, x, up, gate, shift=0.0):
    if gate is None:
        return (got >= 0).all()
    return not got[x @ gate.T <= shift].any() and same(call(up=-up), -got)


def scaling_the_input_changes_nothing(call, got, x, scale, eps=1e-6):
    return same(call(x=3.0 * x, eps=9.0 * eps), got)


def both_halves_make_the_norm(call, got, x, scale, eps=1e-6):
    rms = np.sqrt((x**2).mean(axis=-1, keepdims=True) + eps)
    return same(got - call(x=-x), x / rms * scale)


def never_rises(call, got, a):
    return (np.diff(got) <= 1e-12).all()


def starts_with_one_token_and_ends_with_all(call, got, a):
    if not len(a):
        return got.shape == (0,)
    return same(got[[0, -1]], np.array([(a[0] == 0).mean(), (~a.any(axis=0)).mean()]))


def order_inside_a_window_is_irrelevant(call, got, a, window):
    order = np.arange(len(a))
    full = len(a) // window * window
    order[:full] = order[:full].reshape(-1, window)[:, ::-1].ravel()
    return same(call(a=a[order]), got)


def between_its_tokens_and_their_sum(call, got, a, window):
    full = len(a) // window * window
    share = (a[:full] != 0).mean(axis=1).reshape(-1, window)
    return (got >= share.max(axis=1) - 1e-12).all() and (got <= share.sum(axis=1) + 1e-12).all()


def a_token_more(call, got, p, tokens):
    return same(call(tokens=tokens + 1), got + (1 - got) * p)


def never_and_always(call, got, p, tokens):
    return same(call(p=np.array([0.0, 1.0]), tokens=5), np.array([0.0, 1.0]))


def neurons_that_differ_share_more(call, got, p, tokens):
    return tokens == 0 or got.mean() <= call(p=np.array(p.mean())) + 1e-12


def loading_windows_are_free(call, got, a, window):
    return all(got[i : i + window].all() for i in range(0, len(a), 2 * window))


def a_reusing_window_loads_nothing(call, got, a, window):
    at_hand = (a[:window] != 0).any(axis=0)
    return (got[window : 2 * window] == at_hand).all()


CHECKS = {
    "shifted_relu": [("what passes is lowered by the shift", lowered_by_the_shift)],
    "fatrelu": [
        ("what passes keeps its value, the rest is zero", keeps_its_value),
        ("a higher threshold passes a subset", higher_is_sparser),
    ],
    "hidden": [("zeros come from the gate, the sign of a gated value from up", gate_decides)],
    "sparse_norm": [
        ("scaling the input (and eps with its square) changes nothing", scaling_the_input_changes_nothing),
        ("relu(u) - relu(-u) = u: the two halves are the plain norm", both_halves_make_the_norm),
    ],
    "aggregated_sparsity": [
        ("more tokens never leave more neurons unused", never_rises),
        (
            "first entry: one token's zeros; last: dead neurons",
            starts_with_one_token_and_ends_with_all,
        ),
    ],
    "union": [
        ("the order of the tokens inside a window does not matter", order_inside_a_window_is_irrelevant),
        ("a union holds its largest token and at most the sum of all", between_its_tokens_and_their_sum),
    ],
    "union_density": [
        ("one more token takes a share p of what is still unused", a_token_more),
        ("a rate of 0 stays 0 and a rate of 1 stays 1", never_and_always),
        ("neurons with unequal rates give no larger union than equal ones", neurons_that_differ_share_more),
    ],
    "loaded": [
        ("in windows 0, 2, 4, ... every neuron may be used", loading_windows_are_free),
        ("window 1 uses no neuron that window 0 has not loaded", a_reusing_window_loads_nothing),
    ],
}


# ---------------------------------------------------------------- mistakes


def shift_added(z, *, shift):
    return np.maximum(z + shift, 0)


def shift_outside(z, *, shift):
    return np.maximum(z, 0) - shift


def shift_as_threshold(z, *, shift):
    return np.where(z > shift, z, 0)


def threshold_as_shift(z, *, threshold):
    reference.fatrelu(z, threshold=threshold)
    return np.maximum(z - threshold, 0)


def at_the_threshold_passes(z, *, threshold):
    reference.fatrelu(z, threshold=threshold)
    return np.where(z >= threshold, z, 0)


def magnitude_passes(z, *, threshold):
    reference.fatrelu(z, threshold=threshold)
    return np.where(np.abs(z) > threshold, z, 0)


def mask_only(z, *, threshold):
    reference.fatrelu(z, threshold=threshold)
    return (z > threshold).astype(float)


def relu_on_up(x, up, gate, *, shift=0.0):
    reference.hidden(x, up, gate, shift=shift)
    return reference.hidden(x, gate, up, shift=shift) if gate is not None else np.maximum(x @ up.T - shift, 0)


def relu_on_both(x, up, gate, *, shift=0.0):
    h = reference.hidden(x, up, gate, shift=shift)
    return h if gate is None else np.where(x @ up.T > shift, h, 0)


def relu_of_the_product(x, up, gate, *, shift=0.0):
    h = reference.hidden(x, up, gate, shift=shift)
    return h if gate is None else np.maximum((x @ gate.T) * (x @ up.T) - shift, 0)


def without_the_shift(x, up, gate, *, shift=0.0):
    return reference.hidden(x, up, gate)


def gate_only(x, up, gate, *, shift=0.0):
    reference.hidden(x, up, gate, shift=shift)
    return np.maximum(x @ (up if gate is None else gate).T - shift, 0)


def relu_before_the_norm(x, scale, *, eps=1e-6):
    reference.sparse_norm(x, scale, eps=eps)
    kept = np.maximum(x, 0)
    return kept / np.sqrt((kept**2).mean(axis=-1, keepdims=True) + eps) * scale


def relu_before_the_scale(x, scale, *, eps=1e-6):
    reference.sparse_norm(x, scale, eps=eps)
    return np.maximum(x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + eps), 0) * scale


def centred(x, scale, *, eps=1e-6):
    return reference.sparse_norm(x - x.mean(axis=-1, keepdims=True), scale, eps=eps)


def sum_for_mean(x, scale, *, eps=1e-6):
    reference.sparse_norm(x, scale, eps=eps)
    return np.maximum(x / np.sqrt((x**2).sum(axis=-1, keepdims=True) + eps) * scale, 0)


def no_relu(x, scale, *, eps=1e-6):
    reference.sparse_norm(x, scale, eps=eps)
    return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + eps) * scale


def per_token(a):
    return (a == 0).mean(axis=1)


def running_mean(a):
    return (a == 0).mean(axis=1).cumsum() / np.arange(1, len(a) + 1)


def used_share(a):
    return 1 - reference.aggregated_sparsity(a)


def positive_only(a):
    return reference.aggregated_sparsity(np.maximum(a, 0))


def unused_by_one(a):
    return np.array([(a[: i + 1] == 0).any(axis=0).mean() for i in range(len(a))])


def sliding(a, *, window):
    reference.union(a, window=window)
    return np.array([(a[i : i + window] != 0).any(axis=0).mean() for i in range(len(a) - window + 1)])


def ragged(a, *, window):
    reference.union(a, window=window)
    return np.array([(a[i : i + window] != 0).any(axis=0).mean() for i in range(0, len(a), window)])


def mean_density(a, *, window):
    reference.union(a, window=window)
    full = len(a) // window * window
    return (a[:full] != 0).mean(axis=1).reshape(-1, window).mean(axis=1)


def intersection(a, *, window):
    reference.union(a, window=window)
    full = len(a) // window * window
    return (a[:full] != 0).reshape(-1, window, a.shape[1]).all(axis=1).mean(axis=1)


def unused_share(a, *, window):
    return 1 - reference.union(a, window=window)


def sum_of_shares(p, *, tokens):
    reference.union_density(p, tokens=tokens)
    return np.minimum(tokens * p, 1)


def all_tokens_at_once(p, *, tokens):
    reference.union_density(p, tokens=tokens)
    return p**tokens


def unused_law(p, *, tokens):
    return 1 - reference.union_density(p, tokens=tokens)


def reusing(rule):
    """A wrong answer that takes what is at hand for the window that starts at `start` from `rule`."""

    def answer(a, *, window):
        out = reference.loaded(a, window=window)
        for start in range(window, len(a), 2 * window):
            out[start : start + window] = rule(a != 0, start, window)
        return out

    answer.__name__ = rule.__name__
    return answer


def last_token_only(active, start, window):
    return active[start - 1]


def all_the_past(active, start, window):
    return active[:start].any(axis=0)


def first_window(active, start, window):
    return active[:window].any(axis=0)


def used_by_all(active, start, window):
    return active[start - window : start].all(axis=0)


def active_now_too(active, start, window):
    return active[start - window : start].any(axis=0) & active[start : start + window]


def every_window_reuses(a, *, window):
    out = reference.loaded(a, window=window)
    for start in range(window, len(a), window):
        out[start : start + window] = (a[start - window : start] != 0).any(axis=0)
    return out


WRONG = {
    "shifted_relu": [
        ("the shift is subtracted: a positive one gives more zeros", shift_added),
        ("shift before the ReLU, or the zeros are gone", shift_outside),
        ("a shifted ReLU lowers what passes; with its value kept this is FATReLU", shift_as_threshold),
    ],
    "fatrelu": [
        ("what passes keeps its value; lowered, this is the shifted ReLU", threshold_as_shift),
        ("a value at the threshold is zero: strictly above passes", at_the_threshold_passes),
        ("a large negative value does not pass: no |z|", magnitude_passes),
        ("return the values that pass, not the mask", mask_only),
    ],
    "hidden": [
        ("the activation sits on the gate, not on up", relu_on_up),
        ("one ReLU, on the gate; with one on up, too, this is dReLU", relu_on_both),
        ("rectify the gate before the product, not the product", relu_of_the_product),
        ("the shift is missing", without_the_shift),
        ("a gated layer multiplies by x up^T", gate_only),
    ],
    "sparse_norm": [
        ("the ReLU stands after the norm; before it, it changes the norm", relu_before_the_norm),
        ("rectify after the scale: a negative scale turns the sign", relu_before_the_scale),
        ("RMSNorm does not subtract the mean", centred),
        ("the norm divides by the root of the mean square, not of the sum", sum_for_mean),
        ("the ReLU is missing", no_relu),
    ],
    "aggregated_sparsity": [
        ("aggregate over all tokens so far, not each token alone", per_token),
        ("a neuron is unused if NO token so far used it: not a mean of shares", running_mean),
        ("sparsity is the unused share, not the used one", used_share),
        ("a gated activation may be negative: used means not zero", positive_only),
        ("unused by all tokens so far, not by any one of them", unused_by_one),
    ],
    "union": [
        ("windows follow each other; they do not overlap", sliding),
        ("the last window is dropped where it is not full", ragged),
        ("a union is what ANY token of the window uses, not the mean", mean_density),
        ("a union, not an intersection: any token, not all", intersection),
        ("density is the used share, not the unused one", unused_share),
    ],
    "union_density": [
        ("shares that overlap do not add up", sum_of_shares),
        ("p^tokens is the chance that ALL tokens use a neuron", all_tokens_at_once),
        ("(1 - p)^tokens is the unused share: take 1 minus it", unused_law),
    ],
    "loaded": [
        ("a whole window loads, not its last token", reusing(last_token_only)),
        ("only the window just before is loaded, not all the past", reusing(all_the_past)),
        ("each reusing window follows its own loading window, not the first", reusing(first_window)),
        ("one token of the window before is enough to load a neuron: any, not all", reusing(used_by_all)),
        ("True where the weights are at hand, whether the token uses them or not", reusing(active_now_too)),
        ("loading and reusing windows take turns", every_window_reuses),
    ],
}


def shifted_by_clip(z, *, shift):
    return np.clip(z, shift, None) - shift


def fat_by_mask(z, *, threshold):
    if threshold < 0:
        raise ValueError(f"threshold={threshold} is negative")
    return np.maximum(z, 0) * (z > threshold)


def hidden_by_neuron(x, up, gate, *, shift=0.0):
    reference.hidden(x, up, gate, shift=shift)
    switch = up if gate is None else gate
    columns = []
    for neuron in range(len(up)):
        on = x @ switch[neuron] - shift
        columns.append(np.where(on > 0, on, 0) * (1 if gate is None else x @ up[neuron]))
    return np.stack(columns, axis=-1)


def norm_by_length(x, scale, *, eps=1e-6):
    if x.shape[-1] != len(scale):
        raise ValueError(f"x {x.shape}, scale {scale.shape}")
    length = np.sqrt(np.linalg.norm(x, axis=-1, keepdims=True) ** 2 / len(scale) + eps)
    return np.clip(scale * x / length, 0, None)


def by_first_use(a):
    if not len(a):
        return np.zeros(0)
    used = a != 0
    first = np.where(used.any(axis=0), used.argmax(axis=0), len(a))
    return (first[None, :] > np.arange(len(a))[:, None]).mean(axis=1)


def union_by_sets(a, *, window):
    if not 1 <= window <= len(a):
        raise ValueError(f"window={window} of {len(a)}")
    sets = [set(np.flatnonzero(row)) for row in a]
    groups = [sets[i : i + window] for i in range(0, len(a) - window + 1, window)]
    return np.array([len(set().union(*group)) / a.shape[1] for group in groups])


def law_by_steps(p, *, tokens):
    if (p < 0).any() or (p > 1).any() or tokens < 0:
        raise ValueError(f"{p.min()}..{p.max()}, {tokens}")
    out = np.zeros(p.shape)
    for _ in range(tokens):
        out = out + (1 - out) * p
    return out


def token_by_token(a, *, window):
    if not 1 <= window <= len(a):
        raise ValueError(f"window={window} of {len(a)}")
    rows = []
    for t in range(len(a)):
        loads, start = t // window % 2 == 0, (t // window - 1) * window
        rows.append([loads or any(a[start : start + window, i]) for i in range(a.shape[1])])
    return np.array(rows)


RIGHT = {
    "shifted_relu": [shifted_by_clip],
    "fatrelu": [fat_by_mask],
    "hidden": [hidden_by_neuron],
    "sparse_norm": [norm_by_length],
    "aggregated_sparsity": [by_first_use],
    "union": [union_by_sets],
    "union_density": [law_by_steps],
    "loaded": [token_by_token],
}

EQUIVALENT = {
    "hidden": {
        "x.shape[-1] != up.shape[1] => False (if x.shape[-1] != up.shape[1]:)": "x @ up.T refuses",
    },
    "loaded": {
        "1 => 0 (if not 1 <= window <= len(a):)": "range refuses a step of 0",
    },
}

HINTS = {
    "shifted_relu": [
        "A ReLU whose kink sits at `shift` instead of 0, and which still starts from 0 there.",
        "Subtract first, rectify second.",
        "np.maximum(z - shift, 0)",
    ],
    "fatrelu": [
        "Two questions for each entry: does it pass, and with which value?",
        "It passes strictly above the threshold, with its own value.",
        "np.where(z > threshold, z, 0), and a ValueError for a negative threshold.",
    ],
    "hidden": [
        "Which matrix's output decides that a neuron is silent? The gate's, where there is one.",
        "Without a gate: rectify x @ up.T - shift. With one: rectify the gate's, then multiply by x @ up.T.",
        "np.maximum(x @ gate.T - shift, 0) * (x @ up.T) is the gated line.",
    ],
    "sparse_norm": [
        "First the plain RMSNorm with its scale, then one ReLU.",
        "Divide each token by the root of the mean of its squares plus eps; keepdims lets it broadcast.",
        "np.maximum(x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + eps) * scale, 0)",
    ],
    "aggregated_sparsity": [
        "After t tokens a neuron is used if any of them has a value that is not zero.",
        "np.logical_or.accumulate over the tokens of a != 0 says who has been used so far.",
        "One minus the mean over neurons of that accumulated array.",
    ],
    "union": [
        "Cut the tokens into full windows and drop the rest.",
        "a[:full].reshape(-1, window, m) has one window per first index.",
        "(... != 0).any(axis=1).mean(axis=1)",
    ],
    "union_density": [
        "What is the chance that a neuron stays unused by one token? By two?",
        "Independent tokens multiply: (1 - p) to the power of their number stays unused.",
        "1 - (1 - p) ** tokens, after the range checks.",
    ],
    "loaded": [
        "Which windows are not all True? Every second one, beginning with the second.",
        "For such a window, the neurons that are not zero anywhere in the window before are at hand.",
        "out[s : s + window] = (a[s - window : s] != 0).any(axis=0) for s = window, 3 window, ...",
    ],
}
