"""The door of every `kernel.py`: Triton where it can run, one sentence where it cannot."""

from types import ModuleType


def require(module: str) -> tuple[ModuleType, ModuleType]:
    """`(triton, triton.language)` for the kernel module called `module`.

        triton, tl = require(__name__)

    Raises ImportError, naming the `fast` module beside it, where Triton is not installed or has neither a
    GPU nor its interpreter (TRITON_INTERPRET=1, set before this import) to run on.
    """
    instead = f"use {module.rpartition('.')[0]}.fast here"
    try:
        import torch
        import triton
        import triton.language as tl
    except ImportError as error:
        raise ImportError(f"{module} needs {error.name or 'triton'}, not installed: {instead}") from error
    if not (torch.cuda.is_available() or triton.knobs.runtime.interpret):
        raise ImportError(f"{module} needs a GPU, or TRITON_INTERPRET=1 to read and test it: {instead}")
    return triton, tl
