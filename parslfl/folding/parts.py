"""Updates of a part of the model, on the driver: opened, checked, and added where they belong.

Does not know: how parts are chosen, or what any codec writes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from parslfl import submodel
from parslfl.codecs.pieces import Blocks, Dense, Read, chosen, opened
from parslfl.codecs.sparse import Gapped, Sparse
from parslfl.params import BLOCK, Array, Params, trained, wide
from parslfl.protocols import Codec, Delta
from parslfl.submodel import Kept, Piece


@dataclass(frozen=True)
class Part:
    """An update of the part `kept` of a model; `like`: shapes and dtypes of its arrays."""

    delta: Delta
    kept: Kept
    like: Params

    def norm(self) -> float:
        return self.delta.norm()

    def add(self, total: Params, weight: float) -> None:
        """As of any update; a piece at a time, since the driver holds little memory."""
        delta = self.delta
        if not isinstance(delta, Dense | Blocks):
            delta, weight = _dense(delta, self.like, weight), 1.0
        for index, (name, array) in enumerate(trained(self.like).items()):
            into, where = np.atleast_1d(total[name]), submodel.place(self.kept, name, total)
            factor = np.float32(weight) if isinstance(delta, Blocks) else into.dtype.type(weight)
            pieces = (
                _read(delta.read, index, array.shape)
                if isinstance(delta, Blocks)
                else _cut(np.atleast_1d(delta.params[name]))
            )
            for piece, values in pieces:
                into[submodel.cut(where, piece)] += values * factor


def _dense(delta: Delta, like: Params, weight: float) -> Dense:
    """`weight * delta`, in arrays like the trained ones of `like`."""
    made = {name: np.zeros(array.shape, array.dtype) for name, array in wide(like).items()}
    delta.add(made, weight)
    return Dense(made)


def _cut(array: Array) -> Iterator[tuple[Piece, Array]]:
    return ((piece, array[piece]) for piece in submodel.pieces(array.shape))


def _read(read: Read, index: int, shape: tuple[int, ...]) -> Iterator[tuple[Piece, Array]]:
    """As `_cut`, of what `read` gives for array number `index`, of this shape."""
    like = np.broadcast_to(np.empty((), np.float32), shape or (1,))
    held, start = np.empty(0, np.float32), 0
    for piece, part in _cut(like):
        if held.size < part.size:
            more = np.empty(held.size + min(BLOCK, like.size - start), np.float32)
            more[: held.size] = held
            read(index, start, more[held.size :])
            held, start = more, min(start + BLOCK, like.size)
        yield piece, held[: part.size].reshape(part.shape)
        held = held[part.size :]


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
