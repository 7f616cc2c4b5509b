"""How long a Slurm site waits: the clock alone, its numbers worked by hand."""

from __future__ import annotations

import pytest

from parslfl_executors.slurm_patience import Patience, stuck
from parslfl_executors.slurm_queue import Job

QUEUED, HELD = Job("7", "PENDING", "Priority"), Job("8", "PENDING", "JobHeldUser")
DAY = 86400.0


def test_a_queue_may_last_for_its_limit() -> None:
    clock = Patience(DAY)
    assert [clock.over([QUEUED], "", at) for at in (5.0, 600.0, 5.0 + DAY - 1)] == ["", "", ""]
    assert clock.over([QUEUED], "", 5.0 + DAY) == (
        "slurm job 7 PENDING (Priority): given up, for no job of this site ran for 86,400 s (pending_timeout)"
    )
    assert clock.over([QUEUED], "", 5.0 + DAY + 1) == ""  # another wait


def test_the_clock_begins_anew_once_something_runs_or_nothing_waits() -> None:
    clock = Patience(10.0)
    clock.over([QUEUED], "", 0.0)
    clock.rest()
    assert clock.over([QUEUED], "", 9.0) == ""
    assert clock.over([], "", 15.0) == ""
    assert clock.over([QUEUED], "", 20.0) == ""
    assert clock.over([QUEUED], "", 30.0) != ""


def test_what_no_waiting_ends_is_given_up_after_ten_minutes() -> None:
    clock = Patience(DAY)
    assert clock.over([HELD, QUEUED], "", 0.0) == ""
    assert clock.over([HELD, QUEUED], "", 700.0) == ""  # the other may start
    assert clock.over([HELD], "", 800.0) == ""
    assert clock.over([QUEUED], "", 1000.0) == ""  # released
    assert clock.over([HELD], "", 1100.0) == ""
    assert clock.over([HELD], "", 1699.0) == ""
    assert clock.over([HELD], "", 1700.0) == (
        "slurm job 8 PENDING (JobHeldUser): given up after 600 s, for no waiting ends this"
    )


def test_the_sentence_is_about_the_job_it_names() -> None:
    """The reason of the second is not known yet: the limit is the site's, and the first is held."""
    clock, both = Patience(30.0), [HELD, Job("9", "PENDING")]
    assert clock.over(both, "", 0.0) == ""
    assert clock.over(both, "", 30.0).endswith(
        "(JobHeldUser): given up after 30 s (pending_timeout), for no waiting ends this"
    )


def test_a_limit_below_ten_minutes_holds_for_both() -> None:
    clock = Patience(30.0)
    clock.over([Job("8", "PENDING")], "", 0.0)  # its reason is not known yet
    clock.over([HELD], "", 10.0)
    assert clock.over([HELD], "", 30.0).endswith(
        "given up after 30 s (pending_timeout), for no waiting ends this"
    )


def test_a_controller_that_stays_away_is_a_queue_that_never_starts() -> None:
    clock, said = Patience(60.0), "sbatch: Unable to contact slurm controller"
    assert clock.over([], said, 0.0) == ""
    assert clock.over([], said, 60.0).startswith(f"{said}: given up, for no job of this site ran for 60 s")


STUCK = """
    JobHeldUser JobHeldAdmin JobHoldMaxRequeue DependencyNeverSatisfied BadConstraints PartitionTimeLimit
    InvalidAccount InvalidQOS QOSMaxWallDurationPerJobLimit AssocMaxNodePerJobLimit QOSMaxGRESPerJob
    QOSMinGRES
"""
PASSING = """
    Priority Resources PartitionDown PartitionNodeLimit Dependency BeginTime Licenses Reservation
    AssocGrpCPUMinutesLimit QOSMaxJobsPerUserLimit ReqNodeNotAvail,UnavailableNodes:n1 NodeDown
"""


@pytest.mark.parametrize("reason", STUCK.split())
def test_reasons_that_stay(reason: str) -> None:
    assert stuck(Job("7", "PENDING", reason))
    assert not stuck(Job("7", "RUNNING", reason))


@pytest.mark.parametrize("reason", PASSING.split())
def test_reasons_that_may_pass(reason: str) -> None:
    assert not stuck(Job("7", "PENDING", reason))
