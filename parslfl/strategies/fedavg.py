"""Federated averaging: McMahan et al. 2017, "Communication-Efficient Learning of Deep Networks
from Decentralized Data", Algorithm 1.

    w_{t+1} = w_t + lr * sum_k (n_k / n) * (w_k - w_t)

Does not know: who trained, or how updates arrive.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import get_args

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
        ValueError: it is not above 0, or not finite.
    """
    if not 0 < value < math.inf:
        raise ValueError(f"{name} must be positive, got {value}")


def require_one_of(name: str, value: str, known: object) -> None:
    """Check a field of the type `known`, a `Literal`.

    Raises:
        ValueError: it is none of its values.
    """
    allowed = get_args(known)
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")


def require_no_less(name: str, value: float, least: float = 0) -> None:
    """Check a field that may be `least`, and more.

    Raises:
        ValueError: it is less, or not finite.
    """
    if not least <= value < math.inf:
        raise ValueError(f"{name} must be at least {least}, got {value}")
