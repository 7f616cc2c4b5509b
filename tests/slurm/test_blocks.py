"""The provider alone, with what Slurm would say put in its mouth."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from parsl.jobs.states import JobState, JobStatus

from parslfl.graph import submit
from parslfl.launch import kernel
from parslfl.sites import Site
from parslfl_executors import slurm_queue
from parslfl_executors.htex import NoWorkersError
from parslfl_executors.slurm import Slurm
from parslfl_executors.slurm_blocks import SlurmBlocks
from parslfl_executors.slurm_queue import Job

Says = Callable[[Job | None], JobStatus]


@pytest.fixture
def provider() -> SlurmBlocks:
    made = SlurmBlocks("parslfl:/run/parsl", 10, 60.0, walltime="00:10:00")
    status = JobStatus(JobState.PENDING)
    made.resources["7"] = {"status": status, "job_stdout_path": "", "job_stderr_path": ""}
    made._submitted["7"] = 0.0
    return made


@pytest.fixture
def says(provider: SlurmBlocks, monkeypatch: pytest.MonkeyPatch) -> Says:
    """Let squeue answer with one job, or not at all, and look."""

    def look(job: Job | None) -> JobStatus:
        monkeypatch.setattr(slurm_queue, "jobs", lambda *_: None if job is None else {job.id: job})
        (status,) = provider.status(["7"])
        assert isinstance(status, JobStatus)
        return status

    return look


def test_a_job_is_over_once_slurm_says_how_it_ended(provider: SlurmBlocks, says: Says) -> None:
    assert says(Job("7", "RUNNING", starts=100.0)).state == JobState.RUNNING
    assert provider.status_polling_interval == 10
    assert says(Job("7", "COMPLETING", starts=100.0)).state == JobState.RUNNING
    assert provider.status_polling_interval == 1
    ended = says(Job("7", "CANCELLED", starts=100.0))
    assert (ended.state, ended.message) == (JobState.CANCELLED, "slurm job 7 ended: CANCELLED (by scancel)")
    assert provider.status_polling_interval == 10


def test_a_job_that_takes_long_to_end_is_over_all_the_same(
    provider: SlurmBlocks, says: Says, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("parslfl_executors.slurm_blocks._ENDING", 0.0)
    ended = says(Job("7", "COMPLETING", "TimeLimit", limit="10:00"))
    assert ended.state == JobState.COMPLETED
    assert ended.message == "slurm job 7 ended: COMPLETING (its walltime of 10:00 was reached)"


def test_a_start_is_known_once_it_has_come(provider: SlurmBlocks, says: Says) -> None:
    says(Job("7", "PENDING", "Resources", starts=900.0))  # as the scheduler plans it
    assert provider.began("7") is None
    says(Job("7", "RUNNING", starts=901.0))
    assert provider.began("7") == 901.0


def test_an_unanswered_look_changes_nothing_and_is_told(provider: SlurmBlocks, says: Says) -> None:
    says(Job("7", "RUNNING"))
    assert says(None).state == JobState.RUNNING
    assert says(None).state == JobState.RUNNING
    (trouble,) = provider.troubles()
    assert trouble.why == "squeue did not answer (2 times within 0.0 s; asked again)"
    assert provider.troubles() == ()


def test_a_controller_that_is_away_all_the_time_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What sbatch says then is no refusal, so it is asked again and again: for `pending_timeout`."""
    for name in ("sbatch", "squeue", "scancel", "sinfo", "sacct"):
        script = tmp_path / name
        script.write_text("#!/bin/sh\necho Unable to contact slurm controller >&2\nexit 1\n")
        script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    executor = Slurm.model_validate({"pending_timeout": 3, "address": "127.0.0.1"})
    site = Site(name="hpc", clients=1, retries=1, executor=executor)
    with kernel([site], "driver", tmp_path / "parsl") as running:
        with pytest.raises(NoWorkersError) as caught:
            submit(running, "hpc", time.sleep, 0).result(90)
        assert str(caught.value).endswith(
            "sbatch: Unable to contact slurm controller: given up, for no job of this site ran for 3 s "
            "(pending_timeout)"
        )
