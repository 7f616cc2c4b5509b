"""Blocks that come with the work and go one by one."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import slurm_bed
from holding import stay
from looking import wait_until

from parslfl.graph import submit
from parslfl.launch import kernel
from parslfl.sites import Site


def test_an_idle_job_ends_while_another_works(site: Callable[..., Site], tmp_path: Path) -> None:
    """The job with a task keeps it; what is asked for later gets a job again."""
    logs = tmp_path / "run/parsl"
    first, second, both = (str(tmp_path / name) for name in ("first", "second", "both"))
    with kernel([site(workers=1, max_idle=3, retries=0)], "driver", logs) as running:
        long, short = submit(running, "hpc", stay, first), submit(running, "hpc", stay, second)
        assert wait_until(lambda: len(slurm_bed.jobs(logs, "R")) == 2, 60)
        Path(second).touch()
        short.result(60)
        assert wait_until(lambda: len(slurm_bed.jobs(logs)) == 1, 60)
        time.sleep(2)
        assert len(slurm_bed.jobs(logs)) == 1
        assert not long.done()
        more = submit(running, "hpc", stay, both)
        assert wait_until(lambda: len(slurm_bed.jobs(logs, "R")) == 2, 60)
        for path in (first, both):
            Path(path).touch()
        for task in (long, more):
            task.result(60)
        executor = running.executors["hpc"]
        assert executor.ledger.take() == ()  # nothing was lost
    assert slurm_bed.jobs(logs) == []
