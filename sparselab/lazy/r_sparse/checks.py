"""R-Sparse's cases, facts, mistakes and hints."""

import numpy as np

from sparselab import judge
from sparselab.lazy.r_sparse import reference
from sparselab.lazy.r_sparse.reference import PROJECTIONS, Draws


def cases(rng):
    square, kv = dict(outputs=4096, inputs=4096), dict(outputs=1024, inputs=4096)
    yield "budget", "a square weight", dict(**square, sparsity=0.5, rho=0.8)
    yield "budget", "grouped-query keys", dict(**kv, sparsity=0.5, rho=0.95)
    yield "budget", "more outputs than inputs", dict(outputs=704, inputs=128, sparsity=0.7, rho=0.6)
    yield "budget", "channels alone", dict(**kv, sparsity=0.4, rho=1.0)
    yield "budget", "rank alone", dict(**kv, sparsity=0.75, rho=0.0)
    yield "budget", "nothing dropped", dict(**kv, sparsity=0.0, rho=0.5)
    yield "budget", "everything dropped", dict(**kv, sparsity=1.0, rho=0.5)
    yield "budget", "one weight", dict(outputs=1, inputs=1, sparsity=0.0, rho=1.0)
    yield "budget", "no outputs", dict(outputs=0, inputs=8, sparsity=0.5, rho=0.5)
    yield "budget", "no inputs", dict(outputs=8, inputs=0, sparsity=0.5, rho=0.5)
    yield "budget", "a negative sparsity", dict(**kv, sparsity=-0.1, rho=0.5)
    yield "budget", "more than everything", dict(**kv, sparsity=1.1, rho=0.5)
    yield "budget", "a negative split", dict(**kv, sparsity=0.5, rho=-0.1)
    yield "budget", "a split above 1", dict(**kv, sparsity=0.5, rho=1.1)

    w = rng.normal(size=(5, 8)) * np.geomspace(0.2, 2, 8)
    yield "prepare", "rank 2", dict(w=w, rank=2)
    yield "prepare", "more outputs than inputs", dict(w=rng.normal(size=(7, 4)), rank=3)
    yield "prepare", "by magnitude alone", dict(w=w, rank=2, weighted=False)
    yield "prepare", "all of the weight", dict(w=w, rank=5)
    yield "prepare", "none of it", dict(w=w, rank=0)
    yield "prepare", "one output", dict(w=w[:1], rank=1)
    yield "prepare", "a weight of low rank", dict(w=np.outer(np.arange(1.0, 5), [1.0, -2, 3]), rank=1)
    yield "prepare", "a rank above the smaller side", dict(w=w, rank=6)
    yield "prepare", "a negative rank", dict(w=w, rank=-1)

    x, scale = rng.laplace(size=(6, 8)), rng.uniform(0.5, 2, size=8)
    yield "calibrate", "half kept", dict(x=x, scale=scale, keep=0.5)
    yield "calibrate", "a fraction of an entry", dict(x=x, scale=scale, keep=0.37)
    yield "calibrate", "by magnitude alone", dict(x=x, scale=np.ones(8), keep=0.3)
    unlike = x * np.geomspace(0.1, 10, 6)[:, None]
    yield "calibrate", "tokens of unlike size", dict(x=unlike, scale=scale, keep=0.4)
    yield "calibrate", "all tied", dict(x=np.ones((3, 4)), scale=np.ones(4), keep=0.5)
    yield "calibrate", "all kept", dict(x=x, scale=scale, keep=1.0)
    yield "calibrate", "none kept", dict(x=x, scale=scale, keep=0.0)
    yield "calibrate", "one entry dropped", dict(x=x[:1, :4], scale=scale[:4], keep=0.75)
    yield "calibrate", "one token", dict(x=x[:1], scale=scale, keep=0.5)
    yield "calibrate", "one input", dict(x=x[:, :1], scale=scale[:1], keep=0.5)
    yield "calibrate", "no tokens", dict(x=x[:0], scale=scale, keep=0.5)
    yield "calibrate", "a scale for other inputs", dict(x=x, scale=scale[:7], keep=0.5)
    yield "calibrate", "one scale for all inputs", dict(x=x, scale=scale[:1], keep=0.5)
    yield "calibrate", "more than all kept", dict(x=x, scale=scale, keep=1.01)
    yield "calibrate", "a negative share", dict(x=x, scale=scale, keep=-0.01)

    layer, plain = reference.prepare(w, rank=2), reference.prepare(w, rank=2, weighted=False)
    cut = np.array(0.9)
    yield "linear", "half of the entries", dict(x=x, layer=layer, cut=cut)
    yield "linear", "by magnitude alone", dict(x=x, layer=plain, cut=cut)
    yield "linear", "no cut", dict(x=x, layer=layer, cut=np.array(0.0))
    yield "linear", "all through the low rank", dict(x=x, layer=layer, cut=np.array(1e3))
    yield "linear", "no rank", dict(x=x, layer=reference.prepare(w, rank=0), cut=cut)
    yield "linear", "full rank", dict(x=x, layer=reference.prepare(w, rank=5), cut=cut)
    yield "linear", "one token", dict(x=x[:1], layer=layer, cut=cut)
    yield "linear", "one token of which nothing is large", dict(x=x[:1], layer=layer, cut=np.array(1e3))
    yield (
        "linear",
        "an entry on the cut",
        dict(x=np.array([[0.5, -0.5, 2, 0, -4, 1, 0.25, 3]]), layer=plain, cut=np.array(0.5)),
    )
    yield (
        "linear",
        "a square weight",
        dict(x=x[:, :5], layer=reference.prepare(rng.normal(size=(5, 5)), rank=2), cut=cut),
    )
    yield "linear", "one input", dict(x=x[:, :1], layer=reference.prepare(w[:, :1], rank=1), cut=cut)
    yield "linear", "no tokens", dict(x=x[:0], layer=layer, cut=cut)
    yield "linear", "one input too few", dict(x=x[:, :7], layer=layer, cut=cut)
    yield "linear", "one input for eight", dict(x=x[:, :1], layer=layer, cut=cut)
    yield "linear", "factors of other ranks", dict(x=x, layer=layer._replace(left=layer.left[:, :1]), cut=cut)
    yield "linear", "one output for five", dict(x=x, layer=layer._replace(left=layer.left[:1]), cut=cut)
    yield "linear", "a weight of one input", dict(x=x, layer=layer._replace(w=w[:, :1]), cut=cut)
    yield (
        "linear",
        "factors for one input",
        dict(x=x, layer=layer._replace(right=layer.right[:, :1]), cut=cut),
    )

    start = rng.normal(size=(4, 3))
    yield "initial", "four individuals", dict(start=start)
    yield "initial", "a wide step is clipped", dict(start=start, centre=0.5, step=1.0)
    yield "initial", "two individuals", dict(start=start[:2], centre=0.7)
    yield "initial", "no step", dict(start=start, step=0.0)
    yield "initial", "one individual", dict(start=start[:1])
    yield "initial", "a centre above 1", dict(start=start, centre=1.2)
    yield "initial", "a centre below 0", dict(start=start, centre=-0.2)
    yield "initial", "a negative step", dict(start=start, step=-0.1)

    elite = rng.uniform(size=(3, 4))
    child = dict(
        elite=elite,
        parents=np.array([[0, 1], [2, 0]]),
        cross=np.array([[True, False, False, True], [False, False, True, False]]),
        noise=rng.normal(size=(2, 4)),
    )
    yield "breed", "two children", child
    yield "breed", "a wide step is clipped", dict(child, step=2.0)
    yield "breed", "no step", dict(child, step=0.0)
    yield "breed", "both parents the same", dict(child, parents=np.array([[1, 1], [0, 0]]))
    yield "breed", "no children", {k: v if k == "elite" else v[:0] for k, v in child.items()}
    yield "breed", "a parent outside the elite", dict(child, parents=np.array([[0, 3], [1, 1]]))
    yield "breed", "a negative parent", dict(child, parents=np.array([[0, -1], [1, 1]]))
    yield "breed", "crossings for one child", dict(child, cross=child["cross"][:1])
    yield "breed", "noise for one gene", dict(child, noise=child["noise"][:, :1])
    yield "breed", "a negative step", dict(child, step=-0.1)

    draws = draw(rng, individuals=8, generations=4, children=6, elite=3, genes=5)
    valley = dict(fitness=distance_to([0.2, 0.8, 0.9, 1.0, 0.6]), draws=draws, elite=3)
    yield "search", "a valley", valley
    yield "search", "one survivor", dict(valley, draws=draws._replace(parents=0 * draws.parents), elite=1)
    yield "search", "everyone survives", dict(valley, elite=8)
    yield "search", "a flat landscape", dict(valley, fitness=lambda rho: 1.0)
    yield "search", "input sparsity alone is best", dict(valley, fitness=distance_to(np.ones(5)))
    yield "search", "a plateau of ties", dict(valley, fitness=lambda rho: float(round(4 * float(sum(rho)))))
    yield "search", "some cannot be measured", dict(valley, fitness=broken_below(0.9))
    childless = draws._replace(**{k: getattr(draws, k)[:0] for k in CHILDREN})
    barren = draws._replace(**{k: getattr(draws, k)[:, :0] for k in CHILDREN})
    pair = draws._replace(start=draws.start[:2], parents=draws.parents % 2)
    yield "search", "no generation", dict(valley, draws=childless)
    yield "search", "a low centre", dict(valley, centre=0.5, step=0.2)
    yield "search", "no step", dict(valley, step=0.0)
    yield "search", "two individuals", dict(valley, draws=pair, elite=2)
    yield "search", "no children", dict(valley, draws=barren)
    yield "search", "no survivor", dict(valley, draws=childless, elite=0)
    yield "search", "more survivors than individuals", dict(valley, elite=9)
    yield "search", "a parent that did not survive", dict(valley, elite=2)
    yield "search", "a negative parent", dict(valley, draws=draws._replace(parents=draws.parents - 1))
    yield "search", "one crossing for all", dict(valley, draws=draws._replace(cross=draws.cross[:, :, :1]))
    yield "search", "crossings for one generation", dict(valley, draws=draws._replace(cross=draws.cross[:1]))
    yield "search", "noise for one generation", dict(valley, draws=draws._replace(noise=draws.noise[:1]))
    yield "search", "a centre above 1", dict(valley, centre=1.5)
    yield "search", "a centre below 0", dict(valley, centre=-0.5)
    yield "search", "one individual", dict(valley, draws=draws._replace(start=draws.start[:1]), elite=1)
    yield "search", "a negative step", dict(valley, step=-0.1)

    one = [0.145, 0.5, 0.202, 0.5, 0.844, 0.5, 0.775, 0.5, 0.983, 0.5, 0.87, 0.5, 1.0, 0.5]
    two = [*one, *(np.round(rng.uniform(size=14), 3))]
    yield "recipe", "one layer", dict(text=lines(one))
    yield "recipe", "two layers", dict(text=lines(two))
    yield "recipe", "an open end", dict(text=lines(one) + "\n")
    yield "recipe", "the ends of the range", dict(text=lines([0, 1] * 7))
    yield "recipe", "half a layer", dict(text=lines(one[:7]))
    yield "recipe", "a number too many", dict(text=lines([*one, 0.5]))
    yield "recipe", "nothing", dict(text="")
    yield "recipe", "a word", dict(text=lines(one) + "low")
    yield "recipe", "above 1", dict(text=lines([*one[:-1], 1.202]))
    yield "recipe", "below 0", dict(text=lines([*one[:-1], -0.202]))


