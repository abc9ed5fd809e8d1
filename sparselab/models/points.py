"""Looking at, and reaching into, the named points of a model."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase

from torch import Tensor, nn

from sparselab.method import unknown


def points(model: nn.Module) -> dict[str, nn.Identity]:
    """The points of a model by name, in the order of the layers: `blocks.0.ffn.hidden` and so on."""
    return {name: module for name, module in model.named_modules() if isinstance(module, nn.Identity)}


@contextmanager
def reaching(model: nn.Module, into: dict[str, Callable[[Tensor], Tensor | None]]) -> Iterator[nn.Module]:
    """While it lasts, each named point passes its tensor to a function and goes on with what that returns.

    None leaves the tensor as it is. Names may be patterns, `blocks.*.residual`. Raises ValueError for a
    name that fits no point, naming the nearest.
    """
    known = points(model)
    chosen = [(known[name], f) for pattern, f in into.items() for name in _matching(pattern, known)]
    handles = []
    try:
        for point, f in chosen:
            handles.append(point.register_forward_hook(lambda _, inputs, out, f=f: f(out)))
        yield model
    finally:
        for handle in handles:
            handle.remove()


def activations(model: nn.Module, batch, names: str | Sequence[str]) -> dict[str, Tensor]:
    """The tensors at the named points for one batch, by name; gradients flow unless turned off.

    Names may be patterns, `blocks.*.ffn.hidden`. Raises ValueError for a name that fits no point.
    """
    known, seen = points(model), {}
    patterns = [names] if isinstance(names, str) else names
    chosen = [name for pattern in patterns for name in _matching(pattern, known)]
    with reaching(model, {name: lambda tensor, name=name: seen.update({name: tensor}) for name in chosen}):
        model(batch)
    return {name: seen[name] for name in known if name in seen}


def _matching(pattern: str, known: dict[str, nn.Identity]) -> list[str]:
    matching = [name for name in known if fnmatchcase(name, pattern)]
    if not matching:
        raise ValueError(unknown("point", pattern, list(known)))
    return matching
