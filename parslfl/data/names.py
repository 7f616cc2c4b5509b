"""The names of data sets and partitions, as written after --dataset and --partition.

Does not know: how a name is parsed.
"""

from __future__ import annotations

from parslfl.data.cifar10 import Cifar10
from parslfl.data.digits import Digits
from parslfl.data.medmnist import MedMnist
from parslfl.data.partition import Classes, Dirichlet, Iid, Quantity
from parslfl.data.synthetic import Synthetic
from parslfl.protocols import Dataset, Partition

DATASETS: dict[str, type[Dataset]] = {
    "cifar10": Cifar10,
    "digits": Digits,
    "medmnist": MedMnist,
    "synthetic": Synthetic,
}

PARTITIONS: dict[str, type[Partition]] = {
    "iid": Iid,
    "classes": Classes,
    "dirichlet": Dirichlet,
    "quantity": Quantity,
}
