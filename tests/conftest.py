"""The conditions of every test: shapes enforced, fresh memory filled with NaN, kernels interpreted."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # workers x threads stays within two cores

from jaxtyping import install_import_hook  # noqa: E402

from sparselab.method import PACKAGE, folders  # noqa: E402


def _gpu() -> bool:
    import torch

    return torch.cuda.is_available()


# Triton reads the switch when a kernel is defined, so it is set before any is imported.
if not _gpu():
    os.environ.setdefault("TRITON_INTERPRET", "1")

# Only the two columns that speak in shapes: the hook would break `@triton.jit`, which reads its source.
SHAPED = [
    f"sparselab.{family}.{name}.{part}"
    for family, name in folders()
    for part in ("reference", "fast")
    if (PACKAGE / family / name / f"{part}.py").exists()
]
install_import_hook(SHAPED, "beartype.beartype")

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _poisoned_memory(monkeypatch):
    """An output that a method allocates and does not write is NaN, not a lucky zero."""

    def poisoned(make):
        def empty(*args, **kwargs):
            fresh = make(*args, **kwargs)
            fresh.fill(
                np.nan
                if fresh.dtype.kind in "fc"
                else np.iinfo(fresh.dtype).max
                if fresh.dtype.kind in "iu"
                else 1
            )
            return fresh

        return empty

    monkeypatch.setattr(np, "empty", poisoned(np.empty))
    monkeypatch.setattr(np, "empty_like", poisoned(np.empty_like))
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)
