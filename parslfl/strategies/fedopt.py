"""Server optimisers: Reddi et al. 2021, "Adaptive Federated Optimization", Algorithms 1 and 2; FedAvgM
is Hsu et al. 2019, "Measuring the Effects of Non-Identical Data Distribution", section 4.

    D_t = sum_k (n_k / n) * (w_k - w_t)
    FedAvgM     m_t = beta * m_{t-1} + D_t                 w_{t+1} = w_t + lr * m_t
    the others  m_t = beta1 * m_{t-1} + (1 - beta1) * D_t  w_{t+1} = w_t + lr * m_t / (sqrt(v_t) + tau)
    FedAdagrad  v_t = v_{t-1} + D_t^2
    FedAdam     v_t = beta2 * v_{t-1} + (1 - beta2) * D_t^2
    FedYogi     v_t = v_{t-1} - (1 - beta2) * D_t^2 * sign(v_{t-1} - D_t^2)

with m_{-1} = 0 and v_{-1} = tau^2, without bias correction, as in the paper. All is in at least float32, and
only the step is cast to a model's half precision: float16 has no room for D_t^2 or for a v that decays.

Does not know: how clients train.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from parslfl.learning import Cohort, Evidence, LocalWork
from parslfl.params import Array, Params, blocks, wide
from parslfl.strategies.fedavg import apply, require_positive

Floats = npt.NDArray[np.floating]


@dataclass(frozen=True)
class FedAvgM:
    """Server momentum `beta`, step `lr`. State: one model."""

    beta: float = 0.9
    lr: float = 1.0

    def __post_init__(self) -> None:
        _below_one("beta", self.beta)
        require_positive("lr", self.lr)

    def local(self, work: LocalWork) -> LocalWork:
        return work

    def weight(self, evidence: Evidence) -> float:
        return float(evidence.samples)

    def start(self, params: Params) -> Params:
        return _filled(params, 0)

    def step(self, state: Params, params: Params, mean: Params, cohort: Cohort) -> tuple[Params, Params]:
        new = _room(state, cohort)
        for name, delta in mean.items():
            for m, next_m, into in zip(*map(blocks, (state[name], new[name], delta)), strict=True):
                np.multiply(m, next_m.dtype.type(self.beta), out=next_m)
                np.add(next_m, into, out=next_m)
                np.multiply(next_m, next_m.dtype.type(self.lr), out=into, casting="same_kind")
        return new, apply(params, mean, 1.0)


@dataclass(frozen=True)
class _Adaptive(ABC):
    """Algorithm 2. State: two models, m and v."""

    lr: float = 0.01
    beta1: float = 0.9
    tau: float = 0.001

    def __post_init__(self) -> None:
        _below_one("beta1", self.beta1)
        require_positive("tau", self.tau)
        require_positive("lr", self.lr)

    @abstractmethod
    def second(self, v: Floats, squares: Floats) -> Floats:
        """v_t from v_{t-1} and D_t^2, written over `squares`."""

    def local(self, work: LocalWork) -> LocalWork:
        return work

    def weight(self, evidence: Evidence) -> float:
        return float(evidence.samples)

    def start(self, params: Params) -> Params:
        first, second = _filled(params, 0), _filled(params, self.tau**2)
        return {f"m/{name}": m for name, m in first.items()} | {f"v/{name}": v for name, v in second.items()}

    def step(self, state: Params, params: Params, mean: Params, cohort: Cohort) -> tuple[Params, Params]:
        new = _room(state, cohort)
        for name, delta in mean.items():
            walk = (state[f"m/{name}"], state[f"v/{name}"], new[f"m/{name}"], new[f"v/{name}"], delta)
            for m, v, next_m, next_v, into in zip(*map(blocks, walk), strict=True):
                real = next_v.dtype.type
                d = into.astype(next_v.dtype, copy=False)
                np.multiply(d, d, out=next_v)
                next_v[:] = self.second(v, next_v)
                np.multiply(m, real(self.beta1), out=next_m)
                np.multiply(d, real(1 - self.beta1), out=d)
                np.add(next_m, d, out=next_m)
                np.add(np.sqrt(next_v, out=d), real(self.tau), out=d)
                np.divide(next_m, d, out=d)
                np.multiply(d, real(self.lr), out=into)
        return new, apply(params, mean, 1.0)


@dataclass(frozen=True)
class FedAdagrad(_Adaptive):
    """v grows without end. `beta1` is 0, as in the paper's experiments."""

    beta1: float = 0.0

    def second(self, v: Floats, squares: Floats) -> Floats:
        squares += v
        return squares


@dataclass(frozen=True)
class FedAdam(_Adaptive):
    """v forgets at the rate 1 - `beta2`."""

    beta2: float = 0.99

    def __post_init__(self) -> None:
        super().__post_init__()
        _below_one("beta2", self.beta2)

    def second(self, v: Floats, squares: Floats) -> Floats:
        squares *= squares.dtype.type(1 - self.beta2)
        squares += v * v.dtype.type(self.beta2)
        return squares


@dataclass(frozen=True)
class FedYogi(_Adaptive):
    """v moves towards the squares by at most (1 - `beta2`) of them."""

    beta2: float = 0.99

    def __post_init__(self) -> None:
        super().__post_init__()
        _below_one("beta2", self.beta2)

    def second(self, v: Floats, squares: Floats) -> Floats:
        towards = np.sign(v - squares)
        squares *= squares.dtype.type(1 - self.beta2)
        squares *= towards
        return np.subtract(v, squares, out=squares)


def _wide(array: Array) -> np.dtype[Any]:
    return np.result_type(array.dtype, np.float32)


def _room(state: Params, cohort: Cohort) -> Params:
    """Memory for the next state."""
    return cohort.room or {name: np.empty(array.shape, _wide(array)) for name, array in state.items()}


def _filled(params: Params, value: float) -> Params:
    """Arrays like the trained ones of `params`, in at least float32, full of `value`."""
    made = {name: np.zeros(array.shape, array.dtype) for name, array in wide(params).items()}
    if value:  # zeros that nobody writes to take no memory
        for array in made.values():
            array.fill(value)
    return made


def _below_one(name: str, value: float) -> None:
    if not 0 <= value < 1:
        raise ValueError(f"{name} must be at least 0 and below 1, got {value}")
