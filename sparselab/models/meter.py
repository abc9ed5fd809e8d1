"""Counting the weights that are really read: bytes first, then the stopwatch."""

from collections.abc import Callable

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

PRODUCTS = {"mm", "mv", "addmm", "addmv"}
SUMS = {"_embedding_bag", "_embedding_bag_forward_only", "rows_dot", "rows_total"}
GATHERS = {"index", "index_select", "embedding"}


class Meter(TorchDispatchMode):
    """Bytes of weights that torch reads while it lasts: `with Meter() as meter: model(x)`, `meter.bytes`.

    A weight is a matrix that was there before. A product reads all of it, a sum of rows and a gather read the
    rows that they name, each time anew. Copies made meanwhile, single rows such as the embedding of one
    byte, and keys and values count nothing.
    """

    bytes = 0

    def __enter__(self) -> "Meter":
        self._fresh: set[int] = set()
        return super().__enter__()

    def __torch_dispatch__(self, op: Callable, types, args=(), kwargs=None):
        out = op(*args, **(kwargs or {}))
        name = op.overloadpacket.__name__
        if name in PRODUCTS:
            self.bytes += sum(a.nbytes for a in args if self._is_weight(a))
        elif name in SUMS | GATHERS and self._is_weight(args[0]):
            rows = args[1].numel() if name in SUMS else out.numel() // args[0].shape[1]
            self.bytes += rows * args[0].shape[1] * args[0].itemsize
        for made in out if isinstance(out, tuple | list) else [out]:
            if isinstance(made, Tensor) and not any(_share(made, a) for a in args):
                self._fresh.add(made.untyped_storage().data_ptr())
        return out

    def _is_weight(self, a) -> bool:
        is_matrix = isinstance(a, Tensor) and a.ndim == 2 and min(a.shape) > 1
        return is_matrix and a.untyped_storage().data_ptr() not in self._fresh


def _share(made: Tensor, a) -> bool:
    return isinstance(a, Tensor) and made.untyped_storage().data_ptr() == a.untyped_storage().data_ptr()