CHILDREN = ("parents", "cross", "noise")


def draw(rng, *, individuals, generations, children, elite, genes):
    shape = (generations, children, genes)
    return Draws(
        rng.normal(size=(individuals, genes)),
        rng.integers(0, elite, size=(generations, children, 2)),
        rng.random(shape) < 0.5,
        rng.normal(size=shape),
    )


def distance_to(target):
    def fitness(rho):
        return sum((float(r) - float(t)) ** 2 for r, t in zip(rho, target, strict=True))

    return fitness


def broken_below(limit):
    def fitness(rho):
        return float("nan") if float(rho[0]) < limit else float(sum(rho))

    return fitness


def lines(values):
    return "\n".join(f"{value:.18e}" for value in values)


def the_budget_is_kept(call, got, outputs, inputs, sparsity, rho):
    return got.traffic <= 1 - sparsity + 1e-12


def not_one_rank_more_would_fit(call, got, outputs, inputs, sparsity, rho):
    one_more = got.traffic + (outputs + inputs) / (outputs * inputs)
    return one_more > 1 - sparsity


def all_to_the_channels_leaves_no_rank(call, got, outputs, inputs, sparsity, rho):
    return call(rho=1.0).rank == 0 and call(rho=0.0).channels == 0


def traffic_counts_both(call, got, outputs, inputs, sparsity, rho):
    numbers = got.channels * outputs + got.rank * outputs + got.rank * inputs
    return abs(numbers / (outputs * inputs) - got.traffic) < 1e-12


