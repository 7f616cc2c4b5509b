"""What the codecs share: the order and size of a model's arrays, and numbers that came with a payload.

Codecs write the trained arrays one after the other, in the model's order and without their names: a
fingerprint of names, shapes and dtypes says whether sender and reader mean the same model.

Does not know: any codec.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from parslfl.errors import PayloadError
from parslfl.params import Array, Params, checksum, is_trained, squared_norm, trained

#: A larger norm than this is a diverged client's; its square still is a finite float32.
_MOST = 1e18


def fingerprint(like: Mapping[str, Array]) -> str:
    """xxh3-64 of the names, dtypes and shapes of the trained arrays of `like`, in order."""
    return _fingerprint(tuple((name, array.dtype, array.shape) for name, array in trained(like).items()))


@lru_cache(maxsize=64)
def _fingerprint(arrays: tuple[tuple[str, np.dtype[Any], tuple[int, ...]], ...]) -> str:
    entries = [[name, dtype.str.lstrip("<>="), shape] for name, dtype, shape in arrays]
    return checksum([json.dumps(entries, separators=(",", ":")).encode()])


def require_layout(note: Mapping[str, Any], like: Mapping[str, Array]) -> None:
    """Check that the payload with this note was made for a model like `like`.

    Raises:
        PayloadError: it was not.
    """
    if note.get("layout") != fingerprint(like):
        raise PayloadError("was made for a model with other arrays (their names, shapes or dtypes differ)")


def require_arrays(arrays: Mapping[str, Array], like: Mapping[str, Array]) -> None:
    """Check that `arrays` have the names, dtypes and shapes of `like`.

    Raises:
        PayloadError: they do not.
    """
    if arrays.keys() != like.keys():
        raise PayloadError(f"holds the arrays {sorted(arrays)[:5]}, expected {sorted(like)[:5]}")
    for name, array in arrays.items():
        if array.shape != like[name].shape or array.dtype != like[name].dtype:
            raise PayloadError(
                f"array {name!r} is {array.dtype}{list(array.shape)}, "
                f"expected {like[name].dtype}{list(like[name].shape)}"
            )


def count(note: Mapping[str, Any], key: str, most: int) -> int:
    """The whole number `key` of a note, from 0 to `most`.

    Raises:
        PayloadError: it is none.
    """
    value = note.get(key)
    if type(value) is not int or not 0 <= value <= most:
        raise PayloadError(f"its note says {key} {str(value)[:40]!r}, expected 0 to {most}")
    return value


@lru_cache(maxsize=64)
def stand_in(dtype: npt.DTypeLike, *shape: int) -> Array:
    """An array of this dtype and shape that takes no memory: a `like` of what is yet to come."""
    return np.broadcast_to(np.zeros((), dtype), shape)


def flats(delta: Mapping[str, Array]) -> list[Array]:
    """The trained arrays as contiguous vectors, in order, once they are known to be of sane size.

    Raises:
        PayloadError: they hold NaN or Inf, or nearly so.
    """
    found = {name: np.ascontiguousarray(array).reshape(-1) for name, array in trained(delta).items()}
    if not squared_norm(found) <= _MOST**2:
        raise PayloadError(
            "holds NaN, Inf or nearly so: the client's training diverged; a lower --lr may help"
        )
    return list(found.values())


def others(arrays: Mapping[str, Array]) -> Params:
    """The arrays that are not trained: in a chain, what an earlier codec sends beside its values."""
    return {name: array for name, array in arrays.items() if not is_trained(array)}
