"""Sub-models of federated dropout: which part of each array a client trained, and back into the whole.

Caldas et al. 2018, "Expanding the Reach of Federated Learning by Reducing Client Resource
Requirements", section 3.2: a client trains the global model without some of its units, and the
server maps the smaller arrays back. What stays of an array is an outer product: for each dimension,
the kept indices, or None for all of them.

Does not know: networks, how units are chosen, or which arrays depend on each other.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from parslfl.errors import PayloadError
from parslfl.params import BLOCK, Array, Params

Indices = npt.NDArray[np.integer]
#: Array name -> for each of its dimensions the kept indices, ascending, or None for all.
Kept = dict[str, tuple[Indices | None, ...]]
#: What numpy takes as an index of a part of an array.
Where = tuple[Any, ...]
#: A contiguous piece of an array: slices of its first dimensions.
Piece = tuple[slice, ...]
#: Bytes of a bitmap that are looked at at once.
_BYTES = BLOCK // 8
#: Dtype of indices that came.
_INDEX = np.dtype(np.int32)

#: Where an update's note says which part of the model it is.
KEY = "submodel"


def take(params: Mapping[str, Array], kept: Kept) -> Params:
    """What `kept` leaves of `params`, as contiguous copies; arrays that it does not name stay whole."""
    return {
        name: np.ascontiguousarray(array[place(kept, name, params)]) if name in kept else array
        for name, array in params.items()
    }


def shapes(params: Mapping[str, Array], kept: Kept) -> Params:
    """Arrays with the names, shapes and dtypes of `take(params, kept)`, without memory of their own."""
    found: Params = {}
    for name, array in params.items():
        dims = kept.get(name, (None,) * array.ndim)
        shape = [n if at is None else len(at) for n, at in zip(array.shape, dims, strict=True)]
        found[name] = np.broadcast_to(np.empty((), array.dtype), shape)
    return found


def most(params: Mapping[str, Array]) -> int:
    """Bytes that the indices of a part of `params` take at most."""
    return sum(_INDEX.itemsize * n for array in params.values() for n in array.shape)


def pieces(shape: tuple[int, ...]) -> Iterator[Piece]:
    """Where an array of this shape has its numbers, in order and at most `BLOCK` at once: whole rows, or a
    part of one."""
    rows, *columns = shape or (1,)
    width = math.prod(columns)
    if width > BLOCK:
        for row in range(rows):
            yield from ((slice(row, row + 1), *rest) for rest in pieces(tuple(columns)))
        return
    step = BLOCK // max(1, width)
    for first in range(0, rows, step):
        yield (slice(first, min(first + step, rows)),)


def cut(where: Where, piece: Piece) -> Where:
    """Where in the whole array a `piece` is of what is kept of it."""
    if where[0] is ...:
        return piece
    some = (index[(slice(None),) * axis + piece[axis : axis + 1]] for axis, index in enumerate(where))
    return (*some, *piece[len(where) :])


def count(counts: Params, kept: Kept, weight: float) -> None:
    """`counts += weight`, where something is kept: everywhere, if `kept` is empty."""
    for name, part in shapes(counts, kept).items():
        array, where = counts[name], place(kept, name, counts)
        for piece in pieces(part.shape):
            np.atleast_1d(array)[cut(where, piece)] += array.dtype.type(weight)


def put(whole: Mapping[str, Array], part: Mapping[str, Array], kept: Kept) -> Params:
    """`whole` with `part` in its place: copies of those arrays that change."""
    made = dict(whole)
    for name, array in part.items():
        made[name] = whole[name].copy()
        made[name][place(kept, name, whole)] = array
    return made


def describe(kept: Kept) -> dict[str, Any]:
    """`kept` as JSON-able data: bitmaps in base64, each once, and which of them cuts which dimension."""
    cuts: dict[str, int] = {}
    arrays = {
        name: [-1 if at is None else cuts.setdefault(_bitmap(at), len(cuts)) for at in dims]
        for name, dims in kept.items()
    }
    return {"cuts": list(cuts), "arrays": arrays}


def read(described: object, like: Mapping[str, Array]) -> Kept:
    """What `describe` wrote, checked against the arrays of `like`.

    Raises:
        PayloadError: it cannot be a part of a model like `like`.
    """
    try:
        return _read(described, like)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise PayloadError(f"describes no sub-model: {error}") from None


def _read(described: Any, like: Mapping[str, Array]) -> Kept:
    longest = max((n for array in like.values() for n in array.shape), default=0)
    if longest > np.iinfo(_INDEX).max:
        raise ValueError(f"a dimension of {longest} is longer than its indices can tell")
    cuts = [_indices(text, longest) for text in described["cuts"]]
    kept: Kept = {}
    for name, numbers in described["arrays"].items():
        shape = like[name].shape
        if len(numbers) != len(shape):
            raise ValueError(f"{name!r} has {len(shape)} dimensions, not {len(numbers)}")
        kept[name] = tuple(_fitting(cuts, number, n, name) for number, n in zip(numbers, shape, strict=True))
    return kept


def _fitting(cuts: list[Indices], number: object, n: int, name: str) -> Indices | None:
    if number == -1:
        return None
    if not isinstance(number, int) or not 0 <= number < len(cuts):
        raise ValueError(f"{name!r} is cut by {number!r} of {len(cuts)}")
    at = cuts[number]
    if not 0 < len(at) <= n or at[-1] >= n:
        raise ValueError(f"{len(at)} indices do not fit a dimension of {n} of {name!r}")
    return at


def place(kept: Kept, name: str, params: Mapping[str, Array]) -> Where:
    """An index of the array `name` of `params` for what is kept of it."""
    dims = kept.get(name, ())
    while dims and dims[-1] is None:  # copied in one piece: a kernel of a convolution
        dims = dims[:-1]
    if not dims:
        return (...,)
    shape = params[name].shape[: len(dims)]
    every = [np.arange(n, dtype=_INDEX) if at is None else at for at, n in zip(dims, shape, strict=True)]
    return np.ix_(*every)


def _bitmap(at: Indices) -> str:
    bits = np.zeros(int(at[-1]) + 1 if len(at) else 0, np.uint8)
    bits[at] = 1
    return base64.b64encode(np.packbits(bits, bitorder="little").tobytes()).decode()


def _indices(text: str, longest: int) -> Indices:
    if len(text) > longest // 6 + 8:  # base64 has six bits a character
        raise ValueError(f"a bitmap of {len(text)} characters for dimensions of at most {longest}")
    data = np.frombuffer(base64.b64decode(text, validate=True), np.uint8)
    starts = range(0, data.size, _BYTES)  # twice a piece at a time: the driver holds little memory
    found = np.empty(sum(int(np.count_nonzero(_bits(data, at))) for at in starts), _INDEX)
    done = 0
    for at in starts:
        some = np.flatnonzero(_bits(data, at))
        np.add(some, 8 * at, out=found[done : done + some.size], casting="same_kind")
        done += some.size
    return found


def _bits(data: npt.NDArray[np.uint8], at: int) -> npt.NDArray[np.uint8]:
    return np.unpackbits(data[at : at + _BYTES], bitorder="little")