def scale_is_read_off_the_svd_too(call, got, w, rank, weighted=True):
    whole = call(rank=min(w.shape), weighted=True)
    return judge.same(np.sqrt((whole.right**2).sum(axis=0)), whole.scale, rtol=1e-9)


def the_error_is_the_least_of_this_rank(call, got, w, rank, weighted=True):
    dropped = np.linalg.svd(w, compute_uv=False)[rank:]
    return abs(np.linalg.norm(w - got.left @ got.right) - np.linalg.norm(dropped)) < 1e-9


def left_is_orthonormal(call, got, w, rank, weighted=True):
    return judge.same(got.left.T @ got.left, np.eye(rank), atol=1e-9)


def a_smaller_rank_is_a_part_of_it(call, got, w, rank, weighted=True):
    less = call(rank=rank - 1) if rank else got
    return judge.same(less.right, got.right[: len(less.right)])


def the_share_is_kept_within_one_entry(call, got, x, scale, keep):
    scores = np.abs(x) * scale
    above, reached = (scores > got).sum(), (scores >= got).sum()
    return above < keep * x.size + 1 and reached + 1 > keep * x.size


def the_cut_is_a_score(call, got, x, scale, keep):
    return got == 0 or (np.abs(x) * scale == got).any()


def doubling_the_scale_doubles_the_cut(call, got, x, scale, keep):
    return judge.same(call(scale=2 * scale), 2 * got)


