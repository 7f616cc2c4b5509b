"""Dynamic weights: Ghimire et al. 2025, "Federated Learning Framework for Scalable AI in Heterogeneous
HPC and Cloud Environments" (arXiv:2511.19479), section 4.4.

    w_{t+1} = w_t + lr * sum_k (p_k / sum_j p_j) * (w_k - w_t)

    by data size          p_k = n_k                               (FedAvg)
    by training loss      p_k = 1 / (1 + F_k)
    by gradient variance  p_k = 1 / (1 + V_k)
    by their product      p_k = n_k / ((1 + F_k) (1 + V_k))

F_k is the mean loss of the last local epoch, V_k the mean squared distance of the batches' gradients
from their mean. The three quantities are the paper's; that a client counts less the higher its loss or
variance, and that no factor exceeds 1, is this module's choice.

Does not know: how the variance is measured; that is the model's work.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from parslfl.learning import Cohort, Evidence, LocalWork
from parslfl.params import Params
from parslfl.strategies.fedavg import apply, require_one_of, require_positive

By = Literal["size", "loss", "variance", "product"]


@dataclass(frozen=True)
class Dynamic:
    """Average the updates with weights `by` one of the quantities; `lr` is the server's step.

    `variance` and `product` cost clients a second set of gradients in memory and a pass over it a step.
    """

    by: By = "product"
    lr: float = 1.0

    def __post_init__(self) -> None:
        require_one_of("by", self.by, By)
        require_positive("lr", self.lr)

    def local(self, work: LocalWork) -> LocalWork:
        return replace(work, variance=self.by in {"variance", "product"})

    def weight(self, evidence: Evidence) -> float:
        size = float(evidence.samples)
        loss = 1 / (1 + max(evidence.loss, 0.0))  # a loss below 0 counts as 0; NaN stays, and is refused
        spread = 1 / (1 + (evidence.variance or 0.0))
        factors = {"size": size, "loss": loss, "variance": spread, "product": size * loss * spread}
        return factors[self.by] if evidence.samples else 0.0

    def start(self, params: Params) -> Params:
        return {}

    def step(self, state: Params, params: Params, mean: Params, cohort: Cohort) -> tuple[Params, Params]:
        return state, apply(params, mean, self.lr)
