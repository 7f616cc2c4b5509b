"""FedProx: Li et al. 2020, "Federated Optimization in Heterogeneous Networks", Algorithm 2.

Clients minimise F_k(w) + mu/2 * ||w - w_t||^2, which keeps non-IID clients near the global
model; the server averages as in FedAvg.

Does not know: how the proximal term's gradient is computed; that is the model's work.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from parslfl.learning import Cohort, Evidence, LocalWork
from parslfl.params import Params
from parslfl.strategies.fedavg import FedAvg, require_no_less, require_positive


@dataclass(frozen=True)
class FedProx:
    """`mu` is the weight of the proximal term (0 is FedAvg), `lr` the server's step."""

    mu: float = 0.01
    lr: float = 1.0

    def __post_init__(self) -> None:
        require_positive("lr", self.lr)
        require_no_less("mu", self.mu)

    def local(self, work: LocalWork) -> LocalWork:
        return replace(work, proximal=self.mu)

    def weight(self, evidence: Evidence) -> float:
        return self._average.weight(evidence)

    def start(self, params: Params) -> Params:
        return self._average.start(params)

    def step(self, state: Params, params: Params, mean: Params, cohort: Cohort) -> tuple[Params, Params]:
        return self._average.step(state, params, mean, cohort)

    @property
    def _average(self) -> FedAvg:
        return FedAvg(self.lr)
