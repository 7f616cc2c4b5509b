"""Real runs on real HighThroughputExecutor workers, with small data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from parslfl.experiment import Experiment
from parslfl.sites import Federation, Site
from parslfl_executors.local import Local

WORKERS = Path(__file__).parents[1] / "workers"
CLIENTS = 8


@pytest.fixture(scope="session")
def federation() -> Federation:
    """One local site: 8 clients, 2 workers, which can import what is in tests/workers."""
    executor = Local(workers=2, worker_init=f"export PYTHONPATH={WORKERS}")
    return Federation(name="test", sites=(Site(name="here", clients=CLIENTS, executor=executor),))


@pytest.fixture
def experiment() -> Callable[..., Experiment]:
    """Digits, softmax, 4 of 8 clients a round, 2 rounds, unless said otherwise."""

    def make(**changes: object) -> Experiment:
        plain = {
            "dataset": "digits",
            "model": "softmax",
            "partition": "iid",
            "rounds": 2,
            "per_round": 4,
            "epochs": 1,
        }
        return Experiment.model_validate({**plain, **changes})

    return make
