"""CIFAR-10 on 60 clients with two classes each: 20 of them train in every round.

    python workflows/cifar_round.py --site local.yaml

Each trains 5 epochs on its own images, federated averaging makes the next model, 10 times. Any
flag changes that; --help lists them all.
"""

import sys

from parslfl.cli import workflow

DEFAULTS = {
    "name": "cifar_round",
    "site": "local.yaml",  # 60 clients
    "dataset": "cifar10",  # --dataset auto: the embedded digits where CIFAR-10 is not found
    "partition": "classes:k=2",
    "model": "cnn",
    "strategy": "fedavg",
    "per_round": 20,
    "epochs": 5,
    "rounds": 10,
}

if __name__ == "__main__":
    sys.exit(workflow(DEFAULTS, about=__doc__))
