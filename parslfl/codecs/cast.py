"""Half the bytes by shorter floats: IEEE half precision, or bfloat16 (the upper half of a float32).

Does not know: what the numbers mean, or which other codec comes before or after.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, ClassVar

import numpy as np

from parslfl.codecs.layout import fingerprint, flats, others, require_arrays, require_layout, stand_in
from parslfl.codecs.pieces import Blocks, Floats, Read, fill
from parslfl.errors import PayloadError
from parslfl.params import BLOCK, Array, Params, blocks, trained

#: Bits of a float32: the smallest that rounds to more than fp16 holds; the smallest normal of fp16;
#: 0.5, whose last place is fp16's smallest step.
_TOO_LARGE, _NORMAL, _HALF = np.uint32(0x477FF000), np.uint32(0x38800000), np.uint32(0x3F000000)
#: Takes the exponent from float32's bias to fp16's (-112), and half of the last place less one for rounding.
_REBIASED = np.uint32((0xC8000000 + 0xFFF) & 0xFFFFFFFF)
#: From here on, the bits of an fp16 stand for Inf or NaN.
_NOT_FINITE = 0x7C00


@dataclass(frozen=True)
class Fp16:
    """IEEE 754 half precision: 11 bits of precision, nothing above 65,504 or below 6e-8."""

    rank: ClassVar[int] = 1
    biased: ClassVar[bool] = False

    def encode(self, delta: Params, seed: int = 0) -> tuple[Params, dict[str, Any]]:
        return _shortened(delta, "<f2", _to_half)

    def decode(self, arrays: Params, note: Mapping[str, Any], like: Params) -> Params:
        return fill(_reader(arrays, note, like, "<f2", _from_half), like, arrays)

    def open(self, arrays: Params, note: Mapping[str, Any], like: Params) -> Blocks:
        read = _reader(arrays, note, like, "<f2", _from_half)
        return Blocks.of(read, like, arrays["floats"])

    def declared(self, note: Mapping[str, Any], like: Params) -> Params:
        return _declared(like, "<f2")

    def hand(self, like: Params) -> int:
        return 0

    def most(self, like: Params) -> Params:
        return _declared(like, "<f2")


@dataclass(frozen=True)
class Bf16:
    """bfloat16: the range of float32 with 8 bits of precision, rounded to nearest, ties to even."""

    rank: ClassVar[int] = 1
    biased: ClassVar[bool] = False

    def encode(self, delta: Params, seed: int = 0) -> tuple[Params, dict[str, Any]]:
        return _shortened(delta, "<u2", _to_bf16)

    def decode(self, arrays: Params, note: Mapping[str, Any], like: Params) -> Params:
        return fill(_reader(arrays, note, like, "<u2", _from_bf16), like, arrays)

    def open(self, arrays: Params, note: Mapping[str, Any], like: Params) -> Blocks:
        read = _reader(arrays, note, like, "<u2", _from_bf16)
        return Blocks.of(read, like, arrays["floats"])

    def declared(self, note: Mapping[str, Any], like: Params) -> Params:
        return _declared(like, "<u2")

    def hand(self, like: Params) -> int:
        return 0

    def most(self, like: Params) -> Params:
        return _declared(like, "<u2")


def _to_half(part: Floats, out: Array) -> None:
    """Round to nearest, ties to even: numpy's own cast goes through each number by itself, and takes
    twenty times as long where results are below 2**-14."""
    words = part.view(np.uint32)
    magnitude = words & 0x7FFFFFFF
    if magnitude.size and magnitude.max() >= _TOO_LARGE:
        raise PayloadError("holds numbers beyond 65504, which fp16 cannot write: use --codec bf16")
    even = (magnitude >> 13) & 1
    normal = (magnitude + (even + _REBIASED)) >> 13
    small = (magnitude.view(np.float32) + np.float32(0.5)).view(np.uint32) - _HALF
    half = np.where(magnitude < _NORMAL, small, normal)
    half |= (words >> 16) & 0x8000
    np.copyto(out.view("<u2"), half, casting="same_kind")


def _is_finite(part: Array) -> bool:
    return bool((part.view("<u2") & 0x7FFF).max(initial=0) < _NOT_FINITE)


def _from_half(part: Array, out: Floats) -> None:
    words = part.view("<u2").astype(np.uint32)
    magnitude = ((words & 0x7FFF) << 13).view(np.float32)
    np.multiply(magnitude, np.float32(2.0**112), out=out)  # exact, denormals too
    bits = out.view(np.uint32)
    bits |= (words & 0x8000) << 16


def _to_bf16(part: Floats, out: Array) -> None:
    words = part.view(np.uint32)
    even = (words >> 16) & 1
    np.copyto(out, (words + (even + 0x7FFF)) >> 16, casting="same_kind")


def _from_bf16(part: Array, out: Floats) -> None:
    np.left_shift(part, 16, out=out.view(np.uint32), dtype=np.uint32)


def _shortened(
    delta: Params, dtype: str, shorten: Callable[[Floats, Array], None]
) -> tuple[Params, dict[str, Any]]:
    vectors = flats(delta)
    made = np.empty(sum(vector.size for vector in vectors), dtype)
    at = 0
    for vector in vectors:
        for start in range(0, vector.size, BLOCK):
            part = vector[start : start + BLOCK].astype(np.float32, copy=False)
            shorten(part, made[at : at + part.size])
            at += part.size
    return {"floats": made, **others(delta)}, {"layout": fingerprint(delta)}


def _declared(like: Params, dtype: str) -> Params:
    return {"floats": stand_in(dtype, sum(a.size for a in trained(like).values())), **others(like)}


def _reader(
    arrays: Params,
    note: Mapping[str, Any],
    like: Params,
    dtype: str,
    lengthen: Callable[[Array, Floats], None],
) -> Read:
    require_layout(note, like)
    require_arrays(arrays, _declared(like, dtype))
    if dtype == "<f2" and not all(map(_is_finite, blocks(arrays["floats"]))):
        raise PayloadError("holds NaN or Inf")
    offsets = list(accumulate((array.size for array in trained(like).values()), initial=0))
    floats = arrays["floats"]

    def read(index: int, start: int, out: Floats) -> None:
        at = offsets[index] + start
        lengthen(floats[at : at + out.size], out)

    return read
