"""Loops over the gaps of several updates that make a mean of them, for `compiled` to compile.

Does not know: how an update is added.
"""

from __future__ import annotations

import numpy as np

from parslfl.codecs.gap_loops import Bytes, Floats, Loop, Places
from parslfl.codecs.streaming import WIDTH


def averager(add_gaps: Loop, quotients: Loop) -> Loop:
    """The function that makes a mean; `add_gaps` adds one update, `quotients` is of `quotient_maker`."""

    def mean_of_gaps(
        mean: Floats,
        other: Floats,
        start: int,
        data: Bytes,
        values: Floats,
        weights: Floats,
        updates: Places,
        rooms: Places,
        split: int,
        one_sum: Floats,
        another: Floats,
        afresh: bool,
        divisor: np.float32,
    ) -> None:
        """`mean = ((mean + updates before number split) + (other + all others)) / divisor`, all sums made
        from left to right. With `afresh`, `mean` counts as zeros, and so does an empty `other`. The rest as
        in `add_all_gaps`.

        `one_sum` and `another`, zeros to begin with, are memory for a piece of both sums, which stays in the
        cache: main memory is only gone over in order, once.
        """
        for begin in range(0, mean.size, one_sum.size):
            part = mean[begin : begin + one_sum.size]
            first, second = one_sum[: part.size], another[: part.size]
            if not afresh:
                for number in range(part.size):
                    first[number] = part[number]
            if other.size:
                for number in range(part.size):
                    second[number] = other[begin + number]
            for one in range(weights.size):
                sums = first if one < split else second
                add_gaps(sums, start + begin, data, values, weights[one], updates[one], rooms[one])
            quotients(part, first, second, divisor)

    return mean_of_gaps


def quotient_maker(divide: Loop) -> Loop:
    """The function that ends a piece of a mean; `divide` is of `streaming`."""

    def quotients(part: Floats, first: Floats, second: Floats, divisor: np.float32) -> None:
        """`part = (first + second) / divisor`; then both sums are zeros."""
        begin = min(part.size, int(-(np.int64(part.ctypes.data) // part.itemsize) % WIDTH))
        end = part.size - (part.size - begin) % WIDTH
        for number in range(begin):
            part[number] = (first[number] + second[number]) / divisor
            first[number] = second[number] = 0
        for number in range(begin, end, WIDTH):
            divide(part, first, second, number, divisor)
        for number in range(end, part.size):
            part[number] = (first[number] + second[number]) / divisor
            first[number] = second[number] = 0

    return quotients
