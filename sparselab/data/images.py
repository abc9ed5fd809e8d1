"""Images that come with scikit-learn."""

from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int


class Images(NamedTuple):
    """Grey images with values in [0, 1] and their class."""

    images: Float[np.ndarray, "n y x"]
    labels: Int[np.ndarray, " n"]


def digits(split: Literal["train", "held_out"] = "train") -> Images:
    """The 1797 handwritten 8x8 digits: of each class every fifth image, in the data's own order, is held out.

    Raises ValueError for another split, ImportError where scikit-learn is not installed.
    """
    if split not in ("train", "held_out"):
        raise ValueError(f"split {split!r} is neither 'train' nor 'held_out'")
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise ImportError("the digits come with scikit-learn: pip install scikit-learn") from None
    images, labels = load_digits(return_X_y=True)
    rank_in_class = np.empty(len(labels), int)
    for label in range(10):
        rank_in_class[labels == label] = np.arange((labels == label).sum())
    chosen = (rank_in_class % 5 == 4) == (split == "held_out")
    return Images(images[chosen].reshape(-1, 8, 8) / 16, labels[chosen].astype(np.int64))


def shifted(images: Float[np.ndarray, "n y x"], by: Int[np.ndarray, "n 2"]) -> Float[np.ndarray, "n y x"]:
    """Each image moved by its own number of pixels down and to the right, zeros moving in; the input is kept.

    Raises ValueError for a move as large as the image.
    """
    n, height, width = images.shape
    reach = int(np.abs(by).max(initial=0))
    if reach >= min(height, width):
        raise ValueError(f"a move of {reach} pixels leaves nothing of a {height}x{width} image")
    padded = np.pad(images, ((0, 0), (reach, reach), (reach, reach)))
    rows = reach - by[:, :1] + np.arange(height)
    columns = reach - by[:, 1:] + np.arange(width)
    return padded[np.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]]
