"""The strategies that a spec can name.

Does not know: how any of them works.
"""

from parslfl.protocols import Strategy
from parslfl.strategies.fedavg import FedAvg
from parslfl.strategies.fedprox import FedProx

STRATEGIES: dict[str, type[Strategy]] = {"fedavg": FedAvg, "fedprox": FedProx}
