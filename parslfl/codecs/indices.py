"""Increasing positions in few bytes: as gaps, or as one bit a place, whichever is shorter.

A gap is split: its `shift` low bits are packed, the rest is a byte, where 255 means 255 and more to
come. Both kinds of bytes suit an entropy coder that comes after.

Does not know: what is at the positions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from parslfl.codecs.compiled import Compiled
from parslfl.codecs.layout import count
from parslfl.codecs.packing import Bytes, low_size, pack_low, packed_size, unpack_low
from parslfl.errors import PayloadError

Places = npt.NDArray[np.int64]
_MORE = 255
#: Low bits of a gap at most: with them, gaps of 2**24 take two bytes.
MAX_SHIFT = 16


def write(places: Places, size: int) -> tuple[Bytes, dict[str, Any]]:
    """The bytes for strictly increasing `places` below `size`, and what `read` must be told."""
    gaps = np.diff(places, prepend=-1) - 1
    shifts = _shifts(len(places), size)
    costs = [len(places) + int(((gaps >> s) // _MORE).sum()) + low_size(len(places), s) for s in shifts]
    if not costs or min(costs) >= packed_size(size, 1):
        made = np.zeros(size, np.uint8)
        made[places] = 1
        return np.packbits(made, bitorder="little"), {"kept": len(places)}
    shift = shifts[costs.index(min(costs))]
    made = np.concatenate([_highs(gaps >> shift), pack_low(gaps, shift)])
    return made, {"kept": len(places), "shift": shift, "bytes": made.size}


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
        highs = self.highs
        last = highs != _MORE
        if np.count_nonzero(last) != self.kept:
            return np.empty(0, np.int64) if self.kept else np.zeros(1, np.int64)
        # a byte that has more to come adds its 255 too; new memory costs more than arithmetic: little of it
        steps = highs if self.shift else np.add(highs, last, dtype=np.uint16)
        places = np.cumsum(steps, dtype=np.int64)
        if self.end > self.kept:
            places = places[last]
        if self.shift:
            places <<= self.shift
            places += np.cumsum(unpack_low(self.low, self.shift, self.kept) + np.uint32(1), dtype=np.int64)
        places -= 1
        return places


def read(data: Bytes, note: Mapping[str, Any], size: int) -> Places:
    """The places that `write` wrote.

    Raises:
        PayloadError: these bytes are not `kept` strictly increasing places below `size`.
    """
    kept, _ = declared(note, size)
    if "shift" in note:
        places = _split(data, note, size).places()
        found = len(places) == kept and (not kept or int(places[-1]) < size)
    else:
        bits = np.unpackbits(data, bitorder="little")
        places = np.flatnonzero(bits)
        found = len(places) == kept and not bits[size:].any()
    if not found:
        raise _refused(kept, size)
    return places


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
    if not kept:
        return []
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
