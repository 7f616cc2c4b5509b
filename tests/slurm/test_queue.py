"""What Slurm's commands print, recorded from 22.05 and made by hand, becomes values."""

from __future__ import annotations

import time

import pytest

from parslfl_executors import slurm_queue
from parslfl_executors.slurm_queue import (
    Job,
    Nodes,
    Partition,
    read_finished,
    read_jobs,
    read_nodes,
    read_partition,
)

SQUEUE = """\
CLUSTER: one
2|RUNNING|None|2026-11-21T12:59:14|0:59|1:00|node1|parslfl:/a b/c|d
3|PENDING|PartitionNodeLimit|N/A|1:00|1:00||(null)
4|FAILED|NonZeroExitCode|2026-11-21T12:59:19|1:55|2:00|node1|(null)
5|PENDING|Resources|2026-11-21T13:01:19|1-02:00:00|2-00:00:00||(null)
6|RUNNING|None|2026-11-21T13:01:19|UNLIMITED|UNLIMITED|node[2-3]|
"""


def at(clock: str) -> float:
    return time.mktime(time.strptime(f"2026-11-21 {clock}", "%Y-%m-%d %H:%M:%S"))


def test_jobs_are_read_from_squeue() -> None:
    assert read_jobs(SQUEUE) == [
        Job("2", "RUNNING", "", at("12:59:14"), 59.0, "1:00", "node1", "parslfl:/a b/c|d"),
        Job("3", "PENDING", "PartitionNodeLimit", None, 60.0, "1:00"),
        Job("4", "FAILED", "NonZeroExitCode", at("12:59:19"), 115.0, "2:00", "node1"),
        Job("5", "PENDING", "Resources", at("13:01:19"), 93600.0, "2-00:00:00"),
        Job("6", "RUNNING", "", at("13:01:19"), None, "UNLIMITED", "node[2-3]"),
    ]
    assert [job.alive for job in read_jobs(SQUEUE)] == [True, True, False, True, True]


def test_ended_jobs_are_read_from_sacct() -> None:
    text = "7|CANCELLED by 1001|node2|00:10:00\n8|NODE_FAIL|None assigned|UNLIMITED\n9||node1|1\n"
    cancelled, failed = read_finished(text)
    assert cancelled.why() == "slurm job 7 on node2 ended: CANCELLED (by 1001)"
    assert failed.why() == "slurm job 8 ended: NODE_FAIL (its node failed)"


def test_nodes_are_read_from_sinfo() -> None:
    text = "debug*|1|alloc|4/0/0/4\ndebug*|3|idle|0/12/0/12\n"
    assert read_nodes(text) == (Nodes("debug", "alloc", 1, 0), Nodes("debug", "idle", 3, 12))


def test_a_partition_is_read_from_sinfo() -> None:
    text = "debug*|up|infinite|10.0.0.1\ndebug*|up|infinite|10.0.0.2\nshort|down|1:30:00|10.0.0.1\n"
    assert read_partition(text, None) == Partition(True, None, ("10.0.0.1", "10.0.0.2"))
    assert read_partition(text, "short") == Partition(False, 5400.0, ("10.0.0.1",))
    assert read_partition(text, "short,debug") == Partition(True, None, ("10.0.0.1", "10.0.0.2"))
    assert read_partition(text, "gone") is None


WHYS = [
    (Job("1", "RUNNING", nodes="n1"), "slurm job 1 on n1 is RUNNING, but its workers do not answer"),
    (Job("1", "PENDING", "JobHeldUser"), "slurm job 1 PENDING (JobHeldUser)"),
    (
        Job("1", "TIMEOUT", "TimeLimit", limit="1:00"),
        "slurm job 1 ended: TIMEOUT (its walltime of 1:00 was reached)",
    ),
    (Job("1", "CANCELLED"), "slurm job 1 ended: CANCELLED (by scancel)"),
    (Job("1", "STRANGE"), "slurm job 1 ended: STRANGE"),
]


@pytest.mark.parametrize(("job", "why"), WHYS)
def test_a_job_says_what_became_of_it(job: Job, why: str) -> None:
    assert job.why() == why


def test_a_command_that_is_not_there_or_does_not_answer() -> None:
    assert slurm_queue.ask(["no-such-command"]).code == 127
    assert slurm_queue.ask(["sleep", "5"], timeout=0.1) == slurm_queue.Answer(
        124, "", "no answer within 0.1 s"
    )


def test_a_real_slurm_answers(slurm: None) -> None:
    answer = slurm_queue.ask(["sbatch", "--parsable", "--hold", "-t", "2", "--comment=x y", "--wrap", "true"])
    job = answer.out.strip()
    found = slurm_queue.jobs([job])
    assert found == {job: Job(job, "PENDING", "JobHeldUser", None, 120.0, "2:00", "", "x y")}
    assert slurm_queue.jobs(["999999"]) == {}
    assert slurm_queue.cancel_labelled("another") == []
    assert slurm_queue.cancel_labelled("x y") == [job]
    assert slurm_queue.cancel([job, "999999"])
    assert sum(nodes.count for nodes in slurm_queue.nodes("debug")) == 4
