"""Data that is on every machine: text and images that come with the libraries, and planted truths."""

import hashlib

import numpy as np


def fingerprint(data: np.ndarray) -> str:
    """First 16 hexadecimal digits of the SHA-256 of an array's bytes: which data a model was trained on."""
    return hashlib.sha256(np.ascontiguousarray(data).tobytes()).hexdigest()[:16]
