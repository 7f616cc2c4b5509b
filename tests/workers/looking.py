"""What tests of whole runs look at: seeds of tasks, and processes.

Does not know: any particular run.
"""

from __future__ import annotations

import sys
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
    for process in psutil.process_iter(["cmdline", "ppid"]):
        words = process.info["cmdline"] or []
        guards = "parslfl_executors.guard" in words and str(pid) in words
        if guards or (process.info["ppid"] == pid and is_interchange(process)):
            found += [process, *process.children(recursive=True)]
    return [p for p in {p.pid: p for p in found}.values() if alive(p)]


def alive(process: psutil.Process) -> bool:
    """Whether it runs; a zombie is only waiting for its parent to look."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def no_rank_left() -> bool:
    """Whether no rank of an MPI job of this environment's Python runs."""
    lines = (p.info["cmdline"] or [] for p in psutil.process_iter(["cmdline"]) if alive(p))
    return not any("parslfl.mpi.ranks" in line and sys.executable in line for line in lines)


def is_interchange(process: psutil.Process) -> bool:
    """Parsl's interchange gives itself a title in place of its command line."""
    line = " ".join(process.cmdline())
    return line.startswith("parsl: HTEX interchange") or "high_throughput.interchange" in line


def wait_until(true: Callable[[], bool], seconds: float) -> bool:
    """Whether `true` became so within `seconds`."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if true():
            return True
        time.sleep(0.1)
    return true()
