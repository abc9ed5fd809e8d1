"""The site's own drawings: small grids of cells, one for each kind of sparsity, in the page's colours."""

import random
from collections.abc import Callable

ROWS, COLUMNS, CELL = 5, 20, 10


def fading() -> str:
    """Neurons from left to right as training goes on: half of them lit, then one in twenty."""
    draw, rows, columns = random.Random(7), 7, 72
    share = [0.5 * (0.04 / 0.5) ** min(1, column / (columns - 12)) for column in range(columns)]
    lit = {(row, column) for column in range(columns) for row in range(rows) if draw.random() < share[column]}
    words = "A grid of neurons: at the left half of them are lit, at the right one in twenty"
    return _grid(lambda row, column: "lit" if (row, column) in lit else "dark", words, rows, columns)


def chapter(name: str) -> str:
    """The picture of the chapter `01_lazy`; a chapter without one of its own gets the first."""
    draw = random.Random(name)
    cells, words = _CHAPTERS.get(name, _CHAPTERS["01_lazy"])
    return _grid(cells(draw), words, ROWS, COLUMNS)


def _grid(cell: Callable[[int, int], str], words: str, rows: int, columns: int) -> str:
    """Cells as rounded squares; `cell` names the class of each."""
    size = CELL - 2
    squares = "".join(
        f'<rect class="{cell(row, column)}" x="{column * CELL + 1}" y="{row * CELL + 1}" '
        f'width="{size}" height="{size}" rx="2"/>'
        for row in range(rows)
        for column in range(columns)
    )
    return (
        f'<svg class="cells" viewBox="0 0 {columns * CELL} {rows * CELL}" role="img" aria-label="{words}">'
        f"<title>{words}</title>{squares}</svg>"
    )


def _lazy(draw: random.Random) -> Callable[[int, int], str]:
    lit = [set(draw.sample(range(ROWS), draw.choice((1, 1, 2)))) for _ in range(COLUMNS)]
    return lambda row, column: "lit" if row in lit[column] else "dark"


def _gating(draw: random.Random) -> Callable[[int, int], str]:
    chosen = [draw.sample(range(ROWS), 2) for _ in range(COLUMNS)]
    return lambda row, column: f"lit tone{row % 4}" if row in chosen[column] else "dark"


def _dictionary(draw: random.Random) -> Callable[[int, int], str]:
    lit = {(row, column) for row in range(ROWS) for column in draw.sample(range(COLUMNS), 3)}
    return lambda row, column: f"lit tone{row % 4}" if (row, column) in lit else "dark"


def _attention(draw: random.Random) -> Callable[[int, int], str]:
    kept = {(0, 0), (1, 0), (1, 1), (2, 0), (2, 2), (3, 0), (3, 3), (4, 0), (4, 2), (4, 4)}

    def cell(row: int, column: int) -> str:
        if column // 4 > row:
            return "none"
        return "lit" if (row, column // 4) in kept else "dark"

    return cell


def _n_of_m(draw: random.Random) -> Callable[[int, int], str]:
    lit = {
        (row, group * 4 + i)
        for row in range(ROWS)
        for group in range(COLUMNS // 4)
        for i in draw.sample(range(4), 2)
    }
    return lambda row, column: "lit" if (row, column) in lit else "dark"


def _search(draw: random.Random) -> Callable[[int, int], str]:
    places = [(row, column) for row in range(ROWS) for column in range(COLUMNS)]
    chosen = draw.sample(places, 30)
    kept, dropped, grown = set(chosen[:16]), set(chosen[16:23]), set(chosen[23:])

    def cell(row: int, column: int) -> str:
        place = (row, column)
        return (
            "lit"
            if place in kept
            else "lost"
            if place in dropped
            else "lit tone1"
            if place in grown
            else "dark"
        )

    return cell


_CHAPTERS = {
    "01_lazy": (_lazy, "Columns of neurons, one or two lit in each"),
    "02_gating": (_gating, "Every token, a column, visits two of five experts"),
    "03_sae": (_dictionary, "Each row uses three atoms of twenty"),
    "04_attention": (_attention, "A causal attention matrix with few blocks kept"),
    "05_pruning": (_n_of_m, "Two weights kept of every four in a row"),
    "06_search": (_search, "Connections kept, dropped and newly grown"),
}
