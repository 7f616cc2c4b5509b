"""q-FedAvg: Li et al. 2020, "Fair Resource Allocation in Federated Learning", Algorithm 2.

    D_k = L * (w_t - w_k),   L = 1 / (local learning rate)
    h_k = q * F_k^(q-1) * ||D_k||^2 + L * F_k^q
    w_{t+1} = w_t - sum_k F_k^q * D_k / sum_k h_k

F_k is the loss of the global model w_t on client k's samples: those it serves badly count more. The paper
draws client k with probability p_k = n_k / n; here each is as likely as any other, so that what is lowered is
its objective with all p_k alike, sum_k F_k^(q+1) / (q+1), whatever numbers of samples clients have.

Does not know: how the loss is measured; `tasks` scores the model before it trains.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from parslfl.learning import Cohort, Evidence, LocalWork
from parslfl.params import Params
from parslfl.strategies.fedavg import apply, require_no_less

#: A loss of exactly 0 has no negative power; nor may any power of a loss be less than a float64 holds.
_LEAST, _LEAST_POWER = 1e-10, 300
#: Sums of float32 hold no weights much less. Clients with less count alike in the step's direction; how far
#: it goes is reckoned from their losses as they are.
_LIGHTEST = 1e-36


@dataclass(frozen=True)
class QFedAvg:
    """`q` = 0 averages all clients alike; the greater, the more equal their losses, and the slower."""

    q: float = 1.0

    def __post_init__(self) -> None:
        require_no_less("q", self.q)

    def local(self, work: LocalWork) -> LocalWork:
        return replace(work, start_loss=True)

    def weight(self, evidence: Evidence) -> float:
        return max(self._share(evidence), _LIGHTEST) if evidence.samples else 0.0

    def start(self, params: Params) -> Params:
        return {}

    def step(self, state: Params, params: Params, mean: Params, cohort: Cohort) -> tuple[Params, Params]:
        seen = [e for e in cohort.evidence if e.samples]
        return state, apply(params, mean, sum(map(self._share, seen)) / sum(map(self._h, seen)))

    def _share(self, evidence: Evidence) -> float:
        return math.pow(self._loss(evidence), self.q) / evidence.work.lr

    def _h(self, evidence: Evidence) -> float:
        loss, lipschitz = self._loss(evidence), 1 / evidence.work.lr
        squared = (lipschitz * evidence.norm) ** 2
        return self.q * math.pow(loss, self.q - 1) * squared + lipschitz * math.pow(loss, self.q)

    def _loss(self, evidence: Evidence) -> float:
        return max(evidence.start_loss or 0.0, _LEAST, math.pow(10, -_LEAST_POWER / max(self.q, 1)))
