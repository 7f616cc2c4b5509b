"""Matrices as the few products of two vectors that carry most of them: singular components.

What a client learns in a round changes a layer along few directions. Konečný et al. 2016, "Federated
Learning: Strategies for Improving Communication Efficiency", section 2 (low rank updates); Wang et al. 2018,
"ATOMO", section 3 (which components are worth their bytes); Vogels et al. 2019, "PowerSGD" (with error
feedback).

Does not know: layers; an array is a matrix of its first dimension by all others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from parslfl.codecs.components import Factors, Found, components, turned
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
        found, energies = dict[int, Found](), dict[int, Floats]()
        for index, shape in places.matrices.items():
            most, source = self._widest(shape), generator(seed, "sketch", index)
            found[index], energies[index] = components(turned(vectors[index], shape), most, source)
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
            found.pop(index).write(turned(vectors[index], places.matrices[index]), *into)
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

    def split(self, values: Floats, ranks: Mapping[int, int]) -> tuple[dict[int, Factors], dict[int, Floats]]:
        """The factors of the matrices, and the arrays that came whole."""
        factors, wholes, at = dict[int, Factors](), dict[int, Floats](), 0
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
