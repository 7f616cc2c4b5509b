"""A model some of whose clients lie: what they send is not what they have learnt.

Does not know: which client it trains, only the seed of its task.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from parslfl.learning import LocalWork, Samples, Scores, Stop, Trained
from parslfl.models.softmax import Softmax
from parslfl.params import Params


@dataclass(frozen=True)
class Hostile:
    """Softmax; tasks whose seed is in `seeds` hand in `factor` times their update."""

    factor: float
    seeds: frozenset[int]

    def init(self, shape: tuple[int, ...], classes: int, seed: int) -> Params:
        return Softmax().init(shape, classes, seed)

    def train(self, params: Params, samples: Samples, work: LocalWork, seed: int, stop: Stop) -> Trained:
        made = Softmax().train(params, samples, work, seed, stop)
        if seed not in self.seeds:
            return made
        lie = {n: params[n] + np.float32(self.factor) * (new - params[n]) for n, new in made.params.items()}
        return replace(made, params=lie)

    def evaluate(self, params: Params, samples: Samples, work: LocalWork) -> Scores:
        return Softmax().evaluate(params, samples, work)
