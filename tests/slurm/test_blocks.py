"""The provider alone, with what Slurm would say put in its mouth."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from parsl.jobs.states import JobState, JobStatus

from parslfl_executors import slurm_queue
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
