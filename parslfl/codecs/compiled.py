"""Inner loops that numpy needs several passes and much new memory for, compiled where numba is installed.

Each gives the same bits as the numpy code beside which it is called: one product or sum after the other,
each rounded to float32. numba is an extra (`speed`): it admits a new numpy or Python only months later.

Does not know: codecs, or whether what it is given has been checked.
"""

from __future__ import annotations

import importlib.util
import threading
import warnings
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Codes = npt.NDArray[np.int8]
Bytes = npt.NDArray[np.uint8]
Places = npt.NDArray[np.int64]
#: Numbers that a process leaves to numpy first. Compiling takes 0.1 GB and a second for int8, 3.5 for sparse
#: updates, and that is gained on three times as many numbers of int8, or on less than half as many places of
#: sparse ones. Workers, and ranks of one round, hardly have so many.
FIRST = 1 << 30
#: The squares of so many codes have an exact sum in float32, whatever the order.
EXACT = 1 << 10
#: Numbers that say how far `add_gaps` has come with an update.
STATE = 5
_MORE = 255
#: float32 numbers in a line of the cache.
_LINE = 16
_one = threading.Lock()
_left_to_numpy = [0]


class Compiled(NamedTuple):
    """The functions below of the same names, and what the two makers below make."""

    add_codes: Callable[[Floats, Codes, Floats, int, np.float32], None]
    sum_squares: Callable[[Codes, int, Floats], None]
    end_of_gaps: Callable[[Bytes, Bytes, int, int], tuple[int, int]]
    add_gaps: Callable[..., None]
    add_all_gaps: Callable[..., np.float32]
    add_at: Callable[[Floats, Places, Floats, np.float32], None]


def compiled(numbers: int) -> Compiled | None:
    """The loops that are to go over so many numbers; None where numpy is to do it."""
    with _one:  # lanes run side by side: loading it twice would compile twice
        if _left_to_numpy[0] >= FIRST:
            return _compiled()
        _left_to_numpy[0] += numbers
        return None


@lru_cache(maxsize=1)
def _compiled() -> Compiled | None:
    if importlib.util.find_spec("numba") is None:
        return None
    try:
        import numba
    except Exception as error:  # noqa: BLE001 - one for another numpy, without its libraries, half removed
        warnings.warn(f"numba is installed but not used, numpy does its work: {error}", stacklevel=2)
        return None
    if getattr(numba.config, "DISABLE_JIT", 0):  # plain Python takes seconds an update
        return None
    make: Any = numba.njit(nogil=True)
    add_gaps = make(adder_of_gaps(make(read_gaps)))
    return Compiled(
        make(add_codes),
        make(sum_squares),
        make(end_of_gaps),
        add_gaps,
        make(adder_of_all_gaps(add_gaps)),
        make(add_at),
    )


def add_codes(into: Floats, codes: Codes, steps: Floats, block: int, weight: np.float32) -> None:
    """`into += codes * steps * weight`, with one of `steps` for every `block` numbers."""
    for number in range(steps.size):
        start = number * block
        sums, part, step = into[start : start + block], codes[start : start + block], steps[number]
        for place in range(sums.size):
            sums[place] += np.float32(part[place]) * step * weight


def sum_squares(codes: Codes, block: int, out: Floats) -> None:
    """Fill `out` with the sum of squares of every `block` of `codes`, `EXACT` at most."""
    for number in range(out.size):
        part, found = codes[number * block : (number + 1) * block], np.int32(0)
        for place in range(part.size):
            found += np.int32(part[place]) * np.int32(part[place])
        out[number] = found


def end_of_gaps(highs: Bytes, low: Bytes, shift: int, kept: int) -> tuple[int, int]:
    """How many gaps as `indices.write` makes them end in `highs`, and the last of `kept` places."""
    found, total = 0, np.int64(0)
    for high in highs:
        total += np.int64(high)
        found += int(high != _MORE)
    total <<= shift
    width = (kept + 7) // 8
    for plane in range(shift):
        ones = 0
        for number in range(kept):
            ones += (low[plane * width + (number >> 3)] >> (number & 7)) & 1
        total += np.int64(ones) << plane
    return found, int(total) + kept - 1


def read_gaps(
    highs: Bytes, low: Bytes, shift: int, number: int, kept: int, free: int, places: Places
) -> tuple[int, np.int64]:
    """Fill `places` with those of gaps number `number` and on, of `kept`, that end in `highs`, where the
    first is `free` and its gap; returns how many, and the same of what comes next.
    """
    total, count = np.int64(0), np.uint64(0)
    for high in highs:
        total += np.int64(high)
        places[count] = total
        count += np.uint64(high != _MORE)  # no branch: it would often be guessed wrong
    found = places[: np.int64(count)]
    for one in range(found.size):
        found[one] = free + (found[one] << shift) + one
    after = np.int64(free) + (total << shift) + found.size
    width = (kept + 7) // 8
    for plane in range(shift):
        bits, ones = low[plane * width : (plane + 1) * width], np.int64(0)
        for one in range(found.size):
            ones += np.int64((bits[(number + one) >> 3] >> ((number + one) & 7)) & 1)
            found[one] += ones << plane
        after += ones << plane
    return found.size, after


