"""A random part of an update, of which only the numbers are sent: the places follow from a seed.

Stich et al. 2018, "Sparsified SGD with Memory" (random-k). The places are drawn one from each of k
equal strata instead of all at once: as fair to every place, in order, and in time k.

Does not know: what becomes of the numbers that are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from parslfl.codecs.indices import Places
from parslfl.codecs.layout import count, fingerprint, flats, require_arrays, require_layout, stand_in
from parslfl.codecs.packing import Bytes
from parslfl.codecs.pieces import Blocks, chosen
from parslfl.codecs.sparse import Floats, Sparse
from parslfl.codecs.topk import kept, require_ratio, scattered
from parslfl.params import Array, Params, size, trained
from parslfl.seeding import words

#: Where more than one number in so many is sent, places are kept as steps from one stratum to the next.
_NARROW = 8
#: Places that are drawn at a time: the driver holds little memory.
_AT_ONCE = 1 << 14


@dataclass(frozen=True)
class RandomK:
    """Sends the `ratio` of all numbers, at least one. `unbiased` divides each by its chance to be
    sent, so that the mean of many updates is right without error feedback."""

    ratio: float = 0.1
    unbiased: bool = False
    rank: ClassVar[int] = 0

    def __post_init__(self) -> None:
        require_ratio(self.ratio)

    @property
    def biased(self) -> bool:
        return not self.unbiased

    def encode(self, delta: Params, seed: int = 0) -> tuple[Params, dict[str, Any]]:
        vectors = flats(delta)
        total = sum(vector.size for vector in vectors)
        strata = Strata(kept(self.ratio, total), total)
        values = np.empty(strata.number, np.float32)
        starts = np.cumsum([0, *(vector.size for vector in vectors)])
        for run, edges, steps in strata.pieces(seed):
            _pick(vectors, starts, edges[:-1] + steps, values[run])
            if self.unbiased:
                values[run] *= np.diff(edges).astype(np.float32)
        return {"values": values}, {"layout": fingerprint(delta), "seed": seed}

    def decode(self, arrays: Params, note: Mapping[str, Any], like: Params) -> Params:
        return scattered(self.open(arrays, note, like), like)

    def open(self, arrays: Params, note: Mapping[str, Any], like: Params) -> Sparse | Blocks:
        require_layout(note, like)
        wanted = self.declared(note, like)
        require_arrays(arrays, wanted)
        values, seed = arrays["values"], count(note, "seed", 2**63 - 1)
        strata = Strata(wanted["values"].size, size(trained(like)))
        if _are_few(strata.number, strata.total):
            return Sparse(strata.drawn(seed), values)
        near = Near(strata, strata.steps(seed))
        return chosen(near.within, values, like, near.steps)

    def declared(self, note: Mapping[str, Any], like: Params) -> Params:
        return {"values": stand_in("<f4", kept(self.ratio, size(trained(like))))}

    def hand(self, like: Params) -> int:
        """Eight bytes a place; of many, one."""
        total = size(trained(like))
        number = kept(self.ratio, total)
        return 8 * number if _are_few(number, total) else number

    def most(self, like: Params) -> Params:
        return self.declared({}, like)


def _are_few(number: int, total: int) -> bool:
    return number * _NARROW < total


@dataclass(frozen=True)
class Strata:
    """`total` places in `number` runs, one after the other, of one length or one more."""

    number: int
    total: int

    def edges(self, first: int, last: int) -> Places:
        """Where the runs from `first` to before `last` begin, and where the last of them ends."""
        edges = np.arange(first, last + 1, dtype=np.int64)
        edges *= self.total
        edges //= max(1, self.number)
        return edges

    def of(self, place: int) -> int:
        """In which run `place` lies."""
        return ((place + 1) * self.number - 1) // self.total

    def drawn(self, seed: int) -> Places:
        """One place from each run."""
        places = np.empty(self.number, np.int64)
        for run, edges, steps in self.pieces(seed):
            np.add(edges[:-1], steps, out=places[run])
        return places

    def steps(self, seed: int) -> Bytes:
        """How far from its run's beginning each of the same places is: no run may be longer than 256."""
        made = np.empty(self.number, np.uint8)
        for run, _, steps in self.pieces(seed):
            made[run] = steps
        return made

    def pieces(self, seed: int) -> Iterator[tuple[slice, Places, Places]]:
        """Some runs at a time, their edges, and how far the places in them are from their beginnings. Whole
        numbers only, from raw words: the same on every machine and in every version of numpy."""
        source = words(seed)
        for first in range(0, self.number, _AT_ONCE):
            run = slice(first, min(first + _AT_ONCE, self.number))
            edges = self.edges(run.start, run.stop)
            raw = source.random_raw(edges.size - 1)
            raw >>= np.uint64(11)  # 53 bits: no width leaves a bias that shows
            steps = raw.view(np.int64)
            steps %= np.diff(edges)  # at least 1: there are no more places than numbers
            yield run, edges, steps


@dataclass(frozen=True)
class Near:
    """One place of each of the `strata`, `steps` from its beginning: less memory than places take."""

    strata: Strata
    steps: Bytes

    def within(self, start: int, end: int) -> tuple[Places, int]:
        """The places from `start` on that are below `end`, less `start`, and how many lie before them."""
        first, last = self.strata.of(start), self.strata.of(end - 1) + 1
        places = self.strata.edges(first, last)[:-1]
        places -= start
        places += self.steps[first:last]
        cut, stop = np.searchsorted(places, [0, end - start]).tolist()
        return places[cut:stop], first + cut


def _pick(vectors: list[Array], starts: Places, places: Places, out: Floats) -> None:
    """Fill `out` with the numbers at `places`, which increase, of the `vectors`, which begin at `starts`."""
    first = int(np.searchsorted(starts, places[0], "right")) - 1
    last = int(np.searchsorted(starts, places[-1], "right"))
    cuts = np.searchsorted(places, starts[first : last + 1]).tolist()
    for index, begin, end in zip(range(first, last), cuts, cuts[1:], strict=False):
        out[begin:end] = vectors[index][places[begin:end] - starts[index]]
