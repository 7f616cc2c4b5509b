"""Your own PyTorch network: a frozen dataclass with one method, `build`.

    python examples/02_own_model.py

Workers cannot import a class that is defined in a script, so parslfl sends it to them by value.
Keep it in a module that they can import once it grows.
"""

from dataclasses import dataclass

from torch import nn

from parslfl.data.digits import Digits
from parslfl.data.partition import Classes
from parslfl.experiment import Experiment
from parslfl.models.torch_model import TorchModel
from parslfl.orchestrator import rounds
from parslfl.sites import load_federation
from parslfl.strategies.fedprox import FedProx


@dataclass(frozen=True)
class Perceptron(TorchModel):
    """One hidden layer."""

    hidden: int = 64

    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        pixels = shape[0] * shape[1] * shape[2]
        return nn.Sequential(
            nn.Flatten(), nn.Linear(pixels, self.hidden), nn.ReLU(), nn.Linear(self.hidden, classes)
        )


federation = load_federation("local.yaml").with_clients(20)
experiment = Experiment(
    dataset=Digits(),
    partition=Classes(k=3),
    model=Perceptron(hidden=32),
    strategy=FedProx(mu=0.01),
    rounds=5,
    per_round=10,
    epochs=2,
    lr=0.1,
)

for report in rounds(federation, experiment):
    print(f"round {report.round + 1}: accuracy {report.accuracy:.3f}, training loss {report.loss:.3f}")
