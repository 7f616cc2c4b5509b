"""What tests of whole runs look at: seeds of tasks, and processes.

Does not know: any particular run.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import psutil

from parslfl.seeding import derive


def task_seeds(round: int, *clients: int, seed: int = 0) -> tuple[int, ...]:
    """The seeds by which `Mischief` knows the tasks of `clients`."""
    return tuple(derive(seed, "train", round, client) for client in clients)


def guarded_by(pid: int) -> list[psutil.Process]:
    """Live processes that promised to end with process `pid`, and their children."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        words = process.info["cmdline"] or []
        if "parslfl_executors.guard" in words and words[words.index("parslfl_executors.guard") + 1] == str(
            pid
        ):
            found += [process, *process.children(recursive=True)]
    return [p for p in found if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


def wait_until(true: Callable[[], bool], seconds: float) -> bool:
    """Whether `true` became so within `seconds`."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if true():
            return True
        time.sleep(0.1)
    return true()
