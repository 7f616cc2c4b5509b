"""Federated learning on this machine in a dozen lines, without any download.

python examples/01_quickstart.py
"""

from parslfl.data.digits import Digits
from parslfl.data.partition import Dirichlet
from parslfl.experiment import Experiment
from parslfl.models.softmax import Softmax
from parslfl.orchestrator import rounds
from parslfl.sites import load_federation

federation = load_federation("local.yaml").with_clients(20)
experiment = Experiment(
    dataset=Digits(), partition=Dirichlet(alpha=0.3), model=Softmax(), rounds=5, per_round=10, epochs=2
)

for report in rounds(federation, experiment):
    print(f"round {report.round + 1}: accuracy {report.accuracy:.3f}, {len(report.updates)} clients")
