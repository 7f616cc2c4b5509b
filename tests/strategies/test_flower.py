"""Another implementation as oracle: Flower's strategies on the same random updates, to 1e-6.

Flower's wheel asks for another certifi, fastapi and protobuf than this environment has, so it does not
go into it: `make test` puts it into a folder of its own, which PARSLFL_FLOWER names. By hand:

    pip install --target FOLDER --no-deps -r tests/strategies/flower.txt

Skipped without. Where Flower departs from a paper, the test says how it is brought back.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from parslfl.learning import LocalWork
from parslfl.params import Params
from parslfl.protocols import Strategy
from parslfl.strategies.dynamic import Dynamic
from parslfl.strategies.fedavg import FedAvg
from parslfl.strategies.fedopt import FedAdagrad, FedAdam, FedAvgM, FedYogi
from parslfl.strategies.qfedavg import QFedAvg
from parslfl.strategies.robust import Krum, Median, TrimmedMean

Aggregated = Callable[..., tuple[Params, Params]]

FLOWER = os.environ.get("PARSLFL_FLOWER", "")
pytestmark = pytest.mark.skipif(
    not Path(FLOWER, "flwr").is_dir(),
    reason="Flower is not there: see this file's docstring (PARSLFL_FLOWER)",
)

CLIENTS, ROUNDS = 10, 3
SAMPLES = [10, 20, 30, 40, 50, 60, 70, 80, 90, 100]
LOSSES = [0.5 + 0.1 * i for i in range(CLIENTS)]
LR = 0.1
SHAPES = {"w": (7, 5), "b": (11,)}

#: Runs in a process of its own, so that Flower's packages meet none of ours.
CODE = """
import json, sys, warnings
warnings.simplefilter("ignore")
import numpy as np
from types import SimpleNamespace
from flwr.common import ndarrays_to_parameters, parameters_to_ndarrays
from flwr.server import strategy as flower
from flwr.server.strategy.aggregate import (
    aggregate, aggregate_krum, aggregate_median, aggregate_qffl, aggregate_trimmed_avg)

data = np.load(sys.argv[1])
asked = json.loads(sys.argv[2])
names = asked["names"]
start = [data[n].astype(np.float64) for n in names]
deltas = [[[data[f"{r}/{c}/{n}"].astype(np.float64) for n in names] for c in range(len(asked["samples"]))]
          for r in range(asked["rounds"])]

def results(params, round):
    return [([p + d for p, d in zip(params, delta)], n) for delta, n in zip(deltas[round], asked["samples"])]

def stateful(kind, **fields):
    made = getattr(flower, kind)(initial_parameters=ndarrays_to_parameters(start), **fields)
    params = start
    for round in range(asked["rounds"]):
        if kind == "FedAdam":  # Flower corrects the bias, the paper does not: take its factor out
            made.eta = fields["eta"] * (1 - 0.9 ** (round + 2)) / np.sqrt(1 - 0.99 ** (round + 2))
        fits = [(None, SimpleNamespace(parameters=ndarrays_to_parameters(w), num_examples=n, metrics={}))
                for w, n in results(params, round)]
        params = parameters_to_ndarrays(made.aggregate_fit(round + 1, fits, [])[0])
    return params

def once(function, **fields):
    params = start
    for round in range(asked["rounds"]):
        params = function(results(params, round), **fields)
    return params

def fair(q):
    params = start
    for round in range(asked["rounds"]):
        grads = [[-d / asked["lr"] for d in delta] for delta in deltas[round]]
        norms = [sum(float(np.square(g).sum()) for g in grad) for grad in grads]
        scaled = [[f ** q * g for g in grad] for f, grad in zip(asked["losses"], grads)]
        hs = [q * f ** (q - 1) * n + f ** q / asked["lr"] for f, n in zip(asked["losses"], norms)]
        params = aggregate_qffl(params, scaled, hs)
    return params