def more_kept_means_a_lower_cut(call, got, x, scale, keep):
    return call(keep=(1 + keep) / 2) <= got


def dense_where_nothing_is_small(call, got, x, layer, cut):
    return judge.same(call(cut=np.array(-1.0)), x @ layer.w.T)


def low_rank_where_nothing_is_large(call, got, x, layer, cut):
    return judge.same(call(cut=np.array(np.inf)), x @ (layer.left @ layer.right).T)


def dense_at_full_rank(call, got, x, layer, cut):
    whole = reference.prepare(layer.w, rank=min(layer.w.shape))
    return judge.same(call(layer=whole), x @ layer.w.T)


def every_entry_takes_one_way(call, got, x, layer, cut):
    main = call(layer=layer._replace(left=0 * layer.left))
    rest = call(layer=layer._replace(w=0 * layer.w))
    return judge.same(main + rest, got)


def the_error_is_small_inputs_times_small_singular_values(call, got, x, layer, cut):
    small = np.where(np.abs(x) * layer.scale > cut, 0, x)
    error = x @ layer.w.T - got
    beyond = np.linalg.svd(layer.w - layer.left @ layer.right, compute_uv=False)[:1]
    bound = np.linalg.norm(small) * beyond.max(initial=0)
    identity = judge.same(error, small @ (layer.w - layer.left @ layer.right).T)
    return identity and np.linalg.norm(error) <= bound + 1e-9


def without_rank_or_scale_this_is_teal(call, got, x, layer, cut):
    teal = call(layer=reference.prepare(layer.w, rank=0, weighted=False))
    return judge.same(teal, np.where(np.abs(x) > cut, x, 0) @ layer.w.T)


def orthogonal_columns_make_the_scores_exact(call, got, x, layer, cut):
    """The squared error of dropping inputs is then the sum of their squared scores."""
    columns = np.linalg.qr(np.random.default_rng(2).normal(size=(12, 8)))[0] * np.geomspace(0.3, 3, 8)
    token = np.random.default_rng(3).normal(size=(1, 8))
    error = token @ columns.T - call(x=token, layer=reference.prepare(columns, rank=0), cut=np.array(0.8))
    scores = np.abs(token) * np.linalg.norm(columns, axis=0)
    return abs((error**2).sum() - (scores[scores <= 0.8] ** 2).sum()) < 1e-9


def holds_the_two_known_recipes(call, got, start, centre=0.95, step=0.05):
    return (got[0] == 1).all() and (got[1] == centre).all()


def stays_within_the_range(call, got, **given):
    return got.min(initial=0) >= 0 and got.max(initial=1) <= 1


def a_child_of_one_parent_without_noise_is_that_parent(call, got, elite, parents, cross, noise, step=0.05):
    same = np.repeat(parents[:, :1], 2, axis=1)
    return np.array_equal(call(parents=same, step=0.0), elite[parents[:, 0]])


def the_best_never_gets_worse(call, got, fitness, draws, elite, centre=0.95, step=0.05):
    return (np.diff(got.best) <= 0).all()


def never_worse_than_input_sparsity_alone(call, got, fitness, draws, elite, centre=0.95, step=0.05):
    return not got.best[-1] > fitness(np.ones(draws.start.shape[1]))


def the_best_is_what_the_answer_costs(call, got, fitness, draws, elite, centre=0.95, step=0.05):
    return judge.same(np.array(float(fitness(got.rho))), np.array(got.best[-1]))


def fewer_generations_are_the_same_search_cut_short(call, got, fitness, draws, elite, centre=0.95, step=0.05):
    short = draws._replace(**{k: getattr(draws, k)[:2] for k in CHILDREN})
    return np.array_equal(call(draws=short).best, got.best[:3])


def twice_the_text_is_twice_the_layers(call, got, text):
    return call(text=f"{text}\n{text}") == (*got, *got)


