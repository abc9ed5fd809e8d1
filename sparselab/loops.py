"""The door of every `loops.py`: plain loops over arrays, compiled for the CPU where torch has no operator."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, wraps
from importlib.util import find_spec

GRAIN = 2**18  # entries a thread must have to itself before it is woken: 40 us of reading memory


def fit(a, b) -> bool:
    """True where a loop takes these two tensors: no gradient is asked for, and both are contiguous float32 or
    both contiguous float64 in main memory.

    Without Numba no tensor fits, nor while torch compiles or only plays through the shapes: the operators of
    torch, which give the same answer, do the work.
    """
    import torch

    if torch.compiler.is_compiling():
        return False
    return (
        all(type(tensor) in (torch.Tensor, torch.nn.Parameter) for tensor in (a, b))
        and a.dtype == b.dtype
        and a.dtype in (torch.float32, torch.float64)
        and a.is_cpu
        and b.is_cpu
        and a.is_contiguous()
        and b.is_contiguous()
        and not (torch.is_grad_enabled() and (a.requires_grad or b.requires_grad))
        and _numba_is_there()
    )


def compiled(loop: Callable) -> Callable:
    """`run(size, *given, work)` from `loop(start, stop, *arrays)`, which does its part of 0..size.

        @compiled
        def double(start, stop, x, out): ...

        double(len(x), x, out, work=x.numel())

    The loop is compiled on its first call, a fraction of a second for each kind of array. It is given a
    tensor's memory as an array, and each of torch's threads one part if they have `work` entries enough; a
    part returns True, or False where it cannot do what is asked.
    """

    @cache
    def machine_code() -> Callable:
        from numba import njit

        # Sums may be reordered into the lanes of a register; NaN and infinity keep their meaning.
        return njit(nogil=True, error_model="numpy", fastmath={"contract", "nsz", "reassoc"})(loop)

    @wraps(loop)
    def run(size: int, *given, work: int) -> bool:
        import torch

        given = [a.detach().numpy() if isinstance(a, torch.Tensor) else a for a in given]
        parts = min(torch.get_num_threads(), size, work // GRAIN)
        if parts < 2:
            return machine_code()(0, size, *given)
        edges = [size * part // parts for part in range(parts + 1)]
        others = [_threads().submit(machine_code(), *edges[i : i + 2], *given) for i in range(1, parts)]
        done = machine_code()(0, edges[1], *given)
        return all([done, *(other.result() for other in others)])

    return run


@cache
def _numba_is_there() -> bool:
    return find_spec("numba") is not None


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(thread_name_prefix="loop")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_threads.cache_clear)  # threads do not survive a fork
