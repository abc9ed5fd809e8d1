"""The look of the course: figures with alt text, a few drawings that recur, one slider for notebook and page.

    fig, ax = figure("Half the neurons fall silent", alt="Active share against step: falls from 0.5 to 0.25")
    ax.plot(steps, active)
    show(fig)

Pictures are opaque near-white panels, so they read the same on a dark page, on a light one and on paper.
Colours are Okabe and Ito's (2008), which colour-blind readers tell apart.
"""

import base64
import inspect
import io
import itertools
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PURPLE, SKY, YELLOW = "#CC79A7", "#56B4E9", "#F0E442"
INK, GREY, FAINT, PAPER = "#1f2328", "#6b7280", "#d9dde3", "#fcfcfd"

SPARSE, DENSE, IDEAL = BLUE, GREY, INK  # the same three in every figure that compares them

STYLE = {
    "figure.facecolor": PAPER,
    "axes.facecolor": PAPER,
    "savefig.facecolor": PAPER,
    "font.family": "DejaVu Sans",  # ships with matplotlib: the same letters on every machine
    "font.size": 12,
    "axes.titlesize": 14,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 12,
    "figure.constrained_layout.h_pad": 0.12,
    "figure.constrained_layout.w_pad": 0.12,
    "figure.titlesize": 14,
    "figure.titleweight": "bold",
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GREY,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "lines.linewidth": 2.2,
    "legend.frameon": False,
    "image.interpolation": "nearest",
    "axes.prop_cycle": matplotlib.cycler(color=[BLUE, RED, GREEN, PURPLE, ORANGE, SKY, INK]),
}
DPI = 144  # drawn at 96 pixels an inch: sharp on a screen with a scale of 1.5

PAGE = Path(__file__).parent / "course" / "explore.html"
MAX_FRAMES = 64
MAX_BYTES = 1_500_000


# ---------------------------------------------------------------- one figure


def figure(
    title: str = "", *, alt: str = "", size: tuple[float, float] = (7, 3.6), rows: int = 1, cols: int = 1
) -> tuple[Figure, Any]:
    """An empty figure in the course's style with its axes; `title` is its message, `alt` the same in words.

    With several rows or columns the axes are an array, as in `Figure.subplots`.
    """
    matplotlib.rcParams.update(STYLE)
    fig = Figure(figsize=size, layout="constrained", label=alt)
    axes = fig.subplots(rows, cols)
    if rows == cols == 1:
        axes.set_title(title)
    elif title:
        fig.suptitle(title, x=0.01, ha="left")
    return fig, axes


def show(fig: Figure, *, alt: str = "") -> None:
    """Put the figure into the notebook with its alt text; ValueError where it has none."""
    from IPython.display import display

    alt = _alt(alt or fig.get_label())
    display({"text/html": html(fig, alt=alt), "text/plain": f"[{alt}]"}, raw=True)


def _alt(text: str) -> str:
    if not text.strip():
        raise ValueError('a figure needs alt text that says its message: show(fig, alt="...")')
    return " ".join(text.split())


def html(fig: Figure, *, alt: str = "") -> str:
    """The figure as an image that stands in a page by itself; ValueError where it has no alt text."""
    alt = _alt(alt or fig.get_label())
    width = round(fig.get_figwidth() * 96)
    style = f"width:{width}px;max-width:100%;height:auto;border-radius:6px"
    return f'<img alt="{escape(alt)}" style="{style}" src="{_picture(fig)}">'


def _picture(fig: Figure) -> str:
    """The figure as a data URI: lossless WebP, the same bytes for the same drawing."""
    buffer = io.BytesIO()
    fig.savefig(buffer, format="webp", dpi=DPI, pil_kwargs={"lossless": True, "quality": 80, "method": 4})
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


# ---------------------------------------------------------------- drawings that recur


def note(
    ax: Axes,
    text: str,
    x: float,
    y: float,
    *,
    color: str = INK,
    dx: float = 6,
    dy: float = 0,
    high: bool = False,
    **style: Any,
) -> None:
    """Write `text` beside the point (x, y), `dx` and `dy` points away; `high`: y counts from 0 to 1."""
    place = ax.get_xaxis_transform() if high else ax.transData
    style = {
        "weight": "bold",
        "va": "center",
        "ha": "left" if dx >= 0 else "right",
        "annotation_clip": False,
    } | style
    ax.annotate(text, (x, y), (dx, dy), xycoords=place, textcoords="offset points", color=color, **style)