CHECKS = {
    "budget": [
        ("the traffic stays within the budget", the_budget_is_kept),
        ("one more rank would not fit", not_one_rank_more_would_fit),
        ("rho = 1 leaves no rank and rho = 0 no channel", all_to_the_channels_leaves_no_rank),
        ("channels and both factors are counted", traffic_counts_both),
    ],
    "prepare": [
        ("the norms of V S are the column norms of W", scale_is_read_off_the_svd_too),
        ("no factors of this rank come closer", the_error_is_the_least_of_this_rank),
        ("the columns of left are orthonormal", left_is_orthonormal),
        ("a smaller rank is the beginning of a larger one", a_smaller_rank_is_a_part_of_it),
    ],
    "calibrate": [
        ("the share kept is met within one entry", the_share_is_kept_within_one_entry),
        ("the cut is one of the scores, not a value between two", the_cut_is_a_score),
        ("twice the scale means twice the cut", doubling_the_scale_doubles_the_cut),
        ("keeping more lowers the cut", more_kept_means_a_lower_cut),
    ],
    "linear": [
        ("where nothing is small this is the dense layer", dense_where_nothing_is_small),
        ("where nothing is large this is the low-rank layer", low_rank_where_nothing_is_large),
        ("at full rank this is the dense layer, whatever the cut", dense_at_full_rank),
        ("the weight's part and the factors' part add up", every_entry_takes_one_way),
        (
            "the error is (W - left right) on the small entries, bounded by norm times next singular value",
            the_error_is_small_inputs_times_small_singular_values,
        ),
        ("with rank 0 and scale 1 this is TEAL", without_rank_or_scale_this_is_teal),
        (
            "for orthogonal columns the squared error is the sum of the dropped squared scores",
            orthogonal_columns_make_the_scores_exact,
        ),
    ],
    "initial": [
        ("all ones and the uniform recipe are in it", holds_the_two_known_recipes),
        ("every gene lies in 0..1", stays_within_the_range),
    ],
    "breed": [
        ("every gene lies in 0..1", stays_within_the_range),
        (
            "with one parent twice and no noise the child is the parent",
            a_child_of_one_parent_without_noise_is_that_parent,
        ),
    ],
    "search": [
        ("the best fitness never rises from one generation to the next", the_best_never_gets_worse),
        ("the answer is no worse than input sparsity alone", never_worse_than_input_sparsity_alone),
        ("the last best is the fitness of the answer", the_best_is_what_the_answer_costs),
        ("two generations are the beginning of four", fewer_generations_are_the_same_search_cut_short),
    ],
    "recipe": [("the text twice gives every layer twice", twice_the_text_is_twice_the_layers)],
}


# ---------------------------------------------------------------- mistakes


def as_if_square(*, outputs, inputs, sparsity, rho):
    reference.budget(outputs=outputs, inputs=inputs, sparsity=sparsity, rho=rho)
    return reference.budget(outputs=inputs, inputs=inputs, sparsity=sparsity, rho=rho)


def closed_form(*, outputs, inputs, sparsity, rho):
    right = reference.budget(outputs=outputs, inputs=inputs, sparsity=sparsity, rho=rho)
    rank = int((1 - rho) * (1 - sparsity) * outputs * inputs / (outputs + inputs))
    traffic = right.channels / inputs + rank * (outputs + inputs) / (outputs * inputs)
    return right._replace(rank=rank, traffic=traffic)


def sparsity_is_kept(*, outputs, inputs, sparsity, rho):
    return reference.budget(outputs=outputs, inputs=inputs, sparsity=1 - sparsity, rho=rho)


def rows_are_channels(*, outputs, inputs, sparsity, rho):
    return reference.budget(outputs=inputs, inputs=outputs, sparsity=sparsity, rho=rho)


def one_factor_forgotten(*, outputs, inputs, sparsity, rho):
    right = reference.budget(outputs=outputs, inputs=inputs, sparsity=sparsity, rho=rho)
    rank = int(((1 - sparsity) * inputs - right.channels) * outputs / inputs)
    return right._replace(rank=rank, traffic=right.channels / inputs + rank / outputs)


def rank_by_the_area(*, outputs, inputs, sparsity, rho):
    right = reference.budget(outputs=outputs, inputs=inputs, sparsity=sparsity, rho=rho)
    left = (1 - sparsity) * outputs * inputs - right.channels * outputs
    rank = int(left / (outputs * inputs))
    traffic = right.channels / inputs + rank * (outputs + inputs) / (outputs * inputs)
    return right._replace(rank=rank, traffic=traffic)


def rho_of_all(*, outputs, inputs, sparsity, rho):
    right = reference.budget(outputs=outputs, inputs=inputs, sparsity=sparsity, rho=rho)
    return right._replace(keep=rho)


def keep_of_whole_channels(*, outputs, inputs, sparsity, rho):
    right = reference.budget(outputs=outputs, inputs=inputs, sparsity=sparsity, rho=rho)
    return right._replace(keep=right.channels / inputs)


def channels_rounded_up(*, outputs, inputs, sparsity, rho):
    right = reference.budget(outputs=outputs, inputs=inputs, sparsity=sparsity, rho=rho)
    channels = int(np.ceil(inputs * right.keep))
    rank = int(((1 - sparsity) * outputs * inputs - channels * outputs) / (outputs + inputs))
    traffic = channels / inputs + rank * (outputs + inputs) / (outputs * inputs)
    return reference.Budget(right.keep, channels, rank, traffic)


