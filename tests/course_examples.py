"""A small course to build, break and update: one lesson about Wanda's score."""

from pathlib import Path

HEADER = """# ---
# sparselab:
#   title: Weights and inputs
#   minutes: 30
# ---
"""

SETUP = """
# %% [markdown]
# Which weights may go? Guess first.

# %%
import numpy as np

from sparselab.course import grade
from sparselab.plots import explore, figure, mask, show
"""

EXERCISE = """
# %% exercise="wanda.score" difficulty=2 importance=5 minutes=10
def score(w: np.ndarray, x: np.ndarray) -> np.ndarray:
    \"\"\"Importance of each weight.\"\"\"
    raise NotImplementedError


# %%
grade("wanda.score", score)
"""

FIGURE = """
# %%
fig, ax = figure("Half is kept", alt="A checkerboard: half of the cells are kept", size=(3, 3))
mask(ax, np.indices((4, 4)).sum(axis=0) % 2 == 0)
print("of 16", flush=True)
show(fig)
print("kept:", 8)
"""

SLIDER = """
# %% tags=["hide-input"]
def draw(k=2):
    return f"{k} of 4 kept"


explore(draw, alt="How many are kept", k=[1, 2, 4])
"""

SOLUTION = '''"""Solutions."""

import functools

import numpy as np


def score(w: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Importance of each weight."""
    if w.shape[1] != x.shape[1]:
        raise ValueError(f"w has {w.shape[1]} inputs and x has {x.shape[1]}")
    squared_norm_of_each_input = functools.reduce(np.add, x**2, np.zeros(x.shape[1]))
    return np.abs(w) * np.sqrt(squared_norm_of_each_input)
'''

LESSON = HEADER + SETUP + EXERCISE + FIGURE + SLIDER


def write_course(
    root: Path, lesson: str = LESSON, solution: str = SOLUTION, path: str = "05_pruning/02_wanda"
) -> Path:
    """Write one lesson with its solutions below `root`; `root`."""
    for folder, text in (("chapters", lesson), ("solutions", solution)):
        file = root / folder / f"{path}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return root
