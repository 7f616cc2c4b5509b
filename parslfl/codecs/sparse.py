"""Updates of which only some numbers came, added where they belong without being made dense.

Several together are added a piece of the sum at a time: a core reads a piece in order much faster
than places far apart, and then has it in its own cache for all of them.

Does not know: how the numbers were chosen, or how any codec writes them.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import TypeGuard

import numpy as np
import numpy.typing as npt

from parslfl.codecs.compiled import Compiled, compiled
from parslfl.codecs.gap_loops import COLUMNS, NUMBER
from parslfl.codecs.indices import Gaps, Places
from parslfl.params import BLOCK, Array, Joined, Params, clear, squared_norm, trained
from parslfl.protocols import Delta

Floats = npt.NDArray[np.float32]
#: Elements of a sum to which numpy adds sparse updates before the next are: with 2 MiB a core's own
#: cache and the calls are both used well (four updates of 1 %: 0.6 ms each, 0.9 without).
_PIECE = 1 << 19
#: The same for compiled loops.
_SMALL_PIECE = 1 << 17
#: The same for the two sums of which a mean is made.
_MEAN_PIECE = 1 << 15
#: Bytes after which the last 12 bits of an address come again.
_PAGE = 1 << 12
#: Elements of a mean that one of two threads makes before it looks what is left to make: whole pieces.
_SHARE = 1 << 20
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

    def within(self, start: int, end: int) -> tuple[Places, int]:
        """The places from `start` on that are below `end`, less `start`, and how many lie before them."""
        first, last = np.searchsorted(self.places, [start, end]).tolist()
        return self.places[first:last] - start, first

    def add(self, total: Params, weight: float) -> None:
        if isinstance(total, Joined):
            _add_at(total.vector, self.places, self.values, weight)
            return
        arrays = _vectors(total)
        edges = np.cumsum([0, *(array.size for array in arrays)])
        cuts = np.searchsorted(self.places, edges)
        for array, edge, (first, last) in zip(arrays, edges, pairwise(cuts), strict=False):
            _add_at(array, self.places[first:last], self.values[first:last], weight, edge)


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
        loops, told = part[0][0].loops, _told(part, _ROOM if len(part) == 1 else _SMALL_ROOM)
        for vector in vectors:
            if len(part) > 1:
                loops.add_all_gaps(vector, start, *told, _SMALL_PIECE, afresh)
            else:
                data, values, weights, updates, rooms = told
                loops.add_gaps(vector, start, data, values, weights[0], updates[0], rooms[0])
            start += vector.size
        afresh = False


def mean_gapped(
    sums: Sequence[Params | None],
    waiting: Sequence[Sequence[tuple[Gapped, float]]],
    divisor: float,
    mean: Params,
) -> None:
    """The sums of one or two lanes and what waits there, `waiting`, by `divisor`, into `mean`. None is a sum
    of nothing yet; the first sum, where there is one, is `mean`, and the second is left as it is. In two
    threads, and bit for bit as if `add_gapped` had been and `params.average` came now.

    At least one update waits. All sums are `Joined` ones of float32, begun with zeros: none holds -0.0.
    """
    first, other = (*sums, None)[:2]
    assert first is None or first is mean
    assert isinstance(mean, Joined)
    assert other is None or isinstance(other, Joined)
    terms = [term for lane in waiting for term in lane]
    loop = terms[0][0].loops.mean_of_gaps
    data, values, weights, updates, rooms = _told(terms, _SMALL_ROOM)
    vector, starts = mean.vector, iter(range(0, mean.vector.size, _SHARE))

    def make_shares() -> None:
        told = data, values, weights, updates.copy(), np.empty_like(rooms), len(waiting[0]), *_pieces(vector)
        for start in starts:  # each goes to one of the threads: they take turns in the interpreter
            share = slice(start, start + _SHARE)
            added = vector[:0] if other is None else other.vector[share]
            loop(vector[share], added, start, *told, first is None, np.float32(divisor))

    jobs = [make_shares]
    later = _another_thread(os.getpid()).submit(lambda: [job() for job in jobs])
    try:
        make_shares()
    finally:
        if not later.cancel():  # it had not begun: that thread may be at another mean
            later.result()  # whatever happens, nobody writes any more
        jobs.clear()  # that thread may know of them for a while, and so of all that waited


def _pieces(vector: Array) -> tuple[Array, Array]:
    """Zeros for a piece of both sums. A core takes what it reads for what it has just written where the last
    12 bits of the addresses agree, and waits (a third of the time of a mean): these are half a page away from
    where `vector` is written.
    """
    room = np.zeros(2 * _MEAN_PIECE + _PAGE // 4, np.float32)
    away = (_address(vector) + _PAGE // 2 - _address(room)) % _PAGE // 4
    return room[away : away + _MEAN_PIECE], room[away + _MEAN_PIECE : away + 2 * _MEAN_PIECE]


@lru_cache(maxsize=1)
def _another_thread(_process: int) -> ThreadPoolExecutor:
    """A thread that stays: to begin one takes a tenth of the time of a mean. A process has its own."""
    return ThreadPoolExecutor(1, thread_name_prefix="mean")


def _told(terms: Sequence[tuple[Gapped, float]], room: int) -> tuple[Array, ...]:
    """What the compiled loops want to be told of updates: bytes, values, weights, a table, and room for so
    many places of each. Given many arrays, these would compile for seconds, and count references to each
    array whenever they look at it: they get one for all bytes, and one for all values.
    """
    data, gaps = _window([update.gaps.data for update, _ in terms])
    values, first = _window([update.values for update, _ in terms])
    none = (0,) * (COLUMNS - NUMBER)
    rows = [
        (at, update.gaps.end, update.gaps.shift, value, update.values.size, *none)
        for (update, _), at, value in zip(terms, gaps, first, strict=True)
    ]
    weights = np.array([weight for _, weight in terms], np.float32)
    return data, values, weights, np.array(rows, np.int64), np.empty((len(terms), room), np.int64)


def _plain(array: Array) -> Array:
    """`array`, contiguous and aligned. Of an empty one numpy says that it is, wherever it lies."""
    flags = array.flags
    if array.size and flags.c_contiguous and flags.aligned:
        return array
    return np.require(array, requirements=("C", "A")) if array.size else np.empty(0, array.dtype)


class _Memory:
    """What numpy makes an array of (its array interface protocol): the memory where `held` lie."""

    def __init__(self, address: int, size: int, held: Sequence[Array]) -> None:
        kind = held[0].dtype.str
        self.__array_interface__ = {"data": (address, True), "shape": (size,), "typestr": kind, "version": 3}
        self.held = held


def _window(arrays: Sequence[Array]) -> tuple[Array, list[int]]:
    """An array from the first to the last number of all `arrays`, flat ones of one dtype, and where in it
    each begins. Elsewhere it must not be looked at: it is no copy, and what lies between is not theirs.
    """
    size, arrays = arrays[0].itemsize, [_plain(array) for array in arrays]
    starts = [_address(array) for array in arrays]
    lowest = min(starts)
    most = max(start + array.nbytes for start, array in zip(starts, arrays, strict=True))
    whole = np.asarray(_Memory(lowest, (most - lowest) // size, arrays))
    return whole, [(start - lowest) // size for start in starts]


def _address(array: Array) -> int:
    return int(array.__array_interface__["data"][0])


def _vectors(total: Params) -> list[Array]:
    if isinstance(total, Joined):
        return [total.vector]
    return [array.reshape(-1) for array in trained(total).values()]


def _norm(values: Floats) -> float:
    return math.sqrt(squared_norm({"values": values}))


def _add_at(vector: Array, places: Places, values: Floats, weight: float, start: int = 0) -> None:
    """`vector[places - start] += weight * values`, each place once; a part at a time, for the driver holds
    little memory."""
    # numpy's quick way is for its own dtype objects alone: those that come from a pickle are equal copies
    own, factor = np.dtype(vector.dtype.str), np.float32(weight)
    loops = compiled(places.size) if own == np.float32 else None
    for first in range(0, places.size, BLOCK):
        part = slice(first, first + BLOCK)
        at = places[part] - start if start else places[part]
        if loops:
            loops.add_at(vector, at, values[part], factor)
        else:
            np.add.at(vector.view(own), at, (values[part] * factor).astype(own, copy=False))
