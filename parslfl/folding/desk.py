"""The driver's memory of parameters: all the big arrays it ever holds, in one place.

Does not know: whose updates are in a sum, or how they came.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from parslfl import submodel
from parslfl.codecs.pieces import add_all
from parslfl.codecs.sparse import Gapped, mean_gapped
from parslfl.folding import scratch
from parslfl.messages import Client, Update
from parslfl.params import Params, average, clear, in_memory, is_trained, wide
from parslfl.protocols import Delta
from parslfl.submodel import Kept

#: Dtypes whose sums are of float32.
_NARROW = frozenset(map(np.dtype, (np.float16, np.float32)))


@dataclass(frozen=True)
class Waiting:
    """A good update that is yet to be added to its lane, with a weight for each of the strategy's scales.
    `memory`: bytes that it holds, beside mapped files. `patient`: it is sparse and in memory of its own, its
    bytes elsewhere forgotten: it may wait for other merges, and for the mean."""

    update: Update
    delta: Delta
    weights: tuple[float, ...]
    memory: float
    patient: bool


@dataclass
class Desk:
    """`like`: the model the round started from. `state`: the strategy's. `residual`: what a downlink codec
    has left out so far. `totals`: running sums, by lane and number of the strategy's scale, their memory kept
    from round to round unless it is needed; `stale` which of them are zeros, whatever is in their memory.
    `counts`: the weight that came in for each number of a lane, where clients train parts of the model, or of
    all lanes, in the first, once there is a mean. `waiting`: by lane, what is yet to be added. `held`: whole
    updates, for a strategy that needs them all. `folder`: of files for sums that would take too much memory;
    None for sums that do not.
    """

    like: Params = field(default_factory=dict)
    state: Params = field(default_factory=dict)
    residual: Params = field(default_factory=dict)
    totals: dict[tuple[int, int], Params] = field(default_factory=dict)
    stale: set[tuple[int, int]] = field(default_factory=set)
    counts: dict[int, Params] = field(default_factory=dict)
    waiting: dict[int, list[Waiting]] = field(default_factory=dict)
    held: dict[Client, Params] = field(default_factory=dict)
    folder: Path | None = None

    def clear(self, lane: int) -> None:
        """Lane `lane` begins with zeros. Its counts go: the next round may be of whole models only."""
        self.counts.pop(lane, None)
        self.waiting[lane] = []
        known = list(self.totals)  # in one step: the other lane's thread may add to them meanwhile
        self.stale |= {key for key in known if key[0] == lane}

    def sums(self, lane: int, scale: int) -> Params:
        """The sums of `lane` for the strategy's scale number `scale`, with all that waited."""
        self.settle(lane)
        found, afresh = self._current(lane, scale)
        if afresh:
            clear(found)
        return found

    def add(self, lane: int, scale: int, terms: Sequence[tuple[Delta, float]]) -> None:
        """Add each delta, times its weight, to the sums of `lane` for this scale."""
        found, afresh = self._current(lane, scale)
        add_all(found, terms, afresh)

    def settle(self, lane: int) -> None:
        """Add all that waits in `lane` to its sums, in order."""
        waiting = self.waiting.get(lane, [])
        for number in range(min((len(one.weights) for one in waiting), default=0)):
            self.add(lane, number, [(one.delta, one.weights[number]) for one in waiting])
        waiting.clear()

    def unsummed(self, lane: int) -> list[tuple[Gapped, float]] | None:
        """What waits in `lane`, perhaps nothing, with its weight, if `mean` can add it; None if not. It can
        add sparse ones that are for one scale."""
        waiting = self.waiting.get(lane, [])
        terms = [
            (one.delta, one.weights[0])
            for one in waiting
            if isinstance(one.delta, Gapped) and len(one.weights) == 1
        ]
        dtypes = {array.dtype for array in self.like.values() if is_trained(array)}
        return terms if len(terms) == len(waiting) and dtypes and dtypes <= _NARROW else None

    def has_sums(self, lane: int) -> bool:
        """Whether anything has been added to sums of `lane` in this round."""
        return any(key[0] == lane and key not in self.stale for key in list(self.totals))

    def count(self, lane: int, kept: Kept, weight: float) -> None:
        """Note that the part `kept` of the model got an update of this weight in `lane`."""
        if lane not in self.counts:
            self.counts[lane] = self._zeros()
        submodel.count(self.counts[lane], kept, weight)

    def mean(self, lanes: int, scale: int, weight: float) -> Params:
        """The lanes' sums for one scale by `weight`, in the first lane's memory; with `counts`, each
        number by the weight that came in for it, and 0 where none did.

        In the model's dtypes, in a dict of its own: a strategy may put other arrays into it.
        """
        unsummed = [terms for lane in range(lanes) if (terms := self.unsummed(lane)) is not None]
        if len(unsummed) == lanes <= 2 and any(unsummed) and not self.counts:
            return self.narrow(self._mean_with(unsummed, weight))  # of the only scale
        totals = [self.sums(lane, scale) for lane in range(lanes)]
        counts = [self.counts[lane] for lane in range(lanes) if lane in self.counts]
        if not counts:
            return self.narrow(average(totals, weight))
        total = dict(average(totals, 1.0))
        shares = average(counts, 1.0)
        self.counts = {0: shares}  # for the next scale, whole as they are now
        for name, array in total.items():
            np.divide(array, shares[name], out=array, where=shares[name] > 0)
        return self.narrow(total)

    def _mean_with(self, unsummed: Sequence[Sequence[tuple[Gapped, float]]], weight: float) -> Params:
        """The mean of one scale's sums and of what waits in the lanes."""
        keys = [(lane, 0) for lane in range(len(unsummed))]
        sums = [None if key in self.stale else self.totals.get(key) for key in keys]
        found, _ = self._current(0, 0)
        mean_gapped(sums, unsummed, weight, found)
        for lane, _ in keys:
            self.waiting[lane] = []
        return found

    def keep_first_lane(self) -> None:
        """Give the memory back that other lanes' sums and the counts have: all is in the first lane's."""
        self.totals = {key: sums for key, sums in self.totals.items() if key[0] == 0}
        self.counts.clear()

    def keep_in(self, folder: Path | None) -> None:
        """New sums lie in files on the disk of `folder`, those in memory are forgotten; None: in memory."""
        if folder is not None and folder != self.folder:
            self.totals = {key: sums for key, sums in self.totals.items() if not in_memory(sums)}
        self.folder = folder

    def narrow(self, found: Params) -> Params:
        """`found`, in a dict of its own, in the model's dtypes: sums may have wider ones (`params.wide`)."""
        return {name: array.astype(self.like[name].dtype, copy=False) for name, array in found.items()}

    def _current(self, lane: int, scale: int) -> tuple[Params, bool]:
        """Some sums, and whether zeros must first take the place of what is in their memory."""
        key = lane, scale
        if key not in self.totals:
            self.totals[key] = self._empty()
            self.stale.add(key)
        afresh = key in self.stale
        self.stale.discard(key)
        return self.totals[key], afresh

    def _empty(self) -> Params:
        return scratch.empty_like(wide(self.like), self.folder)

    def _zeros(self) -> Params:
        made = self._empty()
        clear(made)
        return made