found = {
    "fedavg": once(aggregate),
    "median": once(aggregate_median),
    "trimmed": once(aggregate_trimmed_avg, proportiontocut=0.2),
    "krum": once(aggregate_krum, num_malicious=2, to_keep=0),
    "fedavgm": stateful("FedAvgM", server_momentum=0.9, server_learning_rate=0.5),
    "fedadagrad": stateful("FedAdagrad", eta=0.1, tau=0.01),
    "fedadam": stateful("FedAdam", eta=0.1, beta_1=0.9, beta_2=0.99, tau=0.01),
    "fedyogi": stateful("FedYogi", eta=0.1, beta_1=0.9, beta_2=0.99, tau=0.01),
    "qfedavg": fair(2.0),
}
alike = [1] * len(asked["samples"])
asked["samples"] = alike
found["multikrum"] = once(aggregate_krum, num_malicious=2, to_keep=5)
np.savez(sys.argv[3], **{f"{k}/{n}": a for k, v in found.items() for n, a in zip(names, v)})
"""


def random_params(random: np.random.Generator, scale: float) -> Params:
    return {name: (scale * random.normal(size=shape)).astype(np.float32) for name, shape in SHAPES.items()}


@pytest.fixture(scope="module")
def updates() -> tuple[Params, list[list[Params]]]:
    """A model, and every client's update of every round."""
    random = np.random.default_rng(7)
    return random_params(random, 1.0), [
        [random_params(random, 0.1) for _ in range(CLIENTS)] for _ in range(ROUNDS)
    ]


@pytest.fixture(scope="module")
def flower(updates: tuple[Params, list[list[Params]]]) -> Any:
    """Flower's model after the rounds, by strategy and array."""
    start, rounds = updates
    given = {
        f"{r}/{c}/{n}": a for r, row in enumerate(rounds) for c, d in enumerate(row) for n, a in d.items()
    }
    asked = {"names": list(SHAPES), "samples": SAMPLES, "losses": LOSSES, "lr": LR, "rounds": ROUNDS}
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder, "in.npz"), **start, **given)  # type: ignore[arg-type]
        command = [sys.executable, "-c", CODE, f"{folder}/in.npz", json.dumps(asked), f"{folder}/out.npz"]
        subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": FLOWER}, capture_output=True)
        return dict(np.load(Path(folder, "out.npz")))


def from_zero(state: Params) -> Params:
    """Flower begins with v = 0, the paper with tau^2."""
    return {name: np.zeros_like(array) for name, array in state.items()}


@pytest.mark.parametrize(
    ("name", "strategy"),
    [
        ("fedavg", FedAvg()),
        ("fedavg", Dynamic("size")),
        ("fedavgm", FedAvgM(beta=0.9, lr=0.5)),
        ("fedadagrad", FedAdagrad(lr=0.1, tau=0.01)),
        ("fedadam", FedAdam(lr=0.1, tau=0.01)),
        ("fedyogi", FedYogi(lr=0.1, tau=0.01)),
        ("qfedavg", QFedAvg(q=2.0)),
        ("median", Median()),
        ("trimmed", TrimmedMean(cut=0.2)),
        ("krum", Krum(hostile=2)),
        ("multikrum", Krum(hostile=2, keep=5)),
    ],
    ids=str,
)
def test_flower_has_the_same_model(
    aggregated: Aggregated,
    updates: tuple[Params, list[list[Params]]],
    flower: dict[str, np.ndarray],
    name: str,
    strategy: Strategy,
) -> None:
    params, rounds = updates
    state = from_zero(strategy.start(params))
    facts: dict[str, Sequence[float]] = {"samples": SAMPLES}
    if name == "qfedavg":
        facts["start_loss"] = LOSSES
    for deltas in rounds:
        state, params = aggregated(
            strategy, deltas, params=params, state=state, work=LocalWork(lr=LR), **facts
        )
    for array, found in params.items():
        np.testing.assert_allclose(found, flower[f"{name}/{array}"], rtol=0, atol=1e-6)
