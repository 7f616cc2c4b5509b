"""The driver's memory of parameters: all the big arrays it ever holds, in one place.

Does not know: whose updates are in a sum, or how they came.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from parslfl.messages import Client
from parslfl.params import Params, trained


@dataclass
class Desk:
    """The driver's memory of parameters: all the big arrays it ever holds, in one place.

    `like`: the model the round started from. `state`: the strategy's. `lanes`: running sums, a
    set of arrays a lane, their memory kept from round to round; `extra` those for a strategy's further
    scales, by lane and scale. `held`: whole updates, for a strategy that needs them all.
    """

    like: Params = field(default_factory=dict)
    state: Params = field(default_factory=dict)
    lanes: dict[int, Params] = field(default_factory=dict)
    extra: dict[tuple[int, int], Params] = field(default_factory=dict)
    held: dict[Client, Params] = field(default_factory=dict)

    def clear(self, lane: int) -> None:
        """Set lane `lane` to zeros."""
        if lane not in self.lanes:
            self.lanes[lane] = self._empty()
        for sums in (self.lanes[lane], *(kept for (of, _), kept in self.extra.items() if of == lane)):
            for array in sums.values():
                array.fill(0)

    def sums(self, lane: int, scale: int) -> Params:
        """The sums of `lane` for the strategy's scale number `scale`."""
        if scale == 0:
            return self.lanes[lane]
        if (lane, scale) not in self.extra:
            made = self.extra[lane, scale] = self._empty()
            for array in made.values():
                array.fill(0)
        return self.extra[lane, scale]

    def _empty(self) -> Params:
        return {name: np.empty_like(a, order="C") for name, a in trained(self.like).items()}
