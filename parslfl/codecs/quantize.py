"""Whole multiples of a step instead of floats: stochastic quantisation at 8, 4 or 2 bits.

Alistarh et al. 2017, "QSGD: Communication-Efficient SGD via Gradient Quantization and Encoding",
section 3, with the largest magnitude in place of the Euclidean norm: x / step is rounded up or
down with the probabilities that make the mean right, so the error averages out over clients.

Does not know: what is quantised: an update, or the values that a sparse codec chose of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from parslfl.codecs.compiled import EXACT, Compiled, compiled
from parslfl.codecs.layout import (
    fingerprint,
    flats,
    others,
    require_arrays,
    require_layout,
    stand_in,
)
from parslfl.codecs.packing import pack, packed_size, unpack
from parslfl.codecs.pieces import AddTo, Blocks, Floats, fill
from parslfl.errors import PayloadError
from parslfl.params import BLOCK, SPAN, Array, Params, trained
from parslfl.seeding import words

_BITS = (8, 4, 2)
#: The largest block of numbers with one step; `params.BLOCK` is a multiple of it.
_LARGEST = 1 << 16
#: Magnitudes below this are sent as zero: the reciprocal of their step would be infinite.
_LEAST = np.float32(2.0**-110)
#: The step is this much larger than the largest magnitude asks for: rounding must not pass the last code.
_ROOM = np.float32(1 + 2.0**-20)
#: Half of the last place of a dither of 16 bits: with it, the dither's mean is exactly a half.
_HALF = np.float32(2.0**-17)


@dataclass(frozen=True)
class Quantize:
    """`bits` (8, 4 or 2) a number; a step for every `block` numbers (0: one for each array).

    Codes are -L..L times the step, L = 2**(bits-1) - 1. One step for a whole array has smaller codes,
    which zstd likes, but at 4 bits and less most numbers are then far below it, and after topk the
    error is larger than what was sent. `nearest` rounds to the nearest code
    instead of at random: less error in one update, but one that does not average out.
    """

    bits: int = 8
    block: int = 256
    nearest: bool = False
    rank: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if self.bits not in _BITS:
            raise ValueError(f"bits must be 8, 4 or 2, got {self.bits}")
        if self.block and (self.block & (self.block - 1) or not 16 <= self.block <= _LARGEST):
            raise ValueError(f"block must be 0 or a power of two from 16 to {_LARGEST}, got {self.block}")

    @property
    def biased(self) -> bool:
        return self.nearest

    def encode(self, delta: Params, seed: int = 0) -> tuple[Params, dict[str, Any]]:
        vectors = flats(delta)
        codes = np.empty(sum(packed_size(vector.size, self.bits) for vector in vectors), np.uint8)
        source, steps, at = words(seed), list[Floats](), 0
        for vector in vectors:
            whole = _step([_largest(vector)], self._levels) if not self.block else None
            for start in range(0, vector.size, BLOCK):
                part = vector[start : start + BLOCK].astype(np.float32, copy=False)
                used = (
                    _step(_rows(np.abs(part), self.block).max(axis=1), self._levels) if self.block else whole
                )
                assert used is not None
                made = self._coded(part, used, source)
                codes[at : at + made.size] = made
                at += made.size
                steps += [used] if self.block or not start else []
        arrays = {"codes": codes, "steps": np.concatenate([np.empty(0, np.float32), *steps])}
        return {**arrays, **others(delta)}, {"layout": fingerprint(delta)}

    def decode(self, arrays: Params, note: Mapping[str, Any], like: Params) -> Params:
        return fill(self._coded_numbers(arrays, note, like).read, like, arrays)

    def open(self, arrays: Params, note: Mapping[str, Any], like: Params) -> Blocks:
        coded = self._coded_numbers(arrays, note, like)
        loops = compiled(coded.codes.size) if self.bits == 8 else None
        add_to = coded.adder(loops) if loops else None
        return Blocks(coded.read, coded.norm(like, loops), (coded.codes, coded.steps), add_to)

    def _coded_numbers(self, arrays: Params, note: Mapping[str, Any], like: Params) -> _Coded:
        require_layout(note, like)
        require_arrays(arrays, self.declared(note, like))
        codes, steps = arrays["codes"], arrays["steps"]
        if not np.isfinite(steps).all() or (steps < 0).any():
            raise PayloadError("holds a step that is not finite or is negative")
        return _Coded(codes, steps, self.bits, self.block, tuple(_places(like, self.bits, self.block)))

    def declared(self, note: Mapping[str, Any], like: Params) -> Params:
        sizes = [array.size for array in trained(like).values()]
        codes = sum(packed_size(size, self.bits) for size in sizes)
        steps = sum(_steps(size, self.block) for size in sizes)
        return {"codes": stand_in("u1", codes), "steps": stand_in("<f4", steps), **others(like)}

    def hand(self, like: Params) -> int:
        return 0

    def most(self, like: Params) -> Params:
        return self.declared({}, like)

    @property
    def _levels(self) -> int:
        return int(2 ** (self.bits - 1)) - 1

    def _coded(self, part: Floats, steps: Floats, source: np.random.SFC64) -> npt.NDArray[np.uint8]:
        """The packed codes of one block."""
        with np.errstate(divide="ignore"):
            inverse = np.where(steps > 0, 1 / steps, np.float32(0))
        scaled = part * inverse[0] if not self.block else part.copy()
        if self.block:
            _scale(scaled, inverse, self.block)
        if self.nearest:
            scaled += np.float32(self._levels + 0.5)
        else:
            dither = source.random_raw(-(-part.size // 4)).astype("<u8", copy=False).view("<u2")[: part.size]
            scaled += np.multiply(dither, np.float32(2.0**-16), dtype=np.float32)
            scaled += np.float32(self._levels) + _HALF
        codes = scaled.astype(np.uint8)
        if self.bits == 8:
            codes -= np.uint8(self._levels)  # as int8
        return pack(codes, self.bits)


@dataclass(frozen=True)
class _Coded:
    """Numbers as `codes` times `steps`; `places`: where each array's codes and steps begin."""

    codes: npt.NDArray[np.uint8]
    steps: Floats
    bits: int
    block: int
    places: tuple[tuple[int, int], ...]

    def read(self, index: int, start: int, out: Floats) -> None:
        steps = self._read_codes(index, start, out)
        if self.block:
            _scale(out, steps, self.block)
        else:
            np.multiply(out, steps[0], out=out)

    def adder(self, loops: Compiled) -> AddTo:
        """What adds codes of 8 bits as they are."""

        def add_to(index: int, start: int, into: Floats, weight: np.float32) -> None:
            codes, steps = self._coded_from(index, start, into.size)
            loops.add_codes(into, codes.view(np.int8), steps, self.block or into.size, weight)

        return add_to

    def norm(self, like: Mapping[str, Array], loops: Compiled | None) -> float:
        """Of the numbers: from the codes' squares, without the numbers themselves."""
        scratch, square = np.empty(SPAN, np.float32), 0.0
        for index, array in enumerate(trained(like).values()):
            for start in range(0, array.size, SPAN):
                part = scratch[: min(SPAN, array.size - start)]
                codes, steps = self._coded_from(index, start, part.size)
                if loops and 0 < self.block <= EXACT:
                    squares = np.empty(steps.size, np.float32)
                    loops.sum_squares(codes.view(np.int8), self.block, squares)
                else:
                    self._read_codes(index, start, part)
                    squares = _squares(part, self.block or part.size)
                wide = steps.astype(np.float64)
                square += float(np.dot(squares * wide, wide))
        return math.sqrt(square)

    def _read_codes(self, index: int, start: int, out: Floats) -> Floats:
        """Fill `out` with codes as floats; returns their steps."""
        part, steps = self._coded_from(index, start, out.size)
        if self.bits == 8:
            np.copyto(out, part.view(np.int8))
        else:
            unpack(part, self.bits, out)
        return steps

    def _coded_from(self, index: int, start: int, size: int) -> tuple[npt.NDArray[np.uint8], Floats]:
        """The packed codes of `size` numbers, and their steps."""
        code, step = self.places[index]
        begin = code + packed_size(start, self.bits)
        part = self.codes[begin : begin + packed_size(size, self.bits)]
        first = step + start // self.block if self.block else step
        return part, self.steps[first : first + (-(-size // self.block) if self.block else 1)]


def _squares(part: Floats, block: int) -> Floats:
    """The sums of the squares of every `block` numbers; the last may be of fewer."""
    rows = part[: part.size // block * block].reshape(-1, block)
    squares = np.matmul(rows[:, None, :], rows[:, :, None]).reshape(-1)
    rest = part[rows.size :]
    return np.append(squares, np.dot(rest, rest)) if rest.size else squares


def _largest(vector: Array) -> np.float32:
    """The largest magnitude in `vector`."""
    if not vector.size:
        return np.float32(0)
    return max(np.float32(vector.max()), np.float32(-vector.min()))


def _step(largest: npt.ArrayLike, levels: int) -> Floats:
    """The distance between two codes, 0 where there is nothing to send."""
    top = np.asarray(largest, np.float32)
    return np.where(top < _LEAST, np.float32(0), top * (_ROOM / np.float32(levels)))


def _steps(size: int, block: int) -> int:
    return -(-size // block) if block else min(size, 1)


def _places(like: Params, bits: int, block: int) -> Iterator[tuple[int, int]]:
    """Where each array's codes and steps begin."""
    code = step = 0
    for array in trained(like).values():
        yield code, step
        code, step = code + packed_size(array.size, bits), step + _steps(array.size, block)


def _rows(part: Floats, block: int) -> Floats:
    """`part` as rows of `block` numbers, the last one filled up with zeros."""
    if part.size % block:
        part = np.concatenate([part, np.zeros(-part.size % block, part.dtype)])
    return part.reshape(-1, block)


def _scale(part: Floats, factors: Floats, block: int) -> None:
    """Multiply every `block` numbers of `part` by their factor, in place."""
    whole = part.size // block
    rows = part[: whole * block].reshape(whole, block)
    np.multiply(rows, factors[:whole, None], out=rows)
    if whole < factors.size:
        part[whole * block :] *= factors[whole]
