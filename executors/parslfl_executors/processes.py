"""Parsl's LocalProvider with an end that can be relied on.

Does not know: what the processes run.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any

from parsl.providers import LocalProvider

from parslfl_executors.signals import Block, SiteSignals, counted

#: Seconds from the request to end to the order.
_GRACE = 2.0


class LocalProcesses(LocalProvider):
    """Blocks are process groups on this machine.

    They are ended without the `ps` program, which small machines lack, and for certain: a
    stopped process does not hear SIGTERM. Temporary files of a block go with it.
    """

    def __init__(self, *, mark: str = "parslfl-", **settings: Any) -> None:
        """`mark`: how the names of the blocks' temporary folders begin."""
        super().__init__(**settings)  # type: ignore[no-untyped-call]
        self._mark = mark

    def signals(self, managers: Sequence[Mapping[str, Any]]) -> SiteSignals:
        """How this machine stands; cores are idle by the last minute's load, this run's own included."""
        alive = [str(job) for job, entry in list(self.resources.items()) if not entry["status"].terminal]
        workers, free = counted(managers)
        cores = len(os.sched_getaffinity(0))
        blocks = tuple(Block(job, "running") for job in alive)
        return SiteSignals(
            time.time(), blocks, workers, free, None, max(0, round(cores - os.getloadavg()[0])), 1
        )

    def submit(self, command: str, tasks_per_node: int, job_name: str = "parslfl") -> object:
        """Start a block; Parsl's worker pool leaves its sockets in TMPDIR, so that is its own."""
        scratch = tempfile.mkdtemp(prefix=self._mark)
        own = f"export TMPDIR={shlex.quote(scratch)}\n{command}"
        job = super().submit(own, tasks_per_node, job_name)  # type: ignore[no-untyped-call]
        self.resources[job]["scratch"] = scratch
        return job

    def cancel(self, job_ids: Sequence[object]) -> list[bool]:
        """End each block's process group."""
        entries = [self.resources[job] for job in job_ids]
        groups = [group for entry in entries if (group := _group(entry["remote_pid"])) is not None]
        for entry in entries:
            entry["cancelled"] = True
        _signal(groups, signal.SIGTERM)
        until = time.monotonic() + _GRACE
        while _signal(groups, 0) and time.monotonic() < until:
            time.sleep(0.05)
        _signal(groups, signal.SIGKILL)
        for entry in entries:
            shutil.rmtree(entry["scratch"], ignore_errors=True)
        return [True for _ in job_ids]


def _group(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return None


def _signal(groups: Sequence[int], number: int) -> bool:
    """Send signal `number` to the groups; whether one of them still lives."""
    found = False
    for group in groups:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, number)
            found = True
    return found
