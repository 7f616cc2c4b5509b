"""Federated averaging: McMahan et al. 2017, "Communication-Efficient Learning of Deep Networks
from Decentralized Data", Algorithm 1.

    w_{t+1} = w_t + lr * sum_k (n_k / n) * (w_k - w_t)

Does not know: who trained, or how updates arrive.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from parslfl.learning import Cohort, Evidence, LocalWork
from parslfl.params import Params


@dataclass(frozen=True)
class FedAvg:
    """Average the updates by their number of samples. `lr` scales the server's step."""

    lr: float = 1.0

    def __post_init__(self) -> None:
        require_positive("lr", self.lr)

    def local(self, work: LocalWork) -> LocalWork:
        return work

    def weight(self, evidence: Evidence) -> float:
        return float(evidence.samples)

    def start(self, params: Params) -> Params:
        return {}

    def step(self, state: Params, params: Params, mean: Params, cohort: Cohort) -> tuple[Params, Params]:
        return state, apply(params, mean, self.lr)


def apply(params: Params, mean: Params, lr: float) -> Params:
    """`params + lr * mean`, reusing `mean`'s memory; arrays without a mean are carried."""
    for name, array in mean.items():
        if lr != 1.0:
            np.multiply(array, array.dtype.type(lr), out=array)
        np.add(params[name], array, out=array)
    return {name: mean.get(name, array) for name, array in params.items()}


def require_positive(name: str, value: float) -> None:
    """Check that a strategy's field leads somewhere.

    Raises:
        ValueError: it is not above 0.
    """
    if not value > 0:
        raise ValueError(f"{name} must be positive, got {value}")
