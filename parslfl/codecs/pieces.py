"""Decoded updates that are folded without being made dense first.

An update is opened by its codec, looked at (`norm`), and added to a running sum a block at a time.

Does not know: how any codec writes its arrays.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from parslfl.codecs.compiled import compiled
from parslfl.codecs.layout import others
from parslfl.params import (
    BLOCK,
    SPAN,
    Array,
    Joined,
    Params,
    blocks,
    fold_all,
    is_mapped,
    squared_norm,
    trained,
)
from parslfl.protocols import Codec, Delta, opens

Floats = npt.NDArray[np.float32]
#: Fill `out` with the values of array number `index` from element `start` on, where `start` is a
#: multiple of `BLOCK` and `out` ends with its block or with the array.
Read = Callable[[int, int, Floats], None]
#: Add the same, times a weight, to the float32 numbers given instead, of any length that ends so.
AddTo = Callable[[int, int, Floats, np.float32], None]
#: Elements of a sum to which sparse updates are added before the next are: with 2 MiB a core's own
#: cache and the calls are both used well (four updates of 1 %: 0.6 ms each, 0.9 without).
_PIECE = 1 << 19


@dataclass(frozen=True)
class Dense:
    """An update as plain arrays."""

    params: Params

    @property
    def holds(self) -> Sequence[Array]:
        return tuple(self.params.values())

    def norm(self) -> float:
        return math.sqrt(squared_norm(self.params))

    def add(self, total: Params, weight: float) -> None:
        fold_all(total, [(self.params, weight)])


@dataclass(frozen=True)
class Blocks:
    """An update that is read a block at a time. `length`: its Euclidean norm; `holds`: what is read;
    `add_to`: a quicker way to the same bits than reading, weighing and adding."""

    read: Read
    length: float
    holds: tuple[Array, ...]
    add_to: AddTo | None = None

    @classmethod
    def of(cls, read: Read, like: Mapping[str, Array], *holds: Array) -> Blocks:
        """What `read` gives for a model like `like`, its norm taken in one pass."""
        scratch, square = np.empty(BLOCK, np.float32), 0.0
        for index, array in enumerate(trained(like).values()):
            for start in range(0, array.size, BLOCK):
                part = scratch[: min(BLOCK, array.size - start)]
                read(index, start, part)
                square += squared_norm({"": part})
        return cls(read, math.sqrt(square), holds)

    def norm(self) -> float:
        return self.length

    def add(self, total: Params, weight: float) -> None:
        _add_blocks(total, [(self, weight)])


def _add_blocks(total: Params, terms: Sequence[tuple[Blocks, float]]) -> None:
    scratch = np.empty(SPAN, np.float32)
    for index, array in enumerate(trained(total).values()):
        for number, into in enumerate(blocks(array, SPAN)):
            part = scratch[: into.size]
            for update, weight in terms:
                if update.add_to and into.dtype == np.float32:
                    update.add_to(index, number * SPAN, into, np.float32(weight))
                    continue
                for start in range(0, part.size, BLOCK):
                    update.read(index, number * SPAN + start, part[start : start + BLOCK])
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

    @property
    def holds(self) -> Sequence[Array]:
        return self.places, self.values

    def norm(self) -> float:
        return math.sqrt(squared_norm({"values": self.values}))

    def add(self, total: Params, weight: float) -> None:
        if isinstance(total, Joined):
            _add_at(total.vector, self.places, self.values, weight)
            return
        arrays = list(trained(total).values())
        edges = np.cumsum([0, *(array.size for array in arrays)])
        cuts = np.searchsorted(self.places, edges)
        for array, edge, first, last in zip(arrays, edges, cuts, cuts[1:], strict=False):
            if first < last:
                part = slice(first, last)
                _add_at(array.reshape(-1), self.places[part] - edge, self.values[part], weight)


def _add_sparse(vector: Array, terms: Sequence[tuple[Sparse, float]]) -> None:
    """A piece of the sum is read in order first: numpy waits for each of many places far apart."""
    edges = np.arange(0, vector.size + _PIECE, _PIECE)
    cuts = [np.searchsorted(update.places, edges).tolist() for update, _ in terms]
    for piece, (start, end) in enumerate(pairwise(edges)):
        np.maximum.reduce(vector[start:end])
        for (update, weight), cut in zip(terms, cuts, strict=True):
            part = slice(cut[piece], cut[piece + 1])
            _add_at(vector, update.places[part], update.values[part], weight)


def _add_at(vector: Array, places: npt.NDArray[np.int64], values: Floats, weight: float) -> None:
    """`vector[places] += weight * values`, each place once."""
    # numpy's quick way is for its own dtype objects alone: those that come from a pickle are equal copies
    own, factor = np.dtype(vector.dtype.str), np.float32(weight)
    if own == np.float32 and (loops := compiled(places.size)):
        loops.add_at(vector, places, values, factor)
    else:
        np.add.at(vector.view(own), places, (values * factor).astype(own, copy=False))


def add_all(total: Params, terms: Sequence[tuple[Delta, float]]) -> None:
    """As `delta.add(total, weight)` for each of (delta, weight) in turn, bit for bit.

    Neighbours of one kind are added together, a piece of the sum at a time.
    """
    vector = total.vector if isinstance(total, Joined) else None
    for kind, neighbours in groupby(terms, key=lambda term: type(term[0])):
        run: list[Any] = list(neighbours)
        if kind is Dense:
            fold_all(total, [(delta.params, weight) for delta, weight in run])
        elif kind is Blocks:
            _add_blocks(total, run)
        elif kind is Sparse and vector is not None and len(run) > 1 and not compiled(0):
            _add_sparse(vector, run)
        else:
            for delta, weight in run:
                delta.add(total, weight)


def private(delta: Delta) -> float:
    """Bytes of memory that `delta` holds, beside mapped files; inf where that is not known."""
    if not isinstance(delta, Dense | Blocks | Sparse):
        return math.inf
    return sum(array.nbytes for array in delta.holds if not is_mapped(array))


def opened(codec: Codec, arrays: Params, note: Mapping[str, Any], like: Params) -> Delta:
    """What `codec` decodes, in the form in which it came where the codec can give that.

    Raises:
        PayloadError: it cannot be an update for a model like `like`.
    """
    if opens(codec):
        return codec.open(arrays, note, like)
    return Dense(codec.decode(arrays, note, like))
