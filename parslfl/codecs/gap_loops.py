"""Loops over the gaps that `indices.write` writes, for `compiled` to compile: plain Python is far too slow.

A core's own cache is what makes them quick: several updates are added to a piece of the sum before the next
is looked at, so that main memory is read and written in order, and once.

Does not know: numba, codecs, or whether what it is given has been checked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
Places = npt.NDArray[np.int64]
Loop = Callable[..., Any]
#: Columns of a table of updates. Where the gaps of one begin among the bytes of all, how many bytes have high
#: parts (low bits follow), how many low bits a gap has, where its values begin among those of all, and how
#: many there are.
GAPS, HIGHS, SHIFT, VALUES, KEPT = range(5)
#: More columns, all 0 to begin with: how far `add_gaps` has come. The number of a value, how many places from
#: there on have been read and how many of these are done, the byte that comes next, and the first place that
#: is possible there.
NUMBER, COUNT, DONE, BYTE, FREE, COLUMNS = range(5, 11)
_MORE = 255
#: Bytes that are counted together: their sum is a uint16 still. A core adds more of narrow numbers at once.
_BYTES = 1 << 8
#: float32 numbers in a line of the cache.
_LINE = 16


def end_of_gaps(highs: Bytes, low: Bytes, shift: int, kept: int) -> tuple[int, int]:
    """How many gaps as `indices.write` makes them end in `highs`, and the last of `kept` places."""
    found, total = np.int64(0), np.int64(0)
    for start in range(0, highs.size, _BYTES):
        ends, steps = np.uint16(0), np.uint16(0)
        for high in highs[start : start + _BYTES]:
            steps = np.uint16(steps + np.uint16(high))
            ends = np.uint16(ends + np.uint16(high != _MORE))
        found, total = found + np.int64(ends), total + np.int64(steps)
    total <<= shift
    width = (kept + 7) // 8
    for plane in range(shift):
        ones = 0
        for number in range(kept):
            ones += (low[plane * width + (number >> 3)] >> (number & 7)) & 1
        total += np.int64(ones) << plane
    return int(found), int(total) + kept - 1


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


def pass_over(start: int, data: Bytes, update: Places) -> None:
    """Go on to the first place from `start` on in gaps without low bits, where a piece was left out."""
    at, end = update[GAPS] + update[BYTE], update[GAPS] + update[HIGHS]
    free, ended = update[FREE], np.int64(0)
    while free < start and at < end:
        ends, steps = np.uint16(0), np.uint16(0)
        for high in data[at : min(at + _BYTES, end)]:
            steps = np.uint16(steps + np.uint16(high))
            ends = np.uint16(ends + np.uint16(high != _MORE))
        if free + np.int64(steps) + np.int64(ends) > start:
            break
        free, ended, at = free + np.int64(steps) + np.int64(ends), ended + np.int64(ends), at + _BYTES
    while at < end and free + data[at] < start:
        last = np.int64(data[at] != _MORE)
        free, ended, at = free + data[at] + last, ended + last, at + 1
    update[NUMBER] += ended
    update[BYTE], update[FREE] = min(at, end) - update[GAPS], free


def adder_of_whole(passing: Loop) -> Loop:
    """The function that adds an update whose gaps have no low bits; `passing` is `pass_over`, compiled."""

    def add_whole_gaps(
        sums: Floats, start: int, data: Bytes, values: Floats, weight: np.float32, update: Places
    ) -> None:
        """As `add_gaps`, in one pass."""
        if update[FREE] < start:
            passing(start, data, update)
        # unsigned, or each index would be looked at for a sign
        place, size = np.uint64(update[FREE] - start), np.uint64(sums.size)
        one, last = np.uint64(update[VALUES] + update[NUMBER]), np.uint64(update[VALUES] + update[KEPT])
        at, end = np.uint64(update[GAPS] + update[BYTE]), np.uint64(update[GAPS] + update[HIGHS])
        while at < end and one < last:
            high = np.uint64(data[at])
            here = place + high
            if here >= size:
                break
            place, at = here, at + np.uint64(1)
            if high != np.uint64(_MORE):
                sums[here] += values[one] * weight
                place, one = here + np.uint64(1), one + np.uint64(1)
        update[NUMBER], update[BYTE] = np.int64(one) - update[VALUES], np.int64(at) - update[GAPS]
        update[FREE] = np.int64(place) + start

    return add_whole_gaps


def adder_of_split(read: Loop) -> Loop:
    """The function that adds an update whose gaps have low bits; `read` is `read_gaps`, compiled."""

    def add_split_gaps(
        sums: Floats,
        start: int,
        data: Bytes,
        values: Floats,
        weight: np.float32,
        update: Places,
        room: Places,
    ) -> None:
        """As `add_gaps`: some places are read, then added."""
        gaps, first, kept, shift = update[GAPS], update[VALUES], update[KEPT], update[SHIFT]
        end = gaps + update[HIGHS]
        low = data[end : end + shift * ((kept + 7) // 8)]
        number, count, done = update[NUMBER], update[COUNT], update[DONE]
        while True:
            while done < count and room[done] < start:  # in a piece that was left out
                done += 1
            while done < count and room[done] < start + sums.size:
                sums[np.uint64(room[done] - start)] += values[first + number + done] * weight
                done += 1
            at = gaps + update[BYTE]
            if done < count or at >= end or number + count >= kept:
                break
            number, done = number + count, 0
            highs = data[at : min(at + min(room.size, kept - number), end)]
            count, update[FREE] = read(highs, low, shift, number, kept, update[FREE], room)
            update[BYTE] += highs.size
        update[NUMBER], update[COUNT], update[DONE] = number, count, done

    return add_split_gaps


def adder(add_whole: Loop, add_split: Loop) -> Loop:
    """The function that adds an update; the two before make what it calls, compiled."""

    def add_gaps(
        sums: Floats,
        start: int,
        data: Bytes,
        values: Floats,
        weight: np.float32,
        update: Places,
        room: Places,
    ) -> None:
        """`sums[places - start] += values * weight` at those places that lie in `sums`.

        `update` is a row of the table. A piece of the sum comes after the other. Where gaps have low bits,
        `room` has the places that have been read.

        Should the bytes change meanwhile, or a piece be left out, nothing is written outside `sums`.
        """
        if update[SHIFT] == 0:
            add_whole(sums, start, data, values, weight, update)
        else:
            add_split(sums, start, data, values, weight, update, room)

    return add_gaps


def adder_of_all(add_gaps: Loop) -> Loop:
    """The function that adds several; `add_gaps` adds one and is compiled."""

    def add_all_gaps(
        sums: Floats,
        start: int,
        data: Bytes,
        values: Floats,
        weights: Floats,
        updates: Places,
        rooms: Places,
        piece: int,
        afresh: bool,
    ) -> np.float32:
        """As `add_gaps` of each of `updates` in turn, a table; `weights` and `rooms` have one for each. Every
        `piece` numbers of the sum are first read in order, or with `afresh` set to 0: places far apart take
        longer.
        """
        seen = np.float32(0)
        for begin in range(0, sums.size, piece):
            part = sums[begin : begin + piece]
            if afresh:
                part[:] = 0
            else:
                for number in range(0, part.size, _LINE):
                    seen = max(seen, part[number])
            for one in range(weights.size):
                add_gaps(part, start + begin, data, values, weights[one], updates[one], rooms[one])
        return seen  # or reading in order would be left out

    return add_all_gaps
