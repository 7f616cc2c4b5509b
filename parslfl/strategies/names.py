"""The strategies that a spec can name.

Does not know: how any of them works.
"""

from parslfl.protocols import Strategy
from parslfl.strategies.ditto import Ditto
from parslfl.strategies.dynamic import Dynamic
from parslfl.strategies.fedavg import FedAvg
from parslfl.strategies.fednova import FedNova
from parslfl.strategies.fedopt import FedAdagrad, FedAdam, FedAvgM, FedYogi
from parslfl.strategies.fedprox import FedProx
from parslfl.strategies.qfedavg import QFedAvg
from parslfl.strategies.robust import GeometricMedian, Krum, Median, MedianClip, NormClip, TrimmedMean
from parslfl.strategies.scaffold import Scaffold

STRATEGIES: dict[str, type[Strategy]] = {
    "fedavg": FedAvg,
    "fedprox": FedProx,
    "dynamic": Dynamic,
    "fedavgm": FedAvgM,
    "fedadagrad": FedAdagrad,
    "fedadam": FedAdam,
    "fedyogi": FedYogi,
    "fednova": FedNova,
    "scaffold": Scaffold,
    "qfedavg": QFedAvg,
    "ditto": Ditto,
    "median": Median,
    "trimmed": TrimmedMean,
    "krum": Krum,
    "geomedian": GeometricMedian,
    "clip": NormClip,
    "medianclip": MedianClip,
}
