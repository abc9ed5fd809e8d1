"""A student's notebook and an update, merged cell by cell: no line that the student wrote is ever lost.

Three versions take part: `base`, what was delivered; `mine`, what the student has; `new`, the update. A cell
that is still as delivered follows the update; an edited, added or deleted one stays as the student left it.
"""

from collections import defaultdict
from collections.abc import Callable, Container, Hashable, Iterator, Sequence
from copy import deepcopy
from difflib import SequenceMatcher
from typing import Any, NamedTuple

Cell = dict[str, Any]


class Merged(NamedTuple):
    """The merged cells, and one line for each cell where student and update both had something to say."""

    cells: list[Cell]
    conflicts: list[str]


def merge(base: Sequence[Cell], mine: Sequence[Cell], new: Sequence[Cell]) -> Merged:
    """`mine` brought up to date. Where `new` is `base`, that is `mine` as it stands."""
    if [_delivered(cell) for cell in base] == [_delivered(cell) for cell in new]:
        return Merged(list(mine), [])
    # An id that only the update has shows a cell that an interrupted run has put in place before.
    old = {cell["id"] for cell in base}
    partner = _match(mine, new, (_by(lambda cell: None if cell.get("id") in old else cell.get("id")),))
    to_new = _match(base, new, (_by_id_and_content, _by_content, _by_exercise, _by_likeness))
    rules = (_by_id_and_content, _by_id, _by_content, _by_exercise, _by_likeness)
    to_mine = _match(base, mine, rules, without=partner)
    origin = {m: b for b, m in to_mine.items()}

    conflicts: list[str] = []
    kept: dict[int, Cell] = {}  # by place in `mine`: what becomes of each cell that stays
    for m, cell in enumerate(mine):
        b = origin.get(m)
        n = to_new.get(b) if b is not None else None
        if m in partner:
            kept[m] = _resolve(new[partner[m]], cell, new[partner[m]], conflicts)
        elif b is None or n in partner.values():
            kept[m] = cell
        elif n is not None:
            partner[m] = n
            kept[m] = _resolve(base[b], cell, new[n], conflicts)
        elif _content(cell) != _content(base[b]):
            conflicts.append(f"the update drops a cell that you edited; yours is kept: {_quoted(cell)}")
            kept[m] = cell

    added = set(range(len(new))) - set(to_new.values()) - set(partner.values())
    order = _order(list(kept), partner, added, moved=list(to_new.values()) != sorted(to_new.values()))
    cells = [deepcopy(new[place]) if side == "new" else kept[place] for side, place in order]
    own = {
        position for position, (side, place) in enumerate(order) if side == "mine" and place not in partner
    }
    return Merged(_with_unique_ids(cells, own), conflicts)


def _resolve(base: Cell, mine: Cell, new: Cell, conflicts: list[str]) -> Cell:
    """One cell that all three versions have: the update's where `mine` is as delivered, else `mine`.

    It takes the id of the update, by which the next update will know it.
    """
    theirs = {key: value for key, value in mine.get("metadata", {}).items() if key not in base["metadata"]}
    metadata = {**theirs, **new["metadata"]}
    if _content(mine) == _content(base) != _content(new):
        return {**deepcopy(new), "metadata": metadata}
    if _content(new) not in (_content(mine), _content(base)):
        conflicts.append(f"the update changes a cell that you edited; yours is kept: {_quoted(mine)}")
    return {**deepcopy(mine), "id": new["id"], "metadata": metadata}


def _order(
    kept: list[int], partner: dict[int, int], added: set[int], *, moved: bool
) -> list[tuple[str, int]]:
    """All cells that stay, in the update's order where it moved cells, else in the student's."""
    mine = [("mine", m) for m in kept]
    new = sorted([(n, ("mine", m)) for m, n in partner.items()] + [(n, ("new", n)) for n in added])
    new = [cell for _, cell in new]
    skeleton, rest = (new, mine) if moved else (mine, new)
    for before, cell in zip([None, *rest], rest, strict=False):
        if cell not in skeleton:  # it follows the cell that it followed
            skeleton.insert(skeleton.index(before) + 1 if before else 0, cell)
    return skeleton


def _with_unique_ids(cells: list[Cell], own: set[int]) -> list[Cell]:
    """The cells, with a new id for each of the student's `own` that has none or one that is taken."""
    taken = {cell["id"] for position, cell in enumerate(cells) if position not in own}
    for position in sorted(own):
        name = wanted = str(cells[position].get("id") or "own")
        count = 1
        while name in taken:
            count += 1
            name = f"{wanted[:50]}-{count}"
        taken.add(name)
        cells[position] = {**cells[position], "id": name}
    return cells


# ---------------------------------------------------------------- which cell is which

Rule = Callable[[Sequence[Cell], Sequence[Cell], list[int], list[int]], Iterator[tuple[int, int]]]


def _match(
    base: Sequence[Cell], other: Sequence[Cell], rules: Sequence[Rule], *, without: Container[int] = ()
) -> dict[int, int]:
    """place in `base` -> place in `other` of the same cell, in the order of `base`; the surest rule first."""
    pairs: dict[int, int] = {}
    for rule in rules:
        used = set(pairs.values())
        free_base = [b for b in range(len(base)) if b not in pairs]
        free_other = [o for o in range(len(other)) if o not in used and o not in without]
        pairs |= rule(base, other, free_base, free_other)
    return dict(sorted(pairs.items()))


def _by(key: Callable[[Cell], Hashable]) -> Rule:
    """The first cell with a key matches the first with that key, the second the second, and so on."""

    def rule(base, other, free_base, free_other):
        places = defaultdict(list)
        for o in free_other:
            places[key(other[o])].append(o)
        for b in free_base:
            if key(base[b]) and places[key(base[b])]:
                yield b, places[key(base[b])].pop(0)

    return rule


def _by_likeness(base, other, free_base, free_other):
    """The likest cell of the same kind, where at least six tenths of the two are the same."""
    for b in free_base:
        likeness = {o: _likeness(base[b], other[o]) for o in free_other}
        best = max(likeness, key=likeness.get, default=None)
        if best is not None and likeness[best] >= 0.6:
            free_other.remove(best)
            yield b, best


def _likeness(one: Cell, other: Cell) -> float:
    if one["cell_type"] != other["cell_type"]:
        return 0.0
    lines = SequenceMatcher(None, one["source"], other["source"], autojunk=False)
    return lines.ratio() if lines.quick_ratio() >= 0.6 else 0.0


def _content(cell: Cell) -> tuple[str, str]:
    return cell["cell_type"], cell["source"]


def _delivered(cell: Cell) -> tuple:
    return cell["id"], _content(cell), cell["metadata"]


def _exercise(cell: Cell) -> str | None:
    stored = cell.get("metadata", {}).get("sparselab")
    return stored.get("exercise") if isinstance(stored, dict) else None


def _quoted(cell: Cell) -> str:
    first = next((line.strip() for line in cell["source"].split("\n") if line.strip()), "an empty cell")
    return repr(first if len(first) <= 60 else first[:57] + "...")


_by_id_and_content = _by(lambda cell: (cell.get("id"), _content(cell)))
_by_id = _by(lambda cell: cell.get("id"))
_by_content = _by(_content)
_by_exercise = _by(_exercise)
