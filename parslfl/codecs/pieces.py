"""Decoded updates that are folded without being made dense first.

An update is opened by its codec, looked at (`norm`), and added to a running sum a block at a time.

Does not know: how any codec writes its arrays.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby
from typing import Any

import numpy as np
import numpy.typing as npt

from parslfl.codecs.indices import Places
from parslfl.codecs.layout import others
from parslfl.codecs.sparse import Gapped, Sparse, add_gapped, add_sparse
from parslfl.params import (
    BLOCK,
    SPAN,
    Array,
    Params,
    blocks,
    clear,
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
#: Which places, of all trained numbers, are from a first one on below a last one: counted from the first one,
#: increasing, and how many lie before them.
Within = Callable[[int, int], tuple[Places, int]]


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


def chosen(within: Within, values: Floats, like: Mapping[str, Array], *holds: Array) -> Blocks:
    """An update like `like` that is zero but for `values`, the places of which `within` tells."""
    offsets = list(accumulate((array.size for array in trained(like).values()), initial=0))

    def read(index: int, start: int, out: Floats) -> None:
        begin = offsets[index] + start
        places, first = within(begin, begin + out.size)
        out.fill(0)
        out[places] = values[first : first + places.size]

    return Blocks(read, math.sqrt(squared_norm({"values": values})), (values, *holds))


def _add_blocks(total: Params, terms: Sequence[tuple[Blocks, float]], afresh: bool = False) -> None:
    scratch = np.empty(SPAN, np.float32)
    for index, array in enumerate(trained(total).values()):
        for number, into in enumerate(blocks(array, SPAN)):
            if afresh:
                into.fill(0)
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
            with np.errstate(over="ignore"):  # more than float16 holds is Inf: who takes the norm refuses it
                np.copyto(into, part, casting="same_kind")
        made[name] = flat.reshape(array.shape)
    return {**made, **{name: beside[name] for name in others(like)}}


def add_all(total: Params, terms: Sequence[tuple[Delta, float]], afresh: bool = False) -> None:
    """As `delta.add(total, weight)` for each of (delta, weight) in turn, bit for bit.

    Neighbours of one kind are added together, a piece of the sum at a time. `afresh`: what is in `total`
    does not count, as if it were zeros.
    """
    for kind, neighbours in groupby(terms, key=lambda term: type(term[0])):
        run: list[Any] = list(neighbours)
        if kind is Dense:
            fold_all(total, [(delta.params, weight) for delta, weight in run], afresh)
        elif kind is Blocks:
            _add_blocks(total, run, afresh)
        elif kind is Gapped:
            add_gapped(total, run, afresh)
        else:
            if afresh:
                clear(total)
            if kind is Sparse:
                add_sparse(total, run)
            else:
                for delta, weight in run:
                    delta.add(total, weight)
        afresh = False


def private(delta: Delta) -> float:
    """Bytes of memory that `delta` holds, beside mapped files; inf where that is not known."""
    if not isinstance(delta, Dense | Blocks | Sparse | Gapped):
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
