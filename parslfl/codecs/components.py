"""The largest singular components of a matrix, in little memory.

Large matrices are looked at through a random sketch: Halko et al. 2011, "Finding Structure with Randomness",
Algorithm 4.1.

Does not know: whose matrix it is, or how many of its components are worth their bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from parslfl.codecs.pieces import Floats
from parslfl.params import BLOCK, Array

#: Sketches with more columns than the longer side by this are decomposed in place: numpy would take more
#: memory for it than the model has.
_MANY = 6
#: The factors of a matrix: `left` of shape [rank, rows], `right` of shape [rank, columns].
Factors = tuple[Floats, Floats]


@dataclass(frozen=True)
class Found:
    """Components of a matrix: `short` has a row of each for the shorter side, `long` for the longer one. That
    is None where `short` times the matrix makes it again: of all matrices it would be another model."""

    short: Floats
    long: Floats | None

    def first(self, rank: int) -> Found:
        return Found(self.short[:rank].copy(), None if self.long is None else self.long[:rank].copy())

    def write(self, wide: Floats, short: Floats, long: Floats) -> None:
        np.copyto(short, self.short)
        if self.long is None:
            np.matmul(self.short, wide, out=long)
        else:
            np.copyto(long, self.long)
        factors = _balance(short, long)
        short *= factors[0]
        long *= factors[1]


def turned(vector: Array, shape: tuple[int, int]) -> Floats:
    """A matrix with the shorter side first."""
    matrix = vector.reshape(shape)
    return (matrix.T if shape[0] > shape[1] else matrix).astype(np.float32, copy=False)


def components(wide: Floats, most: int, source: np.random.Generator) -> tuple[Found, Floats]:
    """The `most` largest singular components of a matrix, in order, and what each carries.

    They come from the square matrix of the shorter side, which costs far less than a full
    decomposition and is as good for the large ones.
    """
    if most == len(wide):
        short = np.linalg.eigh(wide @ wide.T)[1][:, ::-1].T
    elif most * _MANY <= wide.shape[1]:
        short, long = _sketched(wide, _sketch(wide, most, source))
        return Found(short, long), _energies(short, long)
    else:
        short = _sketched_in_place(wide, _sketch(wide, most, source))
    long = short @ wide
    del wide  # of half precision it is a copy
    return Found(short, None), _energies(short, long)


def _sketch(wide: Floats, most: int, source: np.random.Generator) -> Floats:
    """`wide` times random signs: made sooner than normal numbers, and as good."""
    signs = source.integers(0, 2, (wide.shape[1], most), np.int8).astype(np.float32)
    signs *= np.float32(2)
    signs -= np.float32(1)
    return wide @ signs


def _sketched(wide: Floats, sketch: Floats) -> Factors:
    """The components of `wide` in the directions of its `sketch`."""
    basis = np.linalg.qr(sketch)[0]
    inner = basis.T @ wide
    vectors = np.linalg.eigh(inner @ inner.T)[1][:, ::-1]
    return (basis @ vectors).T, vectors.T @ inner


def _sketched_in_place(wide: Floats, sketch: Floats) -> Floats:
    """The shorter sides of the same but for rounding, in half the memory: numpy's LAPACK works on copies."""
    from scipy import linalg

    doubles = sketch.astype(np.float64, order="F")
    del sketch
    room = int(linalg.lapack.dgeqrf_lwork(*doubles.shape)[0])
    doubles, scales, *_ = linalg.lapack.dgeqrf(doubles, lwork=room, overwrite_a=True)
    basis = linalg.lapack.dorgqr(doubles, scales, lwork=room, overwrite_a=True)[0].astype(np.float32)
    del doubles
    inner = basis.T @ wide
    square = inner @ inner.T
    del inner
    square = square.astype(np.float64, order="F")
    doubles = linalg.eigh(square, overwrite_a=True, check_finite=False)[1]
    del square
    left: Floats = (basis @ doubles.astype(np.float32)[:, ::-1]).T
    return left


def _balance(left: Floats, right: Floats) -> Factors:
    """Factors that make both largest magnitudes equal, their product 1: one step of `quantize` suits both."""
    tops = [np.maximum(side.max(axis=1), -side.min(axis=1))[:, None] for side in (left, right)]
    there = (tops[0] > 0) & (tops[1] > 0)
    factor = np.sqrt(np.divide(tops[1], tops[0], out=np.zeros_like(tops[0]), where=there))
    return factor, np.divide(1, factor, out=np.zeros_like(factor), where=factor > 0)


def _energies(short: Floats, long: Floats) -> Floats:
    """What each component carries, as it is sent. Of `long`, which may be a model, some rows at a time."""
    energies = np.ones(len(short), np.float32)
    some = max(1, BLOCK // long.shape[1])
    for side, factor, step in zip((short, long), _balance(short, long), (len(short), some), strict=True):
        for first in range(0, len(side), step):
            part = slice(first, first + step)
            scaled = side[part] * factor[part]
            energies[part] *= np.square(scaled, out=scaled).sum(axis=1)
            del scaled  # before the next are made
    return energies
