"""Matrices as the few products of two vectors that carry most of them: singular components.

What a client learns in a round changes a layer along few directions. Konečný et al. 2016, "Federated
Learning: Strategies for Improving Communication Efficiency", section 2 (low rank updates); Wang et al. 2018,
"ATOMO", section 3 (which components are worth their bytes); Vogels et al. 2019, "PowerSGD" (with error
feedback). Large matrices are looked at through a random sketch: Halko et al. 2011, "Finding Structure with
Randomness", Algorithm 4.1.

Does not know: layers; an array is a matrix of its first dimension by all others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from parslfl.codecs.layout import count, fingerprint, flats, require_arrays, require_layout, stand_in
from parslfl.codecs.pieces import Blocks, Floats, Read, fill
from parslfl.codecs.topk import require_ratio
from parslfl.errors import PayloadError
from parslfl.params import BLOCK, Array, Params, size, trained
from parslfl.seeding import generator

#: Matrices whose shorter side is at most this are not sketched.
_WHOLE = 128
#: A sketch is this much wider than an even share of the numbers, and a few columns more. Twice as wide costs
#: half as much time again, and leaves no smaller an error once `quantize` has added its own.
_WIDER, _MORE = 1.25, 8
#: Sketches with more columns than the longer side by this are decomposed in place: numpy would take more
#: memory for it than the model has.
_MANY = 6


@dataclass(frozen=True)
class LowRank:
    """Sends the singular components that carry most for their size, over the whole model, in at most
    `ratio` of its numbers; at least one component. Arrays of one dimension or none are sent whole."""

    ratio: float = 0.1
    rank: ClassVar[int] = 0
    biased: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require_ratio(self.ratio)

    def encode(self, delta: Params, seed: int = 0) -> tuple[Params, dict[str, Any]]:
        vectors, places = flats(delta), _Places.of(delta)
        found, energies = dict[int, _Found](), dict[int, Floats]()
        for index, shape in places.matrices.items():
            most, source = self._widest(shape), generator(seed, "sketch", index)
            found[index], energies[index] = _components(_wide(vectors[index], shape), most, source)
        ranks = _worth_most(energies, places, self._budget(delta))
        for index, rank in ranks.items():  # what is not sent is let go before there is room for what is
            found[index] = found[index].first(rank)
        cost = sum(ranks[index] * sum(shape) for index, shape in places.matrices.items())
        values = np.empty(places.vectors + cost, np.float32)
        factors, wholes = places.split(values, ranks)
        for index, whole in wholes.items():
            np.copyto(whole, vectors[index], casting="same_kind")
        for index, (left, right) in factors.items():
            into = (right, left) if left.shape[1] > right.shape[1] else (left, right)
            found.pop(index).write(_wide(vectors[index], places.matrices[index]), *into)
        note = {"layout": fingerprint(delta), "ranks": [ranks[index] for index in places.matrices]}
        return {"values": values}, note

    def decode(self, arrays: Params, note: Mapping[str, Any], like: Params) -> Params:
        return fill(self._reader(arrays, note, like), like, {})

    def open(self, arrays: Params, note: Mapping[str, Any], like: Params) -> Blocks:
        return Blocks.of(self._reader(arrays, note, like), like, arrays["values"])

    def declared(self, note: Mapping[str, Any], like: Params) -> Params:
        places = _Places.of(like)
        ranks = _ranks(note, places)
        cost = sum(ranks[index] * sum(shape) for index, shape in places.matrices.items())
        if cost > self._most(like):
            raise PayloadError(f"holds ranks that make {cost} numbers, more than its ratio allows")
        return {"values": stand_in("<f4", places.vectors + cost)}

    def hand(self, like: Params) -> int:
        """The rows that a block lies in, and that as one piece, where they are longer than blocks."""
        widest = max((columns for _, columns in _Places.of(like).matrices.values()), default=0)
        return 12 * widest if widest > BLOCK else 0

    def most(self, like: Params) -> Params:
        return {"values": stand_in("<f4", _Places.of(like).vectors + self._most(like))}

    def _most(self, like: Params) -> int:
        """How many numbers its components have at most."""
        return max(self._budget(like), _Places.of(like).widest())

    def _reader(self, arrays: Params, note: Mapping[str, Any], like: Params) -> Read:
        require_layout(note, like)
        require_arrays(arrays, self.declared(note, like))
        places = _Places.of(like)
        factors, wholes = places.split(arrays["values"], _ranks(note, places))

        def read(index: int, start: int, out: Floats) -> None:
            if index in wholes:
                np.copyto(out, wholes[index][start : start + out.size])
                return
            left, right = factors[index]
            width = right.shape[1]
            first, last = start // width, -(-(start + out.size) // width)
            product = left[:, first:last].T @ right
            np.copyto(out, product.reshape(-1)[start - first * width :][: out.size])

        return read

    def _budget(self, like: Mapping[str, Array]) -> int:
        """How many numbers the components may have."""
        return round(self.ratio * size(trained(like))) - _Places.of(like).vectors

    def _widest(self, shape: tuple[int, int]) -> int:
        """How many components of a matrix are looked for: all, unless it is large."""
        rows, columns = shape
        share = self.ratio * rows * columns / (rows + columns)
        return min(shape) if min(shape) <= _WHOLE else min(*shape, round(_WIDER * share) + _MORE)


#: The factors of a matrix: `left` of shape [rank, rows], `right` of shape [rank, columns].
_Factors = tuple[Floats, Floats]


@dataclass(frozen=True)
class _Places:
    """`matrices`: shape of each array, by its number, that is sent as components. `sizes`: of all trained
    arrays; `vectors`: numbers in those that are sent whole."""

    matrices: dict[int, tuple[int, int]]
    sizes: tuple[int, ...]
    vectors: int

    @classmethod
    def of(cls, like: Mapping[str, Array]) -> _Places:
        arrays = list(trained(like).values())
        shapes = {
            i: (a.shape[0], a.size // a.shape[0]) for i, a in enumerate(arrays) if a.ndim > 1 and a.size
        }
        matrices = {i: shape for i, shape in shapes.items() if shape[0] * shape[1] > sum(shape)}
        sizes = tuple(array.size for array in arrays)
        return cls(matrices, sizes, sum(n for i, n in enumerate(sizes) if i not in matrices))

    def widest(self) -> int:
        """Numbers of the largest component."""
        return max((sum(shape) for shape in self.matrices.values()), default=0)

    def split(
        self, values: Floats, ranks: Mapping[int, int]
    ) -> tuple[dict[int, _Factors], dict[int, Floats]]:
        """The factors of the matrices, and the arrays that came whole."""
        factors, wholes, at = dict[int, _Factors](), dict[int, Floats](), 0
        for index, length in enumerate(self.sizes):
            if index in self.matrices:
                rows, columns = self.matrices[index]
                both = values[at : at + ranks[index] * (rows + columns)].reshape(ranks[index], rows + columns)
                factors[index] = (both[:, :rows], both[:, rows:])
                at += both.size
            else:
                wholes[index] = values[at : at + length]
                at += length
        return factors, wholes


def _ranks(note: Mapping[str, Any], places: _Places) -> dict[int, int]:
    """How many components of each matrix there are, as the note says.

    Raises:
        PayloadError: it cannot be so.
    """
    told = note.get("ranks")
    if not isinstance(told, list) or len(told) != len(places.matrices):
        raise PayloadError(f"its note does not give the ranks of {len(places.matrices)} matrices")
    return {
        index: count({"ranks": rank}, "ranks", min(shape))
        for rank, (index, shape) in zip(told, places.matrices.items(), strict=True)
    }


@dataclass(frozen=True)
class _Found:
    """Components of a matrix: `short` has a row of each for the shorter side, `long` for the longer one. That
    is None where `short` times the matrix makes it again: of all matrices it would be another model."""

    short: Floats
    long: Floats | None

    def first(self, rank: int) -> _Found:
        return _Found(self.short[:rank].copy(), None if self.long is None else self.long[:rank].copy())

    def write(self, wide: Floats, short: Floats, long: Floats) -> None:
        np.copyto(short, self.short)
        if self.long is None:
            np.matmul(self.short, wide, out=long)
        else:
            np.copyto(long, self.long)
        factors = _balance(short, long)
        short *= factors[0]
        long *= factors[1]


def _wide(vector: Array, shape: tuple[int, int]) -> Floats:
    """A matrix with the shorter side first."""
    matrix = vector.reshape(shape)
    return (matrix.T if shape[0] > shape[1] else matrix).astype(np.float32, copy=False)


def _components(wide: Floats, most: int, source: np.random.Generator) -> tuple[_Found, Floats]:
    """The `most` largest singular components of a matrix, in order, and what each carries.

    They come from the square matrix of the shorter side, which costs far less than a full
    decomposition and is as good for the large ones.
    """
    if most == len(wide):
        short = np.linalg.eigh(wide @ wide.T)[1][:, ::-1].T
    elif most * _MANY <= wide.shape[1]:
        short, long = _sketched(wide, _sketch(wide, most, source))
        return _Found(short, long), _energies(short, long)
    else:
        short = _sketched_in_place(wide, _sketch(wide, most, source))
    long = short @ wide
    del wide  # of half precision it is a copy
    return _Found(short, None), _energies(short, long)


def _sketch(wide: Floats, most: int, source: np.random.Generator) -> Floats:
    """`wide` times random signs: made sooner than normal numbers, and as good."""
    signs = source.integers(0, 2, (wide.shape[1], most), np.int8).astype(np.float32)
    signs *= np.float32(2)
    signs -= np.float32(1)
    return wide @ signs


def _sketched(wide: Floats, sketch: Floats) -> _Factors:
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


def _balance(left: Floats, right: Floats) -> _Factors:
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


def _worth_most(energies: Mapping[int, Floats], places: _Places, budget: int) -> dict[int, int]:
    """How many components of each matrix to send: those with the most energy a number, while they fit."""
    ranks, used = dict.fromkeys(energies, 0), 0
    if not energies:
        return ranks
    cost = {i: sum(shape) for i, shape in places.matrices.items()}
    worth = np.concatenate([np.divide(some, -cost[i], dtype=np.float64) for i, some in energies.items()])
    owners = np.repeat(np.array(list(energies), np.int32), [len(some) for some in energies.values()])
    numbers = np.concatenate([np.arange(len(some), dtype=np.int32) for some in energies.values()])
    order = np.argsort(worth, kind="stable")[: np.count_nonzero(worth < 0)]
    for index, number in zip(owners[order], numbers[order], strict=True):
        if number == ranks[index] and (used + cost[index] <= budget or not used):
            ranks[index] += 1
            used += cost[index]
    return ranks
