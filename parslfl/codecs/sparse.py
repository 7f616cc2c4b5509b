"""Updates of which only some numbers came, added where they belong without being made dense.

Several together are added a piece of the sum at a time: a core reads a piece in order much faster
than places far apart, and then has it in its own cache for all of them.

Does not know: how the numbers were chosen, or how any codec writes them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt

from parslfl.codecs.compiled import STATE, Compiled, compiled
from parslfl.codecs.indices import Gaps, Places
from parslfl.params import Array, Joined, Params, clear, squared_norm, trained
from parslfl.protocols import Delta

Floats = npt.NDArray[np.float32]
#: Elements of a sum to which numpy adds sparse updates before the next are: with 2 MiB a core's own
#: cache and the calls are both used well (four updates of 1 %: 0.6 ms each, 0.9 without).
_PIECE = 1 << 19
#: The same for compiled loops.
_SMALL_PIECE = 1 << 17
#: Places of an update by itself that are reckoned before it is added to them.
_ROOM = 1 << 12
#: The same for each of several.
_SMALL_ROOM = 1 << 9
#: Sparse updates that are added together at most: a pass over the sum then takes less than they do.
TOGETHER = 32


@dataclass(frozen=True)
class Sparse:
    """An update that is zero but for `values` at the strictly increasing `places`, counted over all
    trained arrays in order."""

    places: Places
    values: Floats

    @property
    def holds(self) -> Sequence[Array]:
        return self.places, self.values

    def norm(self) -> float:
        return _norm(self.values)

    def add(self, total: Params, weight: float) -> None:
        if isinstance(total, Joined):
            _add_at(total.vector, self.places, self.values, weight)
            return
        arrays = _vectors(total)
        edges = np.cumsum([0, *(array.size for array in arrays)])
        cuts = np.searchsorted(self.places, edges)
        for array, edge, (first, last) in zip(arrays, edges, pairwise(cuts), strict=False):
            if first < last:
                part = slice(first, last)
                _add_at(array, self.places[part] - edge, self.values[part], weight)


@dataclass(frozen=True)
class Gapped:
    """As `Sparse`, with the places left in the few bytes in which they came; for compiled `loops` only."""

    gaps: Gaps
    values: Floats
    loops: Compiled

    @property
    def holds(self) -> Sequence[Array]:
        return self.gaps.data, self.values

    def norm(self) -> float:
        return _norm(self.values)

    def add(self, total: Params, weight: float) -> None:
        add_gapped(total, [(self, weight)])


def is_sparse(delta: Delta) -> TypeGuard[Sparse | Gapped]:
    """Whether adding `delta` takes less than a pass over the sum."""
    return isinstance(delta, Sparse | Gapped)


def scratch(delta: Delta) -> int:
    """Bytes that numpy takes while it adds `delta`: weighted values, and places in their array."""
    return 12 * delta.values.size if isinstance(delta, Sparse) else 0


def add_sparse(total: Params, terms: Sequence[tuple[Sparse, float]]) -> None:
    """As `add` of each in turn, bit for bit."""
    if len(terms) < 2 or not isinstance(total, Joined):
        for update, weight in terms:
            update.add(total, weight)
        return
    vector = total.vector
    edges = np.arange(0, vector.size + _PIECE, _PIECE)
    cuts = [np.searchsorted(update.places, edges).tolist() for update, _ in terms]
    for piece, (start, end) in enumerate(pairwise(edges)):
        np.maximum.reduce(vector[start:end])
        for (update, weight), cut in zip(terms, cuts, strict=True):
            part = slice(cut[piece], cut[piece + 1])
            _add_at(vector, update.places[part], update.values[part], weight)


def add_gapped(total: Params, terms: Sequence[tuple[Gapped, float]], afresh: bool = False) -> None:
    """As `add` of each in turn, bit for bit; `afresh`: as if `total` were zeros."""
    vectors = _vectors(total)
    narrow = all(vector.dtype == np.float32 for vector in vectors)  # as the loops need it
    if afresh and not (narrow and len(terms) > 1 and isinstance(total, Joined)):
        clear(total)
        afresh = False
    if not narrow:
        for update, weight in terms:
            Sparse(update.gaps.places(), update.values).add(total, weight)
        return
    for first in range(0, len(terms), TOGETHER):
        part, start = terms[first : first + TOGETHER], 0
        add = _adder(part, afresh) if len(part) > 1 else _adder_of_one(*part[0])
        for vector in vectors:
            add(vector, start)
            start += vector.size
        afresh = False


def mean_gapped(
    mean: Joined, lanes: Sequence[Sequence[tuple[Gapped, float]]], divisor: float, afresh: bool
) -> None:
    """`sum(lanes) / divisor` into `mean`, of one or two lanes whose sums nobody else wants; the first lane's
    has begun in `mean`, but with `afresh`. In two threads, and bit for bit as if `add_gapped` had made a sum
    of each and `params.average` the mean of them.

    The last lane has an update at least, both together have `TOGETHER` at most. `mean` is of float32.
    """
    terms = [term for lane in lanes for term in lane]
    add, split, factor = terms[0][0].loops.add_all_gaps, len(lanes[0]), np.float32(divisor)

    def half(start: int, part: Array) -> None:
        beside = np.empty(min(_SMALL_PIECE, part.size) if len(lanes) > 1 else 0, np.float32)
        add(part, start, *_told(terms), _SMALL_PIECE, afresh, split, beside, factor)

    parts = np.array_split(mean.vector, 2)
    with ThreadPoolExecutor(len(parts)) as both:
        list(both.map(half, (0, parts[0].size), parts))


def _adder(terms: Sequence[tuple[Gapped, float]], afresh: bool) -> Callable[[Array, int], object]:
    """What adds all of them to the part of a sum that starts at a place, part after part."""
    add, told, one = terms[0][0].loops.add_all_gaps, _told(terms), np.float32(1)
    no_room = np.empty(0, np.float32)
    return lambda part, start: add(part, start, *told, _SMALL_PIECE, afresh, len(terms), no_room, one)


def _told(terms: Sequence[tuple[Gapped, float]]) -> tuple[Any, ...]:
    """What `compiled.add_all_gaps` is told of updates."""
    updates = [update for update, _ in terms]
    return (
        _alike([update.gaps.data for update in updates]),
        np.array([update.gaps.end for update in updates]),
        np.array([update.gaps.shift for update in updates]),
        _alike([update.values for update in updates]),
        np.array([weight for _, weight in terms], np.float32),
        np.zeros((len(terms), STATE), np.int64),
        np.empty((len(terms), _SMALL_ROOM), np.int64),
    )


def _adder_of_one(update: Gapped, weight: float) -> Callable[[Array, int], object]:
    gaps, (values,) = update.gaps, _alike([update.values], 1)
    highs, low = _alike([gaps.highs, gaps.low], 2)
    factor, at, room = np.float32(weight), np.zeros(STATE, np.int64), np.empty(_ROOM, np.int64)
    add = update.loops.add_gaps
    return lambda part, start: add(part, start, highs, low, gaps.shift, values, factor, at, room)


def _alike(arrays: Sequence[Array], number: int = TOGETHER) -> tuple[Array, ...]:
    """`number` arrays, the last ones empty, of one type in numba's eyes: it compiles for each anew."""
    plain = [np.require(array, requirements=["C", "A"]).view() for array in (*arrays, arrays[0][:0])]
    for array in plain:
        array.flags.writeable = False
    return (*plain[:-1], *plain[-1:] * (number - len(arrays)))


def _vectors(total: Params) -> list[Array]:
    if isinstance(total, Joined):
        return [total.vector]
    return [array.reshape(-1) for array in trained(total).values()]


def _norm(values: Floats) -> float:
    return math.sqrt(squared_norm({"values": values}))


def _add_at(vector: Array, places: Places, values: Floats, weight: float) -> None:
    """`vector[places] += weight * values`, each place once."""
    # numpy's quick way is for its own dtype objects alone: those that come from a pickle are equal copies
    own, factor = np.dtype(vector.dtype.str), np.float32(weight)
    if own == np.float32 and (loops := compiled(places.size)):
        loops.add_at(vector, places, values, factor)
    else:
        np.add.at(vector.view(own), places, (values * factor).astype(own, copy=False))