def mask(ax: Axes, kept: np.ndarray, *, color: str = SPARSE, rows: str = "", columns: str = "") -> None:
    """A boolean mask as pixels, `kept` in colour, row 0 at the top; a small one shows its cells."""
    kept = np.asarray(kept)
    if kept.ndim != 2 or kept.dtype != bool:
        raise ValueError(f"a mask is a boolean matrix, not {kept.dtype} of shape {kept.shape}")
    high, wide = kept.shape
    ax.imshow(kept, cmap=matplotlib.colors.ListedColormap(["#eceff3", color]), vmin=0, vmax=1, aspect="equal")
    if max(high, wide) <= 40:
        ax.set_xticks(np.arange(1, wide) - 0.5, minor=True)
        ax.set_yticks(np.arange(1, high) - 0.5, minor=True)
        ax.grid(which="minor", color=PAPER, linewidth=1.2)
        ax.tick_params(which="minor", length=0)
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    ax.set(xlabel=columns, ylabel=rows)


def supports(
    ax: Axes, active: np.ndarray, *, color: str = SPARSE, items: str = "token", units: str = "neuron"
) -> None:
    """Which units each item switches on: one column of dots per item, from a boolean (items, units)."""
    active = np.asarray(active)
    if active.ndim != 2 or active.dtype != bool:
        raise ValueError(f"supports come as a boolean (items, units), not {active.dtype} of {active.shape}")
    item, unit = np.nonzero(active)
    ax.scatter(item, unit, s=np.clip(9000 / max(active.shape) ** 1.5, 1.5, 40), color=color, linewidths=0)
    ax.set(xlim=(-0.5, len(active) - 0.5), ylim=(-0.5, active.shape[1] - 0.5), xlabel=items, ylabel=units)


def threshold(
    ax: Axes, values: np.ndarray, cut: float, *, bins: int = 60, color: str = SPARSE, unit: str = ""
) -> None:
    """A histogram of `values` with a cut: what lies at or above it is coloured, its share written there."""
    values = np.asarray(values, float).ravel()
    edges = np.linspace(values.min(), values.max(), bins + 1)
    inside = min(max(cut, edges[0]), edges[-1])
    edges = np.unique([*edges, inside])
    counts, _ = np.histogram(values, edges)
    heights = counts / np.diff(edges) / max(values.size, 1)  # densities, since the cut splits one bin
    kept = edges[:-1] >= inside if cut <= edges[-1] else np.zeros(len(counts), bool)
    for side, shade in ((kept, color), (~kept, FAINT)):
        ax.bar(edges[:-1][side], heights[side], np.diff(edges)[side], align="edge", color=shade, linewidth=0)
    ax.axvline(cut, color=INK, linewidth=1.6)
    note(ax, f"{(values >= cut).mean():.1%} kept", cut, 0.97, color=color, high=True, va="top")
    ax.spines.left.set_visible(False)
    ax.set(yticks=[], xlabel=unit)


def curves(
    ax: Axes, x: Sequence[float], lines: Mapping[str, np.ndarray], *, colors: Mapping[str, str] = {}
) -> None:  # noqa: B006
    """Curves with their names at their right ends in place of a legend.

    A line of shape (seeds, points) is drawn as its mean in a band from the lowest seed to the highest. Set
    scales and limits of the axes first: the names keep apart at the scale they find.
    """
    x, ends = np.asarray(x), []
    for name, y in lines.items():
        y = np.atleast_2d(np.asarray(y, float))
        if y.shape[1] != len(x):
            raise ValueError(f"{name!r} has {y.shape[1]} points, x has {len(x)}")
        (line,) = ax.plot(x, y.mean(0), color=(colors or {}).get(name))
        if len(y) > 1:
            ax.fill_between(x, y.min(0), y.max(0), color=line.get_color(), alpha=0.18, linewidth=0)
        ends.append((name, y.mean(0)[-1], line.get_color()))
    _label_ends(ax, x[-1], ends)


def _label_ends(ax: Axes, x: float, ends: list[tuple[str, float, str]]) -> None:
    """Write each name at the height of its line's end; names that would touch share the space."""
    line_height = STYLE["font.size"] * 1.25
    heights = {end: ax.transData.transform((x, end[1]))[1] * 72 / ax.figure.dpi for end in ends}
    groups: list[list] = []
    for end in sorted(ends, key=heights.get):
        groups.append([end])
        while len(groups) > 1 and _top(groups[-2], heights, line_height) > _bottom(
            groups[-1], heights, line_height
        ):
            groups[-2:] = [groups[-2] + groups[-1]]
    for group in groups:
        for place, end in enumerate(group):
            name, y, color = end
            height = _bottom(group, heights, line_height) + (place + 0.5) * line_height
            ax.annotate(
                name, (x, y), (8, height - heights[end]), textcoords="offset points",
                color=color, weight="bold", va="center", annotation_clip=False,
            )  # fmt: skip


def _bottom(group: list, heights: dict, line_height: float) -> float:
    return sum(heights[end] for end in group) / len(group) - len(group) * line_height / 2


