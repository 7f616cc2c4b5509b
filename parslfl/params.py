"""Model parameters as named numpy arrays, and the arithmetic a driver does on them.

`Params` is a plain dict in the model's own order. Floating arrays are trained and averaged;
all others (counters, indices) are carried along unchanged. Every function walks the arrays in
blocks that fit a core's cache, so a pass costs one read of main memory whatever it computes.

Does not know: files, networks, or where an array came from.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

Array = npt.NDArray[Any]
Params = dict[str, Array]
Empty = Callable[[int, np.dtype[Any]], Array]

#: Elements per block: 512 KiB of float32, half of a core's L2 cache.
BLOCK = 1 << 17
#: Elements of a sum to which updates are added before the next are: each call costs, and on a core whose
#: own cache is 1 MiB (Zen 4) twice as many as in a `BLOCK` took 13 % less time, four times as many no less.
SPAN = 1 << 18


def is_trained(array: Array) -> bool:
    """Whether `array` takes part in training and averaging: any floating dtype."""
    return array.dtype.kind == "f"  # np.issubdtype says the same, twenty times as slowly


def trained(params: Mapping[str, Array]) -> Params:
    """The floating arrays of `params`, in order, not copied."""
    return {name: array for name, array in params.items() if is_trained(array)}


def size(params: Mapping[str, Array]) -> int:
    """Number of scalars in all arrays."""
    return sum(array.size for array in params.values())


def nbytes(params: Mapping[str, Array]) -> int:
    """Bytes of all arrays, uncompressed."""
    return sum(array.nbytes for array in params.values())


def is_mapped(array: Array) -> bool:
    """Whether `array` lies in a mapped file: memory that the system may take back."""
    owner: object = array
    while isinstance(owner, np.ndarray):
        owner = owner.base
    return isinstance(owner, memoryview) and isinstance(owner.obj, mmap.mmap)


def in_memory(params: Mapping[str, Array]) -> int:
    """Bytes of those arrays that do not lie in mapped files."""
    return sum(array.nbytes for array in params.values() if not is_mapped(array))


class Joined(dict[str, Array]):
    """`Params` of one dtype that lie in one `vector`, one after the other. No array may be replaced."""

    vector: Array

    @classmethod
    def empty_like(cls, params: Mapping[str, Array], empty: Empty = np.empty) -> Params:
        """Memory for arrays like `params`, contiguous; in one vector if they have one dtype. `empty` makes
        what has so many elements of a dtype, once for each dtype."""
        sizes: dict[np.dtype[Any], int] = {}
        for array in params.values():
            sizes[array.dtype] = sizes.get(array.dtype, 0) + array.size
        rest = {dtype: empty(number, dtype) for dtype, number in sizes.items()}
        made = cls()
        for vector in rest.values():
            made.vector = vector
        for name, array in params.items():
            vector = rest[array.dtype]
            made[name] = vector[: array.size].reshape(array.shape)
            rest[array.dtype] = vector[array.size :]
        return made if len(rest) == 1 else dict(made)


def clear(params: Params) -> None:
    """Set all arrays to zeros."""
    for array in params.values():
        array.fill(0)


def zeros_like(params: Mapping[str, Array]) -> Params:
    """Zeros with the names, shapes and dtypes of `params`."""
    return {name: np.zeros_like(array) for name, array in params.items()}


def wide(params: Mapping[str, Array]) -> Params:
    """Shapes and dtypes of sums over arrays like the trained ones of `params`, without memory of their own:
    at least float32, since the weights of a round's updates may add up to more than float16 holds."""
    return {
        name: np.broadcast_to(np.empty((), np.result_type(array.dtype, np.float32)), array.shape)
        for name, array in trained(params).items()
    }


def require_like(params: Mapping[str, Array], like: Mapping[str, Array], who: str) -> None:
    """Check that `params`, made by `who`, have the names, shapes and dtypes of `like`.

    Raises:
        ValueError: they do not.
        TypeError: they are no arrays at all.
    """
    if not isinstance(params, Mapping):
        raise TypeError(f"{who} returned a {type(params).__name__}, not a dict of arrays")
    if params.keys() != like.keys():
        wrong = sorted(params.keys() ^ like.keys())
        raise ValueError(f"{who} returned other arrays than it was given: {', '.join(wrong[:5])}")
    for name, array in params.items():
        if not isinstance(array, np.ndarray | np.generic):
            raise TypeError(f"{who} returned {name!r} as a {type(array).__name__}, not as an array")
        if (array.shape, array.dtype) != (like[name].shape, like[name].dtype):
            raise ValueError(
                f"{who} returned {name!r} as {array.dtype}{list(array.shape)}, "
                f"not {like[name].dtype}{list(like[name].shape)}"
            )


