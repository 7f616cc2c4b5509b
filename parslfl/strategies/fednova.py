"""FedNova: Wang et al. 2020, "Tackling the Objective Inconsistency Problem in Heterogeneous Federated
Optimization", Algorithm 1 and section 4.

    d_k = (w_k - w_t) / ||a_k||_1,   tau = sum_k p_k * ||a_k||_1,   p_k = n_k / n
    w_{t+1} = w_t + lr * tau * sum_k p_k * d_k

||a_k||_1 says how far client k's steps go: their number for plain gradient descent.

Does not know: how many steps anybody did, until the update comes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from parslfl.learning import Cohort, Evidence, LocalWork
from parslfl.params import Params
from parslfl.strategies.fedavg import apply, require_positive


@dataclass(frozen=True)
class FedNova:
    """Average by samples what each client did per step; `lr` is the server's step.

    Where clients do different numbers of steps, FedAvg minimises another objective than theirs.
    """

    lr: float = 1.0

    def __post_init__(self) -> None:
        require_positive("lr", self.lr)

    def local(self, work: LocalWork) -> LocalWork:
        return work

    def weight(self, evidence: Evidence) -> float:
        return float(evidence.examples)

    def scales(self, evidence: Evidence) -> tuple[float, ...]:
        return (inverse(step_norm(evidence.work, evidence.steps)),)

    def start(self, params: Params) -> Params:
        return {}

    def step(self, state: Params, params: Params, mean: Params, cohort: Cohort) -> tuple[Params, Params]:
        total = sum(e.examples for e in cohort.evidence)
        tau = sum(e.examples / total * step_norm(e.work, e.steps) for e in cohort.evidence)
        return state, apply(params, mean, self.lr * tau)


def step_norm(work: LocalWork, steps: int) -> float:
    """||a||_1 of `steps` local steps: `w_start - w_end = lr * ||a||_1 * (a mean of the gradients)`.

    With momentum rho, learning rate eta and proximal term mu, after a step whose gradient is 1 the
    distance d gone and the velocity v are (section 4, for both at once)

        v' = rho * v + 1 - eta * mu * d,   d' = d + v'

    from d = v = 0: a linear map, so that any number of steps takes a few products of matrices.
    """
    rho, pull = work.momentum, work.lr * work.proximal
    once = np.array([[1 - pull, rho, 1], [-pull, rho, 1], [0, 0, 1]], np.float64)
    return float(np.linalg.matrix_power(once, steps)[0, 2])


def inverse(norm: float) -> float:
    """1 / norm; 0 for an update without a step, which is zero itself."""
    return 1 / norm if norm else 0.0