def _top(group: list, heights: dict, line_height: float) -> float:
    return _bottom(group, heights, line_height) + len(group) * line_height


# ---------------------------------------------------------------- one slider


def explore(draw: Callable[..., Figure | str], *, alt: str, **controls: Iterable[Any]) -> None:
    """Show `draw(**values)` under one or two sliders: `explore(draw, alt="...", k=[1, 2, 4, 8])`.

    `draw` returns a figure or a text. A slider starts at the default of draw's parameter, else at its first
    value. In a live notebook each move calls `draw`. Where the builder has set SPARSELAB_STATIC, every
    combination is drawn once and stored in a page that needs no kernel, no network and no library: ValueError
    above MAX_FRAMES combinations or MAX_BYTES of frames.
    """
    alt = _alt(alt)
    values = {name: list(options) for name, options in controls.items()}
    if not 1 <= len(values) <= 2:
        raise ValueError(f"explore takes one or two controls, not {len(values)}")
    for name, options in values.items():
        if len(options) < 2:
            raise ValueError(f"the control {name!r} needs at least two values, not {len(options)}")
    start = {name: _start(draw, name, options) for name, options in values.items()}
    if os.environ.get("SPARSELAB_STATIC"):
        _explore_page(draw, alt, values, start)
    else:
        _explore_live(draw, alt, values, start)


def _start(draw: Callable, name: str, options: list) -> int:
    parameter = inspect.signature(draw).parameters.get(name)
    return options.index(parameter.default) if parameter and parameter.default in options else 0


def _written(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float | np.floating) else str(value)


def _read_out(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} = {_written(value)}" for name, value in values.items())


def _frame(draw: Callable, alt: str, values: Mapping[str, Any]) -> str:
    drawn = draw(**values)
    if isinstance(drawn, Figure):
        return html(drawn, alt=f"{alt} ({_read_out(values)})")
    if isinstance(drawn, str):
        return f"<pre>{escape(drawn)}</pre>"
    raise ValueError(f"draw returned {type(drawn).__name__}; it returns a figure or a text")


def _explore_live(draw: Callable, alt: str, values: dict[str, list], start: dict[str, int]) -> None:
    import ipywidgets as widgets
    from IPython.display import display

    picture = widgets.HTML()
    sliders = {
        name: widgets.SelectionSlider(
            options=[(_written(value), value) for value in options],
            index=start[name],
            description=name.replace("_", " "),
            style={"description_width": "initial"},
            layout={"width": "min(32rem, 100%)"},
        )
        for name, options in values.items()
    }

    def redraw(_=None):
        try:
            picture.value = _frame(draw, alt, {name: slider.value for name, slider in sliders.items()})
        except Exception as error:  # a widget's callback has nobody above it to show what went wrong
            picture.value = f"<pre>{escape(f'{type(error).__name__}: {error}')}</pre>"

    picture.value = _frame(draw, alt, {name: slider.value for name, slider in sliders.items()})
    for slider in sliders.values():
        slider.observe(redraw, "value")
    display(widgets.VBox([picture, *sliders.values()]))


def _explore_page(draw: Callable, alt: str, values: dict[str, list], start: dict[str, int]) -> None:
    from IPython.display import display

    count = int(np.prod([len(options) for options in values.values()]))
    if count > MAX_FRAMES:
        sizes = " x ".join(f"{len(options)} of {name}" for name, options in values.items())
        raise ValueError(f"explore stores at most {MAX_FRAMES} frames; {sizes} make {count}")
    combinations = [
        dict(zip(values, combination, strict=True)) for combination in itertools.product(*values.values())
    ]
    frames = [_frame(draw, alt, combination) for combination in combinations]
    if (size := sum(map(len, frames))) > MAX_BYTES:
        raise ValueError(
            f"explore stores at most {MAX_BYTES:,} bytes; {count} frames make {size:,}: "
            "give fewer values or a smaller figure"
        )
    widths = [len(options) for options in values.values()]
    first = int(np.ravel_multi_index(list(start.values()), widths))
    data = {
        "frames": frames,
        "controls": [
            {"name": name.replace("_", " "), "start": start[name], "values": [_written(v) for v in options]}
            for name, options in values.items()
        ],
    }
    # The first frame is a plain picture, so the page speaks where scripts are off; its script adds sliders.
    parts = {
        "FRAME": frames[first],
        "READ_OUT": escape(_read_out(combinations[first])),
        "DATA": json.dumps(data, ensure_ascii=False).replace("</", "<\\/"),
    }
    page = re.sub("@([A-Z_]+)@", lambda part: parts[part[1]], PAGE.read_text(encoding="utf-8"))
    display({"text/html": page, "text/plain": f"[{alt} ({_read_out(combinations[first])})]"}, raw=True)
