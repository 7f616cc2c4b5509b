"""A Slurm cluster for tests: slurm.sh beside this file, started for a while.

Does not know: what is tested on it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest

from parslfl_executors import slurm_queue

_SCRIPT = Path(__file__).with_name("slurm.sh")
_FORMAT = "%i|%T|%r|%S|%L|%l|%N|%k"


class NoSlurmError(Exception):
    """No Slurm can be started here; the message says why, and the cure. `odd`: it should have been."""

    def __init__(self, message: str, odd: bool = False) -> None:
        self.odd = odd
        super().__init__(message)

    def end_test(self) -> NoReturn:
        """Skip the test; in CI, where Slurm must run, let it fail if it could have started."""
        (pytest.fail if self.odd and os.environ.get("CI") else pytest.skip)(str(self))


@contextmanager
def cluster() -> Iterator[None]:
    """Four nodes of four CPUs; stopped on leaving, unless somebody had started them before.

    Raises:
        NoSlurmError: it is not installed and cannot be, or does not start.
    """
    if why := _impossible():
        raise NoSlurmError(why)
    running = slurm_queue.ask(["scontrol", "ping"]).code == 0
    started = subprocess.run([_SCRIPT, "up"], check=False, capture_output=True, text=True)
    if started.returncode:
        said = " ".join(started.stderr.split())[-300:]
        cure = "it needs slurmctld, slurmd, slurm-client and munge, which apt-get installs where it can"
        raise NoSlurmError(f"the Slurm test bed did not start: {cure} ({said})", odd=True)
    try:
        yield
    finally:
        if not running:
            subprocess.run([_SCRIPT, "down"], check=True)


def jobs(logs: Path | None = None, states: str = "all") -> list[slurm_queue.Job]:
    """Jobs in the queue that are not on their way out; with `logs`, those of that run."""
    answer = slurm_queue.ask(["squeue", "-h", "-t", states, "-o", _FORMAT])
    found = [job for job in slurm_queue.read_jobs(answer.out) if job.alive]
    return [job for job in found if logs is None or job.comment == slurm_queue.label(logs)]


def _impossible() -> str:
    if os.geteuid() != 0:
        return "the Slurm test bed needs root, to start slurmctld, slurmd and munge"
    if not shutil.which("apt-get"):
        return "the Slurm test bed needs apt-get (Debian or Ubuntu)"
    return ""
