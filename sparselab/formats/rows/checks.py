"""Cases and facts of selected rows."""

import numpy as np

from sparselab.formats.rows import reference
from sparselab.judge import same


def cases(rng):
    table, x, weight = rng.normal(size=(9, 6)), rng.normal(size=6), rng.normal(size=4)
    idx = np.array([7, 0, 3, 4])
    many = rng.integers(0, 9, size=300)
    for op, given in (("dot", dict(x=x)), ("total", dict(weight=weight))):
        more = given if op == "dot" else dict(weight=rng.normal(size=300))
        one = given if op == "dot" else dict(weight=weight[:1])
        none = given if op == "dot" else dict(weight=weight[:0])
        yield op, "4 of 9", dict(given, table=table, idx=idx)
        yield op, "all tied rows", dict(given, table=np.ones((9, 6)), idx=idx)
        yield op, "a row twice", dict(given, table=table, idx=np.array([2, 8, 2, 0]))
        yield op, "more than a chunk", dict(more, table=table, idx=many)
        yield op, "one row", dict(one, table=table, idx=idx[:1])
        yield op, "no row", dict(none, table=table, idx=idx[:0])
        yield op, "a row past the last", dict(given, table=table, idx=np.array([7, 0, 9, 4]))
        yield op, "a row before the first", dict(given, table=table, idx=np.array([7, 0, -1, 4]))
    yield "dot", "x of another width", dict(table=table, idx=idx, x=x[:5])
    yield "dot", "x of another width, no row", dict(table=table, idx=idx[:0], x=x[:5])
    yield "total", "columns that no two threads share", dict(table=table[:, :5], idx=idx, weight=weight)
    yield "total", "a weight too few", dict(table=table, idx=idx, weight=weight[:3])
    yield "total", "a weight too many", dict(table=table, idx=idx[:3], weight=weight)
    yield "total", "a weight of zero", dict(table=table, idx=idx, weight=np.array([0.0, 1, 0, -2]))


def others_are_not_read(call, got, table, idx, **given):
    used = np.isin(np.arange(len(table)), idx)[:, None]
    return same(call(table=np.where(used, table, np.nan)), got)


def all_rows_make_the_product(call, got, table, idx, x):
    return same(call(idx=np.arange(len(table))), table @ x)


def the_order_does_not_matter(call, got, table, idx, weight):
    return same(call(idx=idx[::-1].copy(), weight=weight[::-1].copy()), got)


def linear_in_the_weights(call, got, table, idx, weight):
    return same(call(weight=3 * weight), 3 * got)


CHECKS = {
    "dot": [
        ("rows that are not selected are not read", others_are_not_read),
        ("all rows give the whole product", all_rows_make_the_product),
    ],
    "total": [
        ("rows that are not selected are not read", others_are_not_read),
        ("the order of the rows does not matter", the_order_does_not_matter),
        ("three times the weights give three times the sum", linear_in_the_weights),
    ],
}


def first_rows(table, idx, x):
    return reference.dot(table, np.arange(len(idx)), x) if len(idx) <= len(table) else table[idx] @ x


def whole_product(table, idx, x):
    reference.dot(table, idx, x)
    return table @ x


def added_up(table, idx, x):
    return np.full(len(idx), reference.dot(table, idx, x).sum())


def each_row_once(table, idx, weight):
    reference.total(table, idx, weight)
    return np.bincount(idx, weight, len(table)) * (np.bincount(idx, minlength=len(table)) < 2) @ table


def unweighted(table, idx, weight):
    return reference.total(table, idx, np.ones_like(weight))


def mean_of_rows(table, idx, weight):
    return reference.total(table, idx, weight) / max(1, len(idx))


def gathered(table, idx, x):
    reference.dot(table, idx, x)
    return table[idx] @ x


def one_product(table, idx, weight):
    reference.total(table, idx, weight)
    return weight @ table[idx]


WRONG = {
    "dot": [
        ("idx says which rows: it is not a number of rows from the top", first_rows),
        ("one number for each selected row, not for each row of the table", whole_product),
        ("each selected row has its own product with x; nothing is added over rows", added_up),
    ],
    "total": [
        ("a row that is selected twice counts twice", each_row_once),
        ("each selected row is multiplied by its weight first", unweighted),
        ("the rows are added, not averaged", mean_of_rows),
    ],
}
RIGHT = {"dot": [gathered], "total": [one_product]}
HINTS = {
    "dot": [
        "The answer has as many entries as idx.",
        "table[idx] is the array of the selected rows, one below the other.",
        "Multiply table[idx] by x with @.",
    ],
    "total": [
        "The answer is as wide as a row of the table.",
        "Start with zeros and add weight[i] times row idx[i] for each i; that is one product, too.",
        "Multiply weight by table[idx] with @; with nothing selected that is zeros.",
    ],
}
