"""A real Slurm with virtual nodes on this machine, and sites on it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from parslfl.experiment import Experiment
from parslfl.sites import Federation, Site
from parslfl_executors import slurm_queue
from parslfl_executors.local import Local
from parslfl_executors.slurm import Slurm

TESTS = Path(__file__).parents[1]
BED = TESTS / "testbeds/slurm/slurm.sh"


def _impossible() -> str:
    """Why no Slurm can be started here; "" if one can."""
    if os.geteuid() != 0:
        return "the Slurm test bed needs root"
    if not shutil.which("apt-get"):
        return "the Slurm test bed needs apt-get (Debian or Ubuntu)"
    return ""


@pytest.fixture(scope="session")
def slurm() -> Iterator[None]:
    """Slurm with four nodes of four CPUs, started for the session; skips where it cannot be."""
    if why := _impossible():
        pytest.skip(why)
    running = slurm_queue.ask(["scontrol", "ping"]).code == 0  # started by hand: left running
    started = subprocess.run([BED, "up"], capture_output=True, text=True)
    if started.returncode:
        give_up = pytest.fail if os.environ.get("CI") else pytest.skip
        give_up(f"the Slurm test bed did not start: {started.stderr.strip()[-300:]}")
    yield
    if not running:
        subprocess.run([BED, "down"], check=True)


@pytest.fixture
def site(slurm: None) -> Iterator[Callable[..., Site]]:
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
    assert alive() == []


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


def alive() -> list[str]:
    """Jobs in the queue that are not on their way out."""
    answer = slurm_queue.ask(["squeue", "-h", "-o", "%i|%T|%r|%S|%L|%l|%N|%k"])
    return [job.id for job in slurm_queue.read_jobs(answer.out) if job.alive]
