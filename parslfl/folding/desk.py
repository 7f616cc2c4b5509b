"""The driver's memory of parameters: all the big arrays it ever holds, in one place.

Does not know: whose updates are in a sum, or how they came.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from parslfl import submodel
from parslfl.messages import Client, Update
from parslfl.params import Joined, Params, average, trained
from parslfl.protocols import Delta
from parslfl.submodel import Kept


@dataclass(frozen=True)
class Waiting:
    """A good update that is yet to be added to its lane, with a weight for each of the strategy's scales.
    `memory`: bytes that it holds, beside mapped files."""

    update: Update
    delta: Delta
    weights: tuple[float, ...]
    memory: float


@dataclass
class Desk:
    """`like`: the model the round started from. `state`: the strategy's. `residual`: what a downlink codec
    has left out so far. `lanes`: running sums, a
    set of arrays a lane, their memory kept from round to round; `extra` those for a strategy's further
    scales, by lane and scale. `counts`: the weight that came in for each number of a lane, where clients
    train parts of the model. `waiting`: by lane, what is yet to be added. `held`: whole updates, for a
    strategy that needs them all.
    """

    like: Params = field(default_factory=dict)
    state: Params = field(default_factory=dict)
    residual: Params = field(default_factory=dict)
    lanes: dict[int, Params] = field(default_factory=dict)
    extra: dict[tuple[int, int], Params] = field(default_factory=dict)
    counts: dict[int, Params] = field(default_factory=dict)
    waiting: dict[int, list[Waiting]] = field(default_factory=dict)
    held: dict[Client, Params] = field(default_factory=dict)

    def clear(self, lane: int) -> None:
        """Set lane `lane` to zeros. Its counts go: the next round may be of whole models only."""
        self.counts.pop(lane, None)
        self.waiting[lane] = []
        if lane not in self.lanes:
            self.lanes[lane] = self._empty()
        for sums in self._of(lane):
            for array in sums.values():
                array.fill(0)

    def sums(self, lane: int, scale: int) -> Params:
        """The sums of `lane` for the strategy's scale number `scale`."""
        if scale == 0:
            return self.lanes[lane]
        if (lane, scale) not in self.extra:
            self.extra[lane, scale] = self._zeros()
        return self.extra[lane, scale]

    def count(self, lane: int, kept: Kept, weight: float) -> None:
        """Note that the part `kept` of the model got an update of this weight in `lane`."""
        if lane not in self.counts:
            self.counts[lane] = self._zeros()
        submodel.count(self.counts[lane], kept, weight)

    def mean(self, lanes: int, scale: int, weight: float) -> Params:
        """The lanes' sums for one scale by `weight`, in the first lane's memory; with `counts`, each
        number by the weight that came in for it, and 0 where none did.

        A dict of its own: a strategy may put other arrays into it.
        """
        totals = [self.sums(lane, scale) for lane in range(lanes)]
        counts = [self.counts[lane] for lane in range(lanes) if lane in self.counts]
        if not counts:
            return dict(average(totals, weight))
        total = dict(average(totals, 1.0))
        shares = average(counts, 1.0)
        for name, array in total.items():
            np.divide(array, shares[name], out=array, where=shares[name] > 0)
        return total

    def _of(self, lane: int) -> Iterator[Params]:
        yield self.lanes[lane]
        yield from (sums for (of, _), sums in self.extra.items() if of == lane)

    def _empty(self) -> Params:
        return Joined.empty_like(trained(self.like))

    def _zeros(self) -> Params:
        made = self._empty()
        for array in made.values():
            array.fill(0)
        return made