def turn_into_delta(new: Mapping[str, Array], old: Mapping[str, Array]) -> Params:
    """`new - old` for the trained arrays, in the memory of `new` where that may be written.

    Filling a third set of arrays would take half as long again. Arrays that share memory (tied
    weights have two names) are not written over: each would be subtracted from twice.
    """
    new = {name: np.asarray(array) for name, array in new.items()}
    apart = len({array.ctypes.data for array in new.values()}) == len(new)
    return {
        name: _less(array, old[name], array if apart and array.flags.writeable else None)
        for name, array in trained(new).items()
    }


def subtract(new: Mapping[str, Array], old: Mapping[str, Array]) -> Params:
    """`new - old` for the trained arrays, in memory of their own."""
    return {name: _less(array, old[name]) for name, array in trained(new).items()}


def _less(new: Array, old: Array, out: Array | None = None) -> Array:
    """`new - old`; numpy's own turns arrays without dimensions into numbers."""
    return np.asarray(np.subtract(new, old, out=out))


def fold(total: Params, delta: Mapping[str, Array], weight: float) -> None:
    """`total += weight * delta` in place, for every array of `delta`.

    The order of the additions is that of the calls, so equal calls give equal bits.
    """
    fold_all(total, [(delta, weight)])


def fold_all(total: Params, terms: Sequence[tuple[Mapping[str, Array], float]], afresh: bool = False) -> None:
    """As `fold` of each (delta, weight) in turn, bit for bit; the deltas have the same arrays.

    The sum is read and written once: all are added to a piece of it while that is in the cache. `afresh`:
    what is in these arrays of `total` does not count, as if it were zeros.
    """
    scratch = scratches(total)
    weights = [weight for _, weight in terms]
    for name in terms[0][0]:
        space, number = scratch[total[name].dtype], total[name].dtype.type
        walks = (blocks(array, SPAN) for array in (total[name], *(delta[name] for delta, _ in terms)))
        for into, *parts in zip(*walks, strict=True):
            if afresh:
                into.fill(0)
            scaled = space[: into.size]
            for part, weight in zip(parts, weights, strict=True):
                np.multiply(part, number(weight), out=scaled)
                np.add(into, scaled, out=into)


def scratches(total: Mapping[str, Array]) -> dict[np.dtype[Any], Array]:
    """Space for `SPAN` elements, or as many as the largest array has, of each dtype in `total`."""
    most: dict[np.dtype[Any], int] = {}
    for array in total.values():
        most[array.dtype] = max(array.size, most.get(array.dtype, 0))
    return {dtype: np.empty(min(SPAN, size), dtype) for dtype, size in most.items()}


def average(totals: Sequence[Params], weight: float) -> Params:
    """`sum(totals) / weight`, in the memory of the first; added in the order given."""
    for name, array in totals[0].items():
        divisor = array.dtype.type(weight)
        for into, *others in zip(*(blocks(total[name]) for total in totals), strict=True):
            for other in others:
                np.add(into, other, out=into)
            np.divide(into, divisor, out=into)
    return totals[0]


def squared_norm(params: Mapping[str, Array]) -> float:
    """Sum of squares over all arrays; NaN or Inf when any element is not finite.

    Blocks of float32 are squared and summed as float32, so that elements below 2e-23 count as zeros; all
    else, and the sum of the blocks, is float64.
    """
    total = 0.0
    with np.errstate(over="ignore", invalid="ignore"):
        for part in (part for array in params.values() for part in blocks(array)):
            square = float(np.dot(part, part)) if part.dtype == np.float32 else np.inf
            if not math.isfinite(square):  # a float32 dot overflows at 1.8e19: look again, wider
                wide = part.astype(np.float64)
                square = float(np.dot(wide, wide))
            total += square
    return total


def blocks(array: Array, size: int = BLOCK) -> Iterator[npt.NDArray[np.floating]]:
    """Views of at most `size` elements, in memory order. Needs a C-contiguous array."""
    flat = array.reshape(-1)
    if not (array.flags.c_contiguous or np.may_share_memory(flat, array)):
        raise ValueError(f"an array of shape {array.shape} is not contiguous: copy it first")
    for start in range(0, flat.size, size):
        yield flat[start : start + size]


def checksum(buffers: Iterable[bytes | memoryview]) -> str:
    """xxh3-64 of the concatenated buffers, 16 hexadecimal digits."""
    state = xxhash.xxh3_64()
    for buffer in buffers:
        state.update(buffer)
    return str(state.hexdigest())
