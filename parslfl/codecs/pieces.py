"""Decoded updates that are folded without being made dense first.

An update is opened by its codec, looked at (`norm`), and added to a running sum a block at a time.

Does not know: how any codec writes its arrays.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from parslfl.codecs.layout import others
from parslfl.params import BLOCK, Array, Params, fold, squared_norm, trained
from parslfl.protocols import Codec, Delta, Opener

Floats = npt.NDArray[np.float32]
#: Fill `out` with the values of array number `index` from element `start` on, where `start` is a
#: multiple of `BLOCK` and `out` ends with its block or with the array.
Read = Callable[[int, int, Floats], None]


@dataclass(frozen=True)
class Dense:
    """An update as plain arrays."""

    params: Params

    def norm(self) -> float:
        return math.sqrt(squared_norm(self.params))

    def add(self, total: Params, weight: float) -> None:
        fold(total, self.params, weight)


@dataclass(frozen=True)
class Blocks:
    """An update that is read a block at a time. `length`: its Euclidean norm."""

    read: Read
    length: float

    @classmethod
    def of(cls, read: Read, like: Mapping[str, Array]) -> Blocks:
        """What `read` gives for a model like `like`, its norm taken in one pass."""
        scratch, square = np.empty(BLOCK, np.float32), 0.0
        for index, array in enumerate(trained(like).values()):
            for start in range(0, array.size, BLOCK):
                part = scratch[: min(BLOCK, array.size - start)]
                read(index, start, part)
                square += squared_norm({"": part})
        return cls(read, math.sqrt(square))

    def norm(self) -> float:
        return self.length

    def add(self, total: Params, weight: float) -> None:
        scratch = np.empty(BLOCK, np.float32)
        for index, array in enumerate(trained(total).values()):
            flat = array.reshape(-1)
            for start in range(0, flat.size, BLOCK):
                into = flat[start : start + BLOCK]
                part = scratch[: into.size]
                self.read(index, start, part)
                np.multiply(part, np.float32(weight), out=part)
                np.add(into, part, out=into)


def fill(read: Read, like: Mapping[str, Array], beside: Mapping[str, Array]) -> Params:
    """What `read` gives, as arrays like the trained ones of `like`; the others are those of `beside`."""
    made: Params = {}
    for index, (name, array) in enumerate(trained(like).items()):
        flat = np.empty(array.size, array.dtype)
        scratch = np.empty(min(BLOCK, array.size), np.float32)
        for start in range(0, flat.size, BLOCK):
            into = flat[start : start + BLOCK]
            part = into if into.dtype == np.float32 else scratch[: into.size]
            read(index, start, part)
            np.copyto(into, part, casting="same_kind")
        made[name] = flat.reshape(array.shape)
    return {**made, **{name: beside[name] for name in others(like)}}


@dataclass(frozen=True)
class Sparse:
    """An update that is zero but for `values` at the strictly increasing `places`, counted over all
    trained arrays in order."""

    places: npt.NDArray[np.int64]
    values: Floats

    def norm(self) -> float:
        return math.sqrt(squared_norm({"values": self.values}))

    def add(self, total: Params, weight: float) -> None:
        arrays = list(trained(total).values())
        edges = np.cumsum([0, *(array.size for array in arrays)])
        cuts = np.searchsorted(self.places, edges)
        for array, edge, first, last in zip(arrays, edges, cuts, cuts[1:], strict=False):
            if first < last:
                flat, at = array.reshape(-1), self.places[first:last] - edge
                part = (self.values[first:last] * np.float32(weight)).astype(array.dtype, copy=False)
                flat[at] = np.add(part, flat.take(at), out=part)


def opened(codec: Codec, arrays: Params, note: Mapping[str, Any], like: Params) -> Delta:
    """What `codec` decodes, in the form in which it came where the codec can give that.

    Raises:
        PayloadError: it cannot be an update for a model like `like`.
    """
    if isinstance(codec, Opener):
        return codec.open(arrays, note, like)
    return Dense(codec.decode(arrays, note, like))
