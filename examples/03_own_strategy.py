"""Your own way to make the next global model: the four methods of `protocols.Strategy`.

    python examples/03_own_strategy.py

Server momentum (FedAvgM, Hsu et al. 2019) is FedAvg with a memory: the state goes into every
checkpoint, so a resumed run goes on with the momentum that it had.
"""

from dataclasses import dataclass

from parslfl.data.digits import Digits
from parslfl.data.partition import Classes
from parslfl.experiment import Experiment
from parslfl.learning import Cohort, Evidence, LocalWork
from parslfl.models.softmax import Softmax
from parslfl.orchestrator import rounds
from parslfl.params import Params, fold, trained, zeros_like
from parslfl.sites import load_federation


@dataclass(frozen=True)
class ServerMomentum:
    """v = beta * v + mean; w = w + v."""

    beta: float = 0.5

    def local(self, work: LocalWork) -> LocalWork:
        return work

    def weight(self, evidence: Evidence) -> float:
        return float(evidence.samples)

    def start(self, params: Params) -> Params:
        return zeros_like(trained(params))  # counters, as batch norm has them, are not averaged

    def step(self, state: Params, params: Params, mean: Params, cohort: Cohort) -> tuple[Params, Params]:
        fold(mean, state, self.beta)  # mean += beta * state, in place
        return mean, {**params, **{name: params[name] + moved for name, moved in mean.items()}}


federation = load_federation("local.yaml").with_clients(20)
experiment = Experiment(
    dataset=Digits(),
    partition=Classes(k=2),
    model=Softmax(),
    strategy=ServerMomentum(),
    rounds=5,
    per_round=10,
    epochs=2,
)

for report in rounds(federation, experiment):
    print(f"round {report.round + 1}: accuracy {report.accuracy:.3f}, {report.bytes_up / 1e6:.2f} MB up")
