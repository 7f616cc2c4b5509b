"""Blocks that are lost while they train: the round goes on, and its report says why."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from looking import task_seeds, wait_until
from mischief import Mischief

from parslfl.errors import ParslflError
from parslfl.experiment import Experiment
from parslfl.orchestrator import rounds
from parslfl.reports import Event, RoundStarted
from parslfl.sites import Federation, Site
from parslfl_executors.slurm_queue import ask, cancel, label, labelled, read_jobs

Make = Callable[..., Experiment]
Sites = Callable[..., Site]
Federate = Callable[..., Federation]


def scontrol(*words: str) -> None:
    answer = ask(["scontrol", "update", *words])
    assert not answer.code, answer.err


def strike(run: Path) -> None:
    """End each site's block in another way; `overdue` is given three seconds instead of ten minutes."""
    listing = ask(["squeue", "-h", "-t", "R", "-o", "%i|%T|%r|%S|%L|%l|%N|%k"])
    names = ask(["squeue", "-h", "-t", "R", "-o", "%i %j"])
    jobs = {job.id: job for job in read_jobs(listing.out) if job.comment == label(run / "parsl")}
    by_site = {
        line.split(".")[1]: jobs[line.split()[0]]
        for line in names.out.splitlines()
        if line.split()[0] in jobs
    }
    soon = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(time.time() + 3))
    scontrol(f"jobid={by_site['overdue'].id}", f"EndTime={soon}")
    assert cancel([by_site["given-up"].id, by_site["tried-again"].id])
    scontrol(f"nodename={by_site['broken'].nodes}", "state=down", "reason=test")


@pytest.fixture
def mended() -> Iterator[None]:
    """The node that a test takes down comes back."""
    yield
    # one that has come back by itself refuses
    ask(["scontrol", "update", "nodename=node3", "state=resume"])


def test_each_loss_has_its_cause_and_costs_at_most_its_client(
    site: Sites, federation: Federate, experiment: Make, tmp_path: Path, mended: None
) -> None:
    tries = {"tried-again": 1, "given-up": 0, "overdue": 0, "broken": 0}
    nodes = iter(("node1", "node1", "node2", "node3"))  # the broken one shares its node with nobody
    sites = [
        site(n, 1, retries=r, max_blocks=1, scheduler_options=f"--nodelist={next(nodes)}")
        for n, r in tries.items()
    ]
    run = tmp_path / "run"

    def watch(event: Event) -> None:
        if isinstance(event, RoundStarted) and event.plan.round == 1:
            threading.Timer(1.5, strike, [run]).start()

    model = Mischief("sleep", task_seeds(1, 1, 2, 3), seconds=60)
    wanted = experiment(model=model, quorum=1)
    first, second = rounds(federation(*sites), wanted, run, watch=watch)
    assert len(first.updates) == 4
    assert [u.client.site for u in second.updates] == ["tried-again"]
    said = {f.client.site: (f.kind, f.reason.partition(";")[0]) for f in second.failures}
    assert {kind for kind, _ in said.values()} == {"lost"}
    assert said["given-up"][1].endswith("on node1 ended: CANCELLED (by scancel)")
    assert said["overdue"][1].endswith("on node2 ended: TIMEOUT (its walltime of 1:00 was reached)")
    assert said["broken"][1].startswith("slurm job ")
    assert "NODE_FAIL" in said["broken"][1]
    assert second.seconds < 50


def test_a_site_whose_blocks_never_start_is_given_up_with_the_cause(
    site: Sites, federation: Federate, experiment: Make, tmp_path: Path
) -> None:
    broken = site(worker_init="echo no module called conda >&2; exit 7")
    with pytest.raises(ParslflError) as caught:
        list(rounds(federation(broken), experiment(), tmp_path / "run"))
    said = str(caught.value)
    assert "the last 3 blocks ended before a worker connected" in said
    assert "FAILED (NonZeroExitCode); its script said: no module called conda" in said


