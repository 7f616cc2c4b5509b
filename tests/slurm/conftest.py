"""A real Slurm with virtual nodes on this machine, and sites on it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import slurm_bed

from parslfl.experiment import Experiment
from parslfl.sites import Federation, Site
from parslfl_executors.local import Local
from parslfl_executors.slurm import Slurm

TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def slurm() -> Iterator[None]:
    """Slurm with four nodes of four CPUs, started for the session; skips where it cannot be."""
    with ExitStack() as stack:
        try:
            stack.enter_context(slurm_bed.cluster())
        except slurm_bed.NoSlurmError as error:
            error.end_test()
        yield


@pytest.fixture
def site(slurm: None, tmp_path: Path) -> Iterator[Callable[..., Site]]:
    """A site on the test bed: blocks of one worker. No job may be left after the test."""

    def make(name: str = "hpc", clients: int = 4, retries: int = 1, **changes: Any) -> Site:
        plain = {
            "walltime": "10m",
            "cores_per_node": 1,
            "max_blocks": 2,
            "address": "127.0.0.1",
            "poll": 1,
            # modules of the tests; and this checkout, wherever an editable install points
            "worker_init": f"export PYTHONPATH={TESTS / 'workers'}:{os.environ.get('PYTHONPATH', '')}",
            "parsl": {"heartbeat_threshold": 6},
        }
        return Site(
            name=name, clients=clients, retries=retries, executor=Slurm.model_validate({**plain, **changes})
        )

    yield make
    assert [job for job in slurm_bed.jobs() if str(tmp_path) in job.comment] == []


@pytest.fixture
def here() -> Site:
    """A local site of four clients and one worker."""
    return Site(
        name="here",
        clients=4,
        executor=Local(workers=1, worker_init=f"export PYTHONPATH={TESTS / 'workers'}:$PYTHONPATH"),
    )


@pytest.fixture
def experiment() -> Callable[..., Experiment]:
    """Digits, softmax, all clients, 2 rounds, unless said otherwise."""

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


@pytest.fixture
def federation() -> Callable[..., Federation]:
    return lambda *sites: Federation(name="test", sites=sites)