def cut_for_each_token(x, scale, *, keep):
    reference.calibrate(x, scale, keep=keep)
    k = int(x.shape[1] * (1 - keep))
    return np.sort(np.abs(x) * scale, axis=1)[:, k - 1] if k else np.zeros(len(x))


def per_token(x, scale, *, keep):
    reference.calibrate(x, scale, keep=keep)
    scores = np.sort(np.abs(x) * scale, axis=1)
    k = int(x.shape[1] * (1 - keep))
    return np.asarray(scores[:, k - 1].mean() if k else 0.0)


def kth_largest(x, scale, *, keep):
    return reference.calibrate(x, scale, keep=1 - keep)


def interpolated(x, scale, *, keep):
    reference.calibrate(x, scale, keep=keep)
    return np.asarray(np.quantile(np.abs(x) * scale, 1 - keep))


def next_score(x, scale, *, keep):
    reference.calibrate(x, scale, keep=keep)
    scores = np.sort(np.abs(x) * scale, axis=None)
    return np.asarray(scores[min(int(x.size * (1 - keep)), x.size - 1)])


def nothing_dropped_reads_the_end(x, scale, *, keep):
    reference.calibrate(x, scale, keep=keep)
    return np.asarray(np.sort(np.abs(x) * scale, axis=None)[int(x.size * (1 - keep)) - 1])


def unscaled(x, scale, *, keep):
    return reference.calibrate(x, np.ones_like(scale), keep=keep)


def signed_scores(x, scale, *, keep):
    reference.calibrate(x, scale, keep=keep)
    k = int(x.size * (1 - keep))
    return np.asarray(np.sort(x * scale, axis=None)[k - 1] if k else 0.0)


def low_rank_of_everything(x, layer, cut):
    reference.linear(x, layer, cut)
    large = np.where(np.abs(x) * layer.scale > cut, x, 0)
    return large @ layer.w.T + x @ layer.right.T @ layer.left.T


def small_inputs_dropped(x, layer, cut):
    return reference.linear(x, layer._replace(left=0 * layer.left), cut)


def ways_exchanged(x, layer, cut):
    reference.linear(x, layer, cut)
    small = np.where(np.abs(x) * layer.scale > cut, 0, x)
    return small @ layer.w.T + (x - small) @ layer.right.T @ layer.left.T


def magnitude_alone(x, layer, cut):
    reference.linear(x, layer, cut)
    return reference.linear(x, layer._replace(scale=np.ones_like(layer.scale)), cut)


def scale_stays_in(x, layer, cut):
    reference.linear(x, layer, cut)
    large = np.where(np.abs(x) * layer.scale > cut, x * layer.scale, 0)
    small = np.where(np.abs(x) * layer.scale > cut, 0, x)
    return large @ layer.w.T + small @ layer.right.T @ layer.left.T


def cut_is_kept(x, layer, cut):
    return reference.linear(x, layer, np.nextafter(cut, -np.inf) if cut > 0 else cut)


def positive_alone(x, layer, cut):
    reference.linear(x, layer, cut)
    large = np.where(x * layer.scale > cut, x, 0)
    return large @ layer.w.T + (x - large) @ layer.right.T @ layer.left.T


def factors_in_the_wrong_order(x, layer, cut):
    reference.linear(x, layer, cut)
    large = np.where(np.abs(x) * layer.scale > cut, x, 0)
    return large @ layer.w.T + (x - large) @ layer.left @ layer.right


def search_with(survivors=None, sign=1, stale=False, children_first=False):
    """A search that differs from the definition in one step."""

    def answer(fitness, draws, *, elite, centre=0.95, step=0.05):
        reference.search(fitness, draws, elite=elite, centre=centre, step=step)
        rho = reference.initial(draws.start, centre=centre, step=step)
        cost = np.array([float(fitness(one)) for one in rho])
        best = [cost[np.argsort(sign * cost, kind="stable")[0]]]
        for parents, cross, noise in zip(draws.parents, draws.cross, draws.noise, strict=True):
            kept = np.argsort(sign * cost, kind="stable")[:elite]
            children = reference.breed(rho[kept], parents, cross, noise, step=step)
            stay = kept[:survivors]
            family = [children, rho[stay]] if children_first else [rho[stay], children]
            rho = rho if stale else np.concatenate(family)
            cost = np.array([float(fitness(one)) for one in (children if stale else rho)])
            rho = children if stale else rho
            best.append(cost[np.argsort(sign * cost, kind="stable")[0]])
        return reference.Found(rho[np.argsort(sign * cost, kind="stable")[0]], np.array(best))

    return answer


