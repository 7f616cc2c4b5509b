"""Increasing positions in few bytes: as gaps, or as one bit a place, whichever is shorter.

A gap is split: its `shift` low bits are packed, the rest is a byte, where 255 means 255 and more to
come. Both kinds of bytes suit an entropy coder that comes after.

Does not know: what is at the positions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from parslfl.codecs.compiled import Compiled
from parslfl.codecs.layout import count
from parslfl.codecs.packing import Bytes, low_size, pack_low, packed_size, unpack_low
from parslfl.errors import PayloadError
from parslfl.params import BLOCK

Places = npt.NDArray[np.int64]
#: The same as one bool for every number.
Marks = npt.NDArray[np.bool_]
_MORE = 255
#: Low bits of a gap at most: with them, gaps of 2**24 take two bytes.
MAX_SHIFT = 16
#: Places that are reckoned at a time, since the driver holds little memory: a multiple of 8.
_AT_ONCE = 1 << 15


def write(places: Places, size: int) -> tuple[Bytes, dict[str, Any]]:
    """The bytes for strictly increasing `places` below `size`, and what `read` must be told."""
    if not 0 < len(places) < packed_size(size, 1):  # a gap takes a byte and more
        return _marks(places, size)
    gaps = np.diff(places, prepend=-1) - 1
    shifts = _shifts(len(places), size)
    costs = [len(places) + int(((gaps >> s) // _MORE).sum()) + low_size(len(places), s) for s in shifts]
    if min(costs) >= packed_size(size, 1):
        return _marks(places, size)
    shift = shifts[costs.index(min(costs))]
    made = np.concatenate([_highs(gaps >> shift), pack_low(gaps, shift)])
    return made, {"kept": len(places), "shift": shift, "bytes": made.size}


def write_marked(marks: Marks) -> tuple[Bytes, dict[str, Any]]:
    """The same, to the bit, for the places that are marked: of many, less memory than places take."""
    kept = int(np.count_nonzero(marks))
    if 0 < kept < packed_size(marks.size, 1):
        return write(np.flatnonzero(marks), marks.size)
    return np.packbits(marks, bitorder="little"), {"kept": kept}


def _marks(places: Places, size: int) -> tuple[Bytes, dict[str, Any]]:
    made = np.zeros(size, np.bool_)
    made[places] = True
    return np.packbits(made, bitorder="little"), {"kept": len(places)}


def declared(note: Mapping[str, Any], size: int) -> tuple[int, int]:
    """How many places the note says there are, and in how many bytes: never more than `write` makes.

    Raises:
        PayloadError: the note cannot be of `size` places.
    """
    kept = count(note, "kept", size)
    return kept, count(note, "bytes", packed_size(size, 1)) if "shift" in note else packed_size(size, 1)


@dataclass(frozen=True)
class Gaps:
    """`kept` places as `write` wrote them: up to `end` the high part of each gap, then the low bits."""

    data: Bytes
    end: int
    shift: int
    kept: int

    @property
    def highs(self) -> Bytes:
        return self.data[: self.end]

    @property
    def low(self) -> Bytes:
        return self.data[self.end :]

    def places(self) -> Places:
        """The places; another number of them than `kept` where the bytes are not of so many."""
        if np.count_nonzero(self.highs != _MORE) != self.kept:
            return np.empty(0, np.int64) if self.kept else np.zeros(1, np.int64)
        places, done, total = np.empty(self.kept, np.int64), 0, 0 if self.shift else -1
        for start in range(0, self.end, _AT_ONCE):
            part = self.highs[start : start + _AT_ONCE]
            last = part != _MORE  # a byte that has more to come adds its 255 too
            sums = np.cumsum(part if self.shift else np.add(part, last, dtype=np.uint16), dtype=np.int64)
            sums += total
            total = int(sums[-1])
            sums = sums[last] if self.end > self.kept else sums
            places[done : done + sums.size] = sums
            done += sums.size
        if not self.shift:
            return places
        places <<= self.shift
        total = -1
        for start in range(0, self.kept, _AT_ONCE):
            end = min(start + _AT_ONCE, self.kept)
            sums = np.cumsum(unpack_low(self.low, self.shift, start, end) + np.uint32(1), dtype=np.int64)
            sums += total
            total = int(sums[-1])
            places[start:end] += sums
        return places


@dataclass(frozen=True)
class Bits:
    """Places as `write` wrote them where a bit for each takes less; `before`: how many of them lie before
    every multiple of `BLOCK`, and before the end."""

    data: Bytes
    before: tuple[int, ...]

    def within(self, start: int, end: int) -> tuple[Places, int]:
        """The places from `start` on that are below `end`, less `start`, and how many lie before them."""
        first = start // BLOCK
        bits = _bits(self.data, first * BLOCK, end)
        skipped = start - first * BLOCK
        return np.flatnonzero(bits[skipped:]), self.before[first] + int(np.count_nonzero(bits[:skipped]))


def _bits(data: Bytes, start: int, end: int) -> npt.NDArray[np.bool_]:
    """Those from `start` on, a multiple of 8, that are below `end`."""
    return np.unpackbits(data[start // 8 : -(-end // 8)], count=end - start, bitorder="little").view(np.bool_)


def read(data: Bytes, note: Mapping[str, Any], size: int) -> Places:
    """The places that `write` wrote.

    Raises:
        PayloadError: these bytes are not `kept` strictly increasing places below `size`.
    """
    if "shift" not in note:
        return marked(data, note, size).within(0, size)[0]
    kept, _ = declared(note, size)
    places = _split(data, note, size).places()
    if len(places) != kept or (kept and int(places[-1]) >= size):
        raise _refused(kept, size)
    return places


def marked(data: Bytes, note: Mapping[str, Any], size: int) -> Bits:
    """The bits that `write` wrote, found good.

    Raises:
        PayloadError: as `read`.
    """
    kept, length = declared(note, size)
    before = [0]
    for start, end in pairwise([*range(0, size, BLOCK), size]):
        before.append(before[-1] + int(np.count_nonzero(_bits(data, start, end))))
    if before[-1] != kept or (size % 8 and data[length - 1] >> size % 8):
        raise _refused(kept, size)
    return Bits(data, tuple(before))


def checked(data: Bytes, note: Mapping[str, Any], size: int, loops: Compiled) -> Gaps:
    """The gaps that `write` wrote, found good, their places not yet reckoned: that would take memory.

    Raises:
        PayloadError: as `read`.
    """
    gaps = _split(data, note, size)
    found, last = loops.end_of_gaps(gaps.highs, gaps.low, gaps.shift, gaps.kept)
    if found != gaps.kept or last >= size:
        raise _refused(gaps.kept, size)
    return gaps


def _split(data: Bytes, note: Mapping[str, Any], size: int) -> Gaps:
    kept, _ = declared(note, size)
    shift = count(note, "shift", MAX_SHIFT)
    end = len(data) - low_size(kept, shift)
    if end < 0 or (end and data[end - 1] == _MORE):
        raise _refused(kept, size)
    return Gaps(data, end, shift, kept)


def _refused(kept: int, size: int) -> PayloadError:
    return PayloadError(f"its positions are not {kept} increasing numbers below {size}")


def _shifts(kept: int, size: int) -> list[int]:
    """The numbers of low bits worth trying: those that bring the mean gap near 100 or,
    where places lie in clusters with long gaps between, well below."""
    near = max(0, (size // kept).bit_length() - 7)
    return [s for s in range(near - 1, near + 4) if 0 <= s <= MAX_SHIFT] or [MAX_SHIFT]


def _highs(numbers: Places) -> Bytes:
    """Each number as a byte below 255 after as many 255s as fit into it."""
    more = numbers // _MORE
    if not more.any():
        return numbers.astype(np.uint8)
    made = np.full(len(numbers) + int(more.sum()), _MORE, np.uint8)
    made[np.arange(len(numbers)) + np.cumsum(more)] = numbers - more * _MORE
    return made