def adder_of_gaps(read: Callable[..., tuple[int, np.int64]]) -> Callable[..., None]:
    """The function that adds an update; `read` is `read_gaps`, compiled."""

    def add_gaps(
        sums: Floats,
        start: int,
        highs: Bytes,
        low: Bytes,
        shift: int,
        values: Floats,
        weight: np.float32,
        at: Places,
        room: Places,
    ) -> None:
        """`sums[places - start] += values * weight` at those places that lie in `sums`.

        A piece of the sum after the other: `room` has some places read from the gaps, those of values number
        `at[0]` and on; `at` goes on with how many these are, how many of them are added, the byte that comes
        next and the first place that is possible there. All 0 to begin with.

        Should the bytes change meanwhile, or a piece be left out, nothing is written outside `sums`.
        """
        number, count, added, byte, free = at[0], at[1], at[2], at[3], at[4]
        beyond = start + sums.size
        while True:
            # first places, then additions: else each badly guessed branch would wait for memory
            while added < count and room[added] < start:  # in a piece that was left out
                added += 1
            inside = added + np.searchsorted(room[added:count], beyond)
            places, terms = room[added:inside], values[number + added : number + inside]
            for one in range(places.size):
                sums[np.uint64(places[one] - start)] += terms[one] * weight
            added = inside
            if added < count or byte >= highs.size or number + count >= values.size:
                break
            number, added = number + count, 0
            part = highs[byte : byte + min(room.size, values.size - number)]
            byte += part.size
            if free < start and shift == 0:  # a piece was left out: all of these may lie in it
                ended, after = 0, free
                for high in part:
                    ended += int(high != _MORE)
                    after += np.int64(high)
                if after + ended <= start:
                    count, added, free = ended, ended, after + ended
                    continue
            count, free = read(part, low, shift, number, values.size, free, room)
        at[0], at[1], at[2], at[3], at[4] = number, count, added, byte, free

    return add_gaps


def adder_of_all_gaps(add_gaps: Callable[..., None]) -> Callable[..., np.float32]:
    """The function that adds several; `add_gaps` adds one and is compiled."""

    def add_all_gaps(
        sums: Floats,
        start: int,
        gaps: tuple[Bytes, ...],
        ends: Places,
        shifts: Places,
        values: tuple[Floats, ...],
        weights: Floats,
        at: Places,
        rooms: Places,
        piece: int,
        afresh: bool,
        split: int,
        beside: Floats,
        divisor: np.float32,
    ) -> np.float32:
        """As `add_gaps` of each update in turn, in one call: each call holds up Python's other threads. There
        are as many as `ends` of the high parts in `gaps`; `at` and `rooms` have a row for each. Every `piece`
        numbers of the sum are first read in order, or with `afresh` set to 0: places far apart take longer.

        Updates from number `split` on have a sum of their own, which is added when it is whole and of which
        only a piece is ever there: `beside` must have room for it. At last all is divided by `divisor`.
        """
        seen = np.float32(0)
        for begin in range(0, sums.size, piece):
            part = sums[begin : begin + piece]
            other = beside[: part.size]
            other[:] = 0
            if afresh:
                part[:] = 0
            else:
                for number in range(0, part.size, _LINE):
                    seen = max(seen, part[number])
            for one in range(ends.size):
                highs, low = gaps[one][: ends[one]], gaps[one][ends[one] :]
                add_gaps(
                    part if one < split else other,
                    start + begin,
                    highs,
                    low,
                    shifts[one],
                    values[one],
                    weights[one],
                    at[one],
                    rooms[one],
                )
            if split < ends.size:
                for number in range(part.size):
                    part[number] = (part[number] + other[number]) / divisor
            elif divisor != 1:
                for number in range(part.size):
                    part[number] /= divisor
        return seen  # or reading in order would be left out

    return add_all_gaps


def add_at(vector: Floats, places: Places, values: Floats, weight: np.float32) -> None:
    """`vector[places] += values * weight`, one after the other.

    Raises:
        IndexError: a place outside `vector`, or fewer values than places; nothing has been added then.
    """
    most = np.uint64(0)
    for place in places:
        most = max(most, np.uint64(place))  # of a negative one, a huge number
    # checked one by one, additions take twice as long
    if values.size < places.size or (places.size and most >= np.uint64(vector.size)):
        raise IndexError("a sparse update has a place outside its model, or no value for one")
    for number in range(places.size):
        vector[places[number]] += values[number] * weight