def no_first_recipes(fitness, draws, *, elite, centre=0.95, step=0.05):
    reference.search(fitness, draws, elite=elite, centre=centre, step=step)

    def blind(rho):
        return fitness(rho)

    start = np.concatenate([np.zeros((2, draws.start.shape[1])), draws.start])
    tail = reference.initial(start, centre=centre, step=step)[2:]
    cost = np.array([float(blind(one)) for one in tail])
    rho, best = tail, [np.sort(cost)[0]]
    for parents, cross, noise in zip(draws.parents, draws.cross, draws.noise, strict=True):
        kept = np.argsort(cost, kind="stable")[:elite]
        rho = np.concatenate([rho[kept], reference.breed(rho[kept], parents, cross, noise, step=step)])
        cost = np.array([float(fitness(one)) for one in rho])
        best.append(np.sort(cost)[0])
    return reference.Found(rho[np.argsort(cost, kind="stable")[0]], np.array(best))


def last_generation_only(fitness, draws, *, elite, centre=0.95, step=0.05):
    right = reference.search(fitness, draws, elite=elite, centre=centre, step=step)
    return right._replace(best=right.best[-1:])


def two_blocks(text):
    reference.recipe(text)
    values = [float(word) for word in text.split()]
    half = len(values) // 2
    shares = [reference.Share(*pair) for pair in zip(values[:half], values[half:], strict=True)]
    return tuple(dict(zip(PROJECTIONS, shares[i:], strict=False)) for i in range(0, len(shares), 7))


def sparsity_first(text):
    return tuple(
        {name: reference.Share(share.sparsity, share.rho) for name, share in layer.items()}
        for layer in reference.recipe(text)
    )


def projections_outermost(text):
    shares = [share for layer in reference.recipe(text) for share in layer.values()]
    layers = len(shares) // 7
    return tuple({name: shares[p * layers + i] for p, name in enumerate(PROJECTIONS)} for i in range(layers))


WRONG = {
    "budget": [
        ("keys and values of grouped queries have fewer outputs: use both sizes", as_if_square),
        ("floor the channels first; what they leave goes to the rank", closed_form),
        ("sparsity is the share dropped: the budget is 1 - sparsity", sparsity_is_kept),
        ("a channel is an input, a column of W: it costs `outputs` numbers", rows_are_channels),
        ("one rank costs a row and a column: outputs + inputs numbers", one_factor_forgotten),
        ("keep is rho (1 - sparsity) itself; only the channels are rounded", keep_of_whole_channels),
        ("a channel that fits in part does not fit: round down", channels_rounded_up),
        ("one rank costs outputs + inputs numbers, not outputs times inputs", rank_by_the_area),
        ("rho is a share of the budget, not of the inputs: keep = rho (1 - sparsity)", rho_of_all),
    ],
    "calibrate": [
        ("one cut for the layer, from all tokens together, not one for each token", per_token),
        (
            "sort all scores in one list: a single number comes out, not one for each token",
            cut_for_each_token,
        ),
        ("keep is the share above the cut: 1 - keep of the scores lie at or below it", kth_largest),
        ("take a score, the k-th smallest, not a value between two", interpolated),
        ("the k-th smallest is entry k - 1 of the sorted scores", next_score),
        ("where k is 0 nothing is dropped: scores[k - 1] is then the largest", nothing_dropped_reads_the_end),
        ("the score is |x| times the scale", unscaled),
        ("a large negative input matters as much as a positive one: take |x|", signed_scores),
    ],
    "linear": [
        ("a large entry passes the weight only: the factors see the small ones", low_rank_of_everything),
        ("the small entries are not dropped, they pass the factors", small_inputs_dropped),
        ("large entries pass the weight, small ones the factors, not the reverse", ways_exchanged),
        ("compare |x| scale with the cut, not |x|", magnitude_alone),
        ("the scale decides which way an entry takes; its value stays x", scale_stays_in),
        ("an entry on the cut is small: the comparison is strict", cut_is_kept),
        ("W meets x transposed, and so do its factors: first right, then left", factors_in_the_wrong_order),
        ("a large negative input matters as much as a positive one: take |x|", positive_alone),
    ],
    "search": [
        ("the elite lives on unchanged: without it the best can get worse", search_with(stale=True)),
        ("all of the elite lives on, not only the best", search_with(survivors=1)),
        ("of equal fitness the elite ranks before its children", search_with(children_first=True)),
        ("fitness is a loss: the least is best", search_with(sign=-1)),
        ("start with all ones and the uniform recipe in the first two places", no_first_recipes),
        ("best has an entry for the start and for each generation", last_generation_only),
    ],
    "recipe": [
        ("rho and sparsity stand in turn, a pair for each projection", two_blocks),
        ("rho stands first in a pair", sparsity_first),
        ("all seven projections of a layer stand together", projections_outermost),
    ],
}


