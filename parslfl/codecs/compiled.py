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
#: Numbers that a process leaves to numpy first: compiling takes a second and 0.1 GB, and a second is gained
#: on twice as many of int8, or a third of sparse ones. Workers, and ranks of one round, hardly have so many.
FIRST = 1 << 30
#: The squares of so many codes have an exact sum in float32, whatever the order.
EXACT = 1 << 10
_MORE = 255
_one = threading.Lock()
_left_to_numpy = [0]


class Compiled(NamedTuple):
    """The functions below of the same names."""

    add_codes: Callable[[Floats, Codes, Floats, int, np.float32], None]
    sum_squares: Callable[[Codes, int, Floats], None]
    read_gaps: Callable[[Bytes, Bytes, int, Places], int]
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
    return Compiled(make(add_codes), make(sum_squares), make(read_gaps), make(add_at))


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


def read_gaps(highs: Bytes, low: Bytes, shift: int, out: Places) -> int:
    """Fill `out` with the places that `indices.write` made gaps of; returns how many numbers end in
    `highs`: with another number than fit, `out` holds no places."""
    if not out.size:
        return highs.size
    found, gap, last = 0, np.int64(0), out.size - 1
    for high in highs:
        gap += np.int64(high)
        out[min(found, last)] = gap
        ends = int(high != _MORE)  # a factor: a branch would often be guessed wrong
        found, gap = found + ends, gap * (1 - ends)
    if found != out.size:
        return found
    width = (out.size + 7) // 8
    for number in range(out.size):
        out[number] = (out[number] << shift) + 1
    for plane in range(shift):
        bits = low[plane * width : (plane + 1) * width]
        for number in range(out.size):
            out[number] += np.int64((bits[number >> 3] >> (number & 7)) & 1) << plane
    at = np.int64(-1)
    for number in range(out.size):
        at += out[number]
        out[number] = at
    return found


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
