"""Messages between grader and child: JSON that tells the form, and the bytes of the arrays. No pickle.

A frame is `<length of the JSON> <length of the body>` as two 8-byte integers, the JSON, the body. In the JSON
an array is {"array": [dtype, shape, offset]}, whose bytes stand in the body.
"""

import importlib
import json
import math
import struct
from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from sparselab import judge

KINDS = "biufc"  # no objects, no strings, no records
HEAD = struct.Struct(">QQ")
LARGEST = 1 << 30
TOO_LARGE = "it holds {} bytes, at most {} are taken"


class WireError(Exception):
    """A message that cannot be sent, or that does not follow the form."""


def encode(message: Any, functions: list[Callable] | None = None, *, most: int = LARGEST) -> bytes:
    """One frame; WireError for what has no form here. A callable joins `functions`, if given."""
    body = bytearray()
    try:
        text = json.dumps(_Shape(body, functions, most).of(message)).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise WireError(f"it cannot be sent: {error}") from None
    if len(text) + len(body) > most:
        raise WireError(TOO_LARGE.format(len(text) + len(body), most))
    return HEAD.pack(len(text), len(body)) + text + bytes(body)


def decode(text: bytes, body: bytes, *, call: Callable[[int, dict], Any] | None = None, trusted: bool) -> Any:
    """The message of a frame; WireError for anything that does not follow the form.

    From a trusted side, NamedTuples become the package's own classes and functions are called through `call`.
    """
    try:
        return _value(json.loads(text), body, call, trusted)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise WireError(f"unreadable: {type(error).__name__}") from None


def read_frame(read: Callable[[int], bytes], *, most: int) -> tuple[bytes, bytes]:
    """(JSON, body) from `read(n)`, at most n bytes; EOFError at its end, WireError above `most` bytes."""
    lengths = HEAD.unpack(_exactly(read, HEAD.size))
    if sum(lengths) > most:
        raise WireError(TOO_LARGE.format(sum(lengths), most))
    return _exactly(read, lengths[0]), _exactly(read, lengths[1])


def _exactly(read: Callable[[int], bytes], count: int) -> bytes:
    parts = bytearray()
    while len(parts) < count:
        part = read(min(count - len(parts), 1 << 20))
        if not part:
            raise EOFError
        parts += part
    return bytes(parts)


@dataclass(frozen=True)
class _Shape:
    """The JSON of a value, while the bytes of its arrays are collected in `body`."""

    body: bytearray
    functions: list[Callable] | None
    most: int

    def of(self, value: Any) -> Any:
        if value is None or type(value) in (bool, int, float, str):
            return value
        if hasattr(value, "_fields"):
            items = [[field, self.of(getattr(value, field))] for field in value._fields]
            return {"fields": [type(value).__module__, type(value).__qualname__, items]}
        if isinstance(value, tuple | list):
            return {"tuple" if isinstance(value, tuple) else "list": [self.of(item) for item in value]}
        if isinstance(value, dict):
            return {"dict": [[self.of(key), self.of(item)] for key, item in value.items()]}
        try:
            array = np.array(judge.numpy(value), copy=False, subok=False)
        except Exception:  # any object may refuse in its own way
            array = np.array(None)
        if array.dtype.kind in KINDS:
            return {"array": self._array(array)}
        if callable(value) and self.functions is not None:
            self.functions.append(value)
            return {"function": len(self.functions) - 1}
        return {"object": type(value).__name__}

    def _array(self, array: np.ndarray) -> list:
        start = len(self.body)
        if start + array.nbytes > self.most:
            raise WireError(TOO_LARGE.format(start + array.nbytes, self.most))
        self.body.extend(array.astype(array.dtype.newbyteorder("<")).tobytes())
        return [array.dtype.newbyteorder("<").str, list(array.shape), start]


def _value(told: Any, body: bytes, call: Callable[[int, dict], Any] | None, trusted: bool) -> Any:
    if told is None or isinstance(told, bool | int | float | str):
        return told
    [(kind, content)] = told.items()
    if kind == "array":
        return _array(*content, body)
    if kind in ("tuple", "list"):
        items = [_value(item, body, call, trusted) for item in content]
        return tuple(items) if kind == "tuple" else items
    if kind == "dict":
        return {_value(k, body, call, trusted): _value(v, body, call, trusted) for k, v in content}
    if kind == "fields":
        module, name, items = content
        names, values = zip(*((field, _value(v, body, call, trusted)) for field, v in items), strict=True)
        if trusted and module.startswith("sparselab."):
            return getattr(importlib.import_module(module), name)(*values)
        return namedtuple(_word(name), names)(*values)
    if kind == "function" and trusted and call:
        return lambda *args, **kwargs: call(content, {"args": args, "kwargs": kwargs})
    if kind == "object":
        return type(_word(content), (), {})()
    raise WireError(f"unknown kind {kind!r}")


def _array(dtype: str, shape: list[int], start: int, body: bytes) -> np.ndarray:
    kind = np.dtype(str(dtype))
    if kind.kind not in KINDS or not all(type(n) is int and n >= 0 for n in [*shape, start]):
        raise WireError(f"no array: {dtype} {shape}")
    count = math.prod(shape)
    if start + count * kind.itemsize > len(body):
        raise WireError(f"an array of shape {shape} without its bytes")
    return np.frombuffer(body, kind, count, start).reshape(shape).copy()


def _word(name: str) -> str:
    return name if str(name).isidentifier() and len(name) <= 50 else "object"
