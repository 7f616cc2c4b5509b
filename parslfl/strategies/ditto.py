"""Ditto: Li et al. 2021, "Ditto: Fair and Robust Federated Learning Through Personalization", Algorithm 1.

    the global model w_t as in FedAvg; besides, each chosen client k keeps its own model v_k:
    v_k <- v_k - eta * (grad F_k(v_k) + lambda * (v_k - w_t)),  for as many epochs

v_k begins as the global model of the client's first round and never leaves its site. The model to use
there is v_k; the `held_out` share of the client's samples is trained by neither model and scores both.

Does not know: where v_k is kept; `keep.ClientStore` does.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from parslfl.learning import Cohort, Evidence, Guide, LocalWork, Personal, Visit
from parslfl.params import Params
from parslfl.strategies.fedavg import FedAvg, require_no_less, require_positive


@dataclass(frozen=True)
class Ditto:
    """`pull` is the paper's lambda (0: purely local models), `lr` the global model's step.

    Clients train twice a round. State: one model a client, at its site.
    """

    pull: float = 0.1
    held_out: float = 0.2
    lr: float = 1.0

    def __post_init__(self) -> None:
        require_positive("lr", self.lr)
        require_no_less("pull", self.pull)
        if not 0 <= self.held_out < 1:
            raise ValueError(f"held_out must be at least 0 and below 1, got {self.held_out}")

    def local(self, work: LocalWork) -> LocalWork:
        return replace(work, held_out=self.held_out)

    def weight(self, evidence: Evidence) -> float:
        return float(evidence.samples)

    def start(self, params: Params) -> Params:
        return {}

    def step(self, state: Params, params: Params, mean: Params, cohort: Cohort) -> tuple[Params, Params]:
        return FedAvg(self.lr).step(state, params, mean, cohort)

    def fresh(self, params: Params) -> Params:
        return params

    def guide(self, shared: Params, kept: Params) -> Guide:
        return Guide()

    def keep(self, visit: Visit) -> tuple[Params, Personal | None]:
        ours = visit.score(visit.start)
        own = visit.train(visit.kept, replace(visit.work, proximal=self.pull), Guide(anchor=visit.start))
        theirs = visit.score(own.params)
        if ours is None or theirs is None:
            return own.params, None
        return own.params, Personal(theirs.accuracy, ours.accuracy, theirs.samples)
