"""Updates of a part of the model, on the driver: opened, checked, and added where they belong.

Does not know: how parts are chosen, or what any codec writes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from parslfl import submodel
from parslfl.codecs.pieces import Blocks, Dense, Read, chosen, opened
from parslfl.codecs.sparse import Gapped, Sparse
from parslfl.params import BLOCK, Array, Params, trained, wide
from parslfl.protocols import Codec, Delta
from parslfl.submodel import Kept


@dataclass(frozen=True)
class Part:
    """An update of the part `kept` of a model; `like`: shapes and dtypes of its arrays."""

    delta: Delta
    kept: Kept
    like: Params

    def norm(self) -> float:
        return self.delta.norm()

    def add(self, total: Params, weight: float) -> None:
        """As of any update; a few rows at a time, since the driver holds little memory."""
        delta = self.delta
        if not isinstance(delta, Dense | Blocks):
            delta, weight = _dense(delta, self.like, weight), 1.0
        for index, (name, array) in enumerate(trained(self.like).items()):
            into, where = total[name], submodel.place(self.kept, name, total)
            factor = np.float32(weight) if isinstance(delta, Blocks) else into.dtype.type(weight)
            few = (
                _read(delta.read, index, array.shape)
                if isinstance(delta, Blocks)
                else _cut(delta.params[name])
            )
            for first, rows in few:
                submodel.add_rows(into, where, first, rows * factor)


def _dense(delta: Delta, like: Params, weight: float) -> Dense:
    """`weight * delta`, in arrays like the trained ones of `like`."""
    made = {name: np.zeros(array.shape, array.dtype) for name, array in wide(like).items()}
    delta.add(made, weight)
    return Dense(made)


def _cut(array: Array) -> Iterator[tuple[int, Array]]:
    """A few rows of `array` after the other, and the number of the first of them."""
    array = np.atleast_1d(array)
    step = max(1, BLOCK * len(array) // max(1, array.size))
    for first in range(0, len(array), step):
        yield first, array[first : first + step]


def _read(read: Read, index: int, shape: tuple[int, ...]) -> Iterator[tuple[int, Array]]:
    """As `_cut`, of what `read` gives for array number `index`, of this shape."""
    rest, first = np.empty(0, np.float32), 0
    rows, *columns = shape or (1,)
    width = math.prod(columns)
    for start in range(0, rows * width, BLOCK):
        held = np.empty(rest.size + min(BLOCK, rows * width - start), np.float32)
        held[: rest.size] = rest
        read(index, start, held[rest.size :])
        count = held.size // width
        yield first, held[: count * width].reshape(count, *columns)
        first, rest = first + count, held[count * width :]


def open_any(codec: Codec, arrays: Params, note: Mapping[str, Any], like: Params) -> Delta:
    """What `codec` decodes, of the whole of a model like `like` or of the part that `note` tells.

    Raises:
        PayloadError: it cannot be an update for such a model.
    """
    if submodel.KEY not in note:
        return opened(codec, arrays, note, like)
    kept = submodel.read(note[submodel.KEY], like)
    small = submodel.shapes(like, kept)
    rest = {key: value for key, value in note.items() if key != submodel.KEY}
    delta = opened(codec, arrays, rest, small)
    if isinstance(delta, Gapped):
        delta = Sparse(delta.gaps.places(), delta.values)
    if isinstance(delta, Sparse):
        delta = chosen(delta.within, delta.values, small, delta.places)
    return Part(delta, kept, small)


def kept_of(delta: Delta) -> Kept:
    """Which part of the model `delta` is of; empty for the whole."""
    return delta.kept if isinstance(delta, Part) else {}