def one_rank_at_a_time(*, outputs, inputs, sparsity, rho):
    if not (min(outputs, inputs) > 0 and 0 <= sparsity <= 1 and 0 <= rho <= 1):
        raise ValueError(f"outputs={outputs}, inputs={inputs}, sparsity={sparsity}, rho={rho}")
    channels = int(np.floor(inputs * (1 - sparsity) * rho))
    budget, rank = (1 - sparsity) * inputs * outputs, 0
    while channels * outputs + (rank + 1) * (outputs + inputs) <= budget:
        rank += 1
    spent = channels * outputs + rank * (outputs + inputs)
    return rho * (1 - sparsity), channels, rank, spent / inputs / outputs


def by_partition(x, scale, *, keep):
    if not (x.shape[1] == len(scale) and x.size and 0 <= keep <= 1):
        raise ValueError(f"x {x.shape}, scale {scale.shape}, keep={keep}")
    k = int(x.size * (1 - keep))
    scores = np.abs(x * scale).ravel()
    return np.asarray(0.0) if k == 0 else np.asarray(np.partition(scores, k - 1)[k - 1])


def entry_by_entry(x, layer, cut):
    w, left, right, scale = layer
    (o, i), rank = w.shape, len(right)
    if not x.shape[1] == i == len(scale) == right.shape[1] or left.shape != (o, rank):
        raise ValueError(f"x {x.shape} does not fit a layer of {i} inputs")
    low, out = left @ right, np.zeros((len(x), len(w)))
    for t, token in enumerate(x):
        for i, value in enumerate(token):
            out[t] += value * (w if abs(value) * scale[i] > cut else low)[:, i]
    return out


def with_a_ranked_list(fitness, draws, *, elite, centre=0.95, step=0.05):
    individuals = list(reference.initial(draws.start, centre=centre, step=step))
    if not 1 <= elite <= len(individuals):
        raise ValueError(f"elite={elite} of {len(individuals)}")
    best = []
    if not draws.parents.shape[:2] == draws.cross.shape[:2] == draws.noise.shape[:2]:
        raise ValueError(f"{len(draws.parents)} generations of parents, {len(draws.noise)} of noise")
    for generation in range(len(draws.parents) + 1):
        if generation:
            drawn = (draws.parents[generation - 1], draws.cross[generation - 1], draws.noise[generation - 1])
            individuals += list(reference.breed(np.stack(individuals), *drawn, step=step))
        cost = [float(fitness(one)) for one in individuals]
        ranks = sorted(range(len(cost)), key=lambda i: np.inf if np.isnan(cost[i]) else cost[i])
        individuals = [individuals[i] for i in ranks[:elite]]
        best.append(float(fitness(individuals[0])))
    return individuals[0], np.array(best)


def as_an_array(text):
    words = text.split()
    values = np.array(words, dtype=float)
    if len(values) == 0 or len(values) % 14 or not ((values >= 0) & (values <= 1)).all():
        raise ValueError(f"{len(values)} numbers")
    shares = values.reshape(-1, 7, 2).tolist()
    return tuple({name: tuple(share) for name, share in zip(PROJECTIONS, s, strict=True)} for s in shares)


RIGHT = {
    "budget": [one_rank_at_a_time],
    "calibrate": [by_partition],
    "linear": [entry_by_entry],
    "search": [with_a_ranked_list],
    "recipe": [as_an_array],
}

HINTS = {
    "budget": [
        "Count numbers, not shares: the weight has outputs x inputs, and 1 - sparsity of them may be read.",
        "A channel costs `outputs` numbers, one rank outputs + inputs. Channels come first, rounded down.",
        "channels = int(inputs * (1 - sparsity) * rho); how many outputs + inputs fill what is left?",
    ],
    "calibrate": [
        "One number for the whole layer: every token and every input counts alike.",
        "Score all entries by |x| times the scale of their input and sort them in one list.",
        "k = int(x.size * (1 - keep)); the cut is entry k - 1 of the sorted list, or 0 where k is 0.",
    ],
    "linear": [
        "Every entry of x takes one of two ways: through the weight, or through the two thin factors.",
        "Large means |x| * scale > cut. Put the large entries in an array of zeros; the rest is small.",
        "large @ w.T plus small @ right.T @ left.T.",
    ],
    "search": [
        "Measure everybody, keep the best few as they are, fill up with their children, and again.",
        "initial(...) gives the first individuals, breed(elite, parents, cross, noise) their children.",
        "np.argsort(cost, kind='stable')[:elite] are the survivors; concatenate them with their children.",
        "Append the least cost before the first generation and after each one.",
    ],
    "recipe": [
        "The file is text, one number on a line: split it into words and read them as floats.",
        "Fourteen numbers are a layer: rho and sparsity of q, then of k, v, o, gate, up and down.",
        "values[14 * l : 14 * l + 14] is layer l; its even places are rho, its odd ones the sparsity.",
    ],
}
