"""The guard ends what it guards, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys

from parslfl_executors import guard

GONE = ["4000000", "123.00"]


def test_a_dead_driver_ends_its_process() -> None:
    command = [sys.executable, "-m", "parslfl_executors.guard", *GONE, "own", "http.server", "0"]
    assert subprocess.run(command, capture_output=True, timeout=30).returncode == -9


def test_whoever_started_it_survives() -> None:
    """Even where the driver was gone before the guard had begun."""
    line = f"{sys.executable} -m parslfl_executors.guard {' '.join(GONE)} own http.server 0; echo survived"
    done = subprocess.run(["/bin/bash", "-c", line], capture_output=True, text=True, timeout=30)
    assert done.stdout == "survived\n"


def test_a_live_driver_is_told_from_a_later_process_of_its_number() -> None:
    assert guard.started(os.getpid()) == guard.started(os.getpid()) != ""
    assert guard.started(4_000_000) == ""