def test_what_sbatch_refuses_is_said_in_its_words(
    site: Sites, federation: Federate, experiment: Make, tmp_path: Path
) -> None:
    with pytest.raises(ParslflError, match="Invalid partition name specified"):
        list(rounds(federation(site(partition="nope")), experiment(), tmp_path / "run"))


@pytest.fixture
def full(slurm: None) -> Iterator[str]:
    """A job that has all of node 4 to itself."""
    there = ["--nodelist=node4", "--exclusive", "-o", "/dev/null"]
    told = ask(["sbatch", "--parsable", *there, "--wrap=sleep 600"])
    assert not told.code, told.err
    yield told.out.strip()
    assert cancel([told.out.strip()])


def test_a_full_queue_is_given_up_for_one_round_and_asked_again_in_the_next(
    site: Sites, here: Site, federation: Federate, experiment: Make, tmp_path: Path, full: str
) -> None:
    """No deadline: `pending_timeout` ends the wait, once for all tries of a client, and leaves no job."""
    crowded = site(retries=3, pending_timeout=4, max_blocks=1, scheduler_options="--nodelist=node4")
    run, emptied, asked = tmp_path / "run", [], []

    def watch(event: Event) -> None:
        if isinstance(event, RoundStarted) and event.plan.round == 1:
            # Parsl may have been asking for one as the last client was given up: it waits as long by itself
            emptied.append(wait_until(lambda: labelled(label(run / "parsl")) == [], 15))
            said = ask(["squeue", "-h", "-t", "all", "-o", "%i|%T|%r|%S|%L|%l|%N|%k"]).out
            asked.extend(job.id for job in read_jobs(said) if job.comment == label(run / "parsl"))
            assert cancel([full])
            while full in ask(["squeue", "-h", "-o", "%i"]).out.split():  # its node is free only then
                time.sleep(0.1)

    wanted = experiment(rounds=2, per_round=8)
    first, second = rounds(federation(here, crowded), wanted, run, watch=watch)
    assert {u.client.site for u in first.updates} == {"here"}
    assert {(f.client.site, f.kind) for f in first.failures} == {("hpc", "lost")}
    (reason,) = {f.reason for f in first.failures}
    assert reason.startswith("NoWorkersError: slurm job ")
    assert reason.endswith(
        " PENDING (Resources): given up, for no job of this site ran for 4 s (pending_timeout)"
    )
    assert emptied == [True]
    # one wait for warm-up and training, or one each if the first is over before training begins; were each
    # of a client's four tries to wait, it would be four jobs at least
    assert 1 <= len(asked) <= 2
    assert (len(second.updates), second.failures) == (8, ())


def test_a_held_job_is_given_up_though_nobody_set_a_deadline(
    site: Sites, here: Site, federation: Federate, experiment: Make, tmp_path: Path
) -> None:
    held = site(pending_timeout=3, scheduler_options="--hold")
    (report,) = rounds(federation(here, held), experiment(rounds=1, per_round=8), tmp_path / "run")
    assert {u.client.site for u in report.updates} == {"here"}
    (reason,) = {f.reason for f in report.failures}
    assert reason.endswith(
        " PENDING (JobHeldUser): given up after 3 s (pending_timeout), for no waiting ends this"
    )


def test_a_queue_that_never_starts_is_the_reason_of_the_late(
    site: Sites, here: Site, federation: Federate, experiment: Make, tmp_path: Path
) -> None:
    held = site(max_blocks=1, scheduler_options="--hold")
    wanted = experiment(rounds=1, per_round=8, deadline=6)
    (report,) = rounds(federation(here, held), wanted, tmp_path / "run")
    assert {u.client.site for u in report.updates} == {"here"}
    (reason,) = {f.reason for f in report.failures}
    assert reason.startswith("not in when the deadline of 6 s passed; slurm job ")
    assert reason.endswith(" PENDING (JobHeldUser)")
