"""SCAFFOLD: Karimireddy et al. 2020, "SCAFFOLD: Stochastic Controlled Averaging for Federated Learning",
Algorithm 1 with option II.

    client k, from x and c:  y = x, then K steps  y -= eta * (g_k(y) - c_k + c)
                             c_k' = c_k - c + (x - y) / (K * eta)
    server, over S of N:     x += lr * sum_k n_k / n_S * (y_k - x)
                             c += sum_k n_k / n * (c_k' - c_k)

where n_S and n are sums of n_k over S and over all N. The paper's objective is the mean over clients,
n_k = 1; with the numbers of their examples it is the mean over these, as FedAvg's. Nobody tells the server n:
it is N times the mean n_k so far, and c is scaled as that changes, so that n * c is the sum of all n_k * c_k.

The algorithm sends y_k - x and c_k' - c_k. Here only y_k - x travels: by option II the other one is
-c - (y_k - x) / (K * eta), so the server sums the update once more with that scale. Half the bytes, and
client and server agree on c_k whatever a codec has lost. With momentum, K is `fednova.step_norm`.

A client that has lost its c_k begins with 0, but its old one is still in c, and nothing would ever take that
out: so c and all c_k begin afresh.

Does not know: where c_k is kept; `keep.ClientStore` does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from parslfl.learning import Cohort, Evidence, Guide, LocalWork, Personal, Visit
from parslfl.params import Params, clear, fold, subtract, trained, zeros_like
from parslfl.strategies.fedavg import apply, require_one_of, require_positive
from parslfl.strategies.fednova import inverse, step_norm

By = Literal["samples", "clients"]
#: Names in the state: the sum of n_k over all updates so far, and how many these were.
_WEIGHTS, _UPDATES = "n_k, summed", "updates, counted"


@dataclass(frozen=True)
class Scaffold:
    """Control variates against client drift; `lr` is the server's step.

    `by`: clients count by their `samples`, or all alike (`clients`), as in the paper. State: c, one model,
    sent to every client beside the global one, and two numbers (int64) that give the mean n_k; c_k, one model
    a client, at its site. The driver makes two sums, on one core.
    """

    shares: ClassVar[bool] = True

    by: By = "samples"
    lr: float = 1.0

    def __post_init__(self) -> None:
        require_one_of("by", self.by, By)
        require_positive("lr", self.lr)

    def local(self, work: LocalWork) -> LocalWork:
        return work

    def weight(self, evidence: Evidence) -> float:
        if not evidence.steps:
            return 0.0
        return float(evidence.examples) if self.by == "samples" else 1.0

    def scales(self, evidence: Evidence) -> tuple[float, ...]:
        return 1.0, _per_gradient(evidence.work, evidence.steps)

    def start(self, params: Params) -> Params:
        return {**zeros_like(trained(params)), **_nothing()}

    def step(self, state: Params, params: Params, mean: Params, cohort: Cohort) -> tuple[Params, Params]:
        weights = [weight for e in cohort.evidence if (weight := self.weight(e))]
        found = {_WEIGHTS: int(sum(weights)), _UPDATES: len(weights)}
        counted = {name: np.asarray(state[name] + number) for name, number in found.items()}
        before, after = (cohort.clients * _mean_weight(one) for one in (state, counted))
        (moved,) = cohort.extra
        if any(one.afresh for one in cohort.evidence):
            clear(moved)
            return {**moved, **_nothing()}, apply(params, mean, self.lr)
        for control in moved.values():
            np.multiply(control, control.dtype.type(-sum(weights) / after), out=control)
        fold(moved, trained(state), (before - sum(weights)) / after)
        return {**moved, **counted}, apply(params, mean, self.lr)

    def fresh(self, params: Params) -> Params:
        return zeros_like(trained(params))

    def guide(self, shared: Params, kept: Params) -> Guide:
        return Guide(correction=subtract(shared, kept))

    def keep(self, visit: Visit) -> tuple[Params, Personal | None]:
        if not visit.steps:
            return visit.kept, None
        control = subtract(visit.kept, visit.shared)
        fold(control, visit.delta, -_per_gradient(visit.work, visit.steps))
        return control, None


def _nothing() -> Params:
    return dict.fromkeys((_WEIGHTS, _UPDATES), np.array(0))


def _mean_weight(state: Params) -> float:
    return float(state[_WEIGHTS] / max(1, state[_UPDATES]))


def _per_gradient(work: LocalWork, steps: int) -> float:
    """1 / (K * eta): times an update, minus the mean gradient along its way."""
    return inverse(step_norm(work, steps) * work.lr)
