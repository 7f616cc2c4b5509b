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

from parslfl.codecs import gap_loops, mean_loops, streaming
from parslfl.codecs.gap_loops import Bytes, Floats, Places

Codes = npt.NDArray[np.int8]
#: Numbers that a process leaves to numpy first. Compiling takes 0.1 GB and a second for int8, five for sparse
#: updates, and that is gained on three times as many numbers of int8, or on about half as many places of
#: sparse ones. Workers, and ranks of one round, hardly have so many.
FIRST = 1 << 30
#: The squares of so many codes have an exact sum in float32, whatever the order.
EXACT = 1 << 10
_one = threading.Lock()
_left_to_numpy = [0]


class Compiled(NamedTuple):
    """The functions of the same names, here, in `gap_loops` or `mean_loops`, and what makers there make."""

    add_codes: Callable[[Floats, Codes, Floats, int, np.float32], None]
    sum_squares: Callable[[Codes, int, Floats], None]
    end_of_gaps: Callable[[Bytes, Bytes, int, int], tuple[int, int]]
    add_gaps: Callable[..., None]
    add_all_gaps: Callable[..., np.float32]
    mean_of_gaps: Callable[..., None]
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

        if getattr(numba.config, "DISABLE_JIT", 0):  # plain Python takes seconds an update
            return None
        return _made(numba)
    except Exception as error:  # noqa: BLE001 - one for another numpy, without its libraries, half removed, new
        warnings.warn(f"numba is installed but not used, numpy does its work: {error}", stacklevel=2)
        return None


def _made(numba: Any) -> Compiled:
    make: Any = numba.njit(nogil=True, error_model="numpy")
    add_whole = make(gap_loops.adder_of_whole(make(gap_loops.pass_over)))
    add_split = make(gap_loops.adder_of_split(make(gap_loops.read_gaps)))
    add_gaps = make(gap_loops.adder(add_whole, add_split))
    quotients = make(mean_loops.quotient_maker(streaming.divider(numba)))
    return Compiled(
        make(add_codes),
        make(sum_squares),
        make(gap_loops.end_of_gaps),
        add_gaps,
        make(gap_loops.adder_of_all(add_gaps)),
        make(mean_loops.averager(add_gaps, quotients)),
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
