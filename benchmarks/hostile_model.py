"""A model some of whose clients lie: what they send is not what they have learnt.

In a module of its own, because workers import it by name.

Does not know: which client it trains, only the seed of its task.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from parslfl.learning import LocalWork, Samples, Scores, Stop, Trained
from parslfl.params import Params
from parslfl.protocols import Model


@dataclass(frozen=True)
class Hostile:
    """`model`; tasks whose seed is in `lies` hand in `factor` times their update."""

    model: Model
    factor: float
    lies: frozenset[int]

    def init(self, shape: tuple[int, ...], classes: int, seed: int) -> Params:
        return self.model.init(shape, classes, seed)

    def train(self, params: Params, samples: Samples, work: LocalWork, seed: int, stop: Stop) -> Trained:
        made = self.model.train(params, samples, work, seed, stop)
        if seed not in self.lies:
            return made
        lie = {n: params[n] + np.float32(self.factor) * (new - params[n]) for n, new in made.params.items()}
        return replace(made, params=lie)

    def evaluate(self, params: Params, samples: Samples, work: LocalWork) -> Scores:
        return self.model.evaluate(params, samples, work)
