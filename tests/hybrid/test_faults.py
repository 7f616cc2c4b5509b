"""Six rounds on a real Slurm and a Kubernetes cluster at once, with one fault of each kind."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hybrid_bed
import pytest
import slurm_bed
from holding import Holding, let_go
from kube_bed import Bed
from looking import guarded_by, task_seeds, wait_until

from parslfl.cli import main
from parslfl.experiment import Experiment
from parslfl.messages import Client
from parslfl.orchestrator import rounds
from parslfl.reports import Event, Incident, RoundReport, RoundStarted
from parslfl.rundir import journal
from parslfl.sites import Federation, Site, load_federation
from parslfl_executors.local import Local
from parslfl_executors.slurm_queue import ask, cancel

WORKERS = Path(__file__).parents[1] / "workers"
#: The client that is at work in a round when its site is struck: 0 and 1 on Slurm, 2 and 3 in pods.
HELD = {1: 0, 2: 2, 3: 1, 4: 3}
SMALL = {"dataset": "digits", "model": "softmax", "partition": "iid", "per_round": 4, "epochs": 1}


def hybrid(bed: Bed) -> Federation:
    """site_configs/hybrid.yaml on the test beds, with two clients and one worker a site."""
    fewer: dict[str, Any] = {"max_blocks": 1, "poll": 1}
    changes = {f"sites.{site}.executor.{key}": n for site in ("hpc", "cloud") for key, n in fewer.items()}
    return load_federation("hybrid.yaml", {**hybrid_bed.settings(bed), **changes}).with_clients(4)


class Faults:
    """What is done to the clusters in each round, once the round's held client is at work."""

    def __init__(self, bed: Bed, run: Path, marks: Path) -> None:
        self.bed, self.logs, self.marks = bed, run / "parsl", marks
        self.acts: dict[int, Callable[[], object]] = {
            1: lambda: cancel([self.job()]),
            2: lambda: bed.levers().delete("default", bed.levers().names()[0]),
            3: self.expire,
            4: self.burst,
        }
        self.failed: list[BaseException] = []

    def watch(self, event: Event) -> None:
        if isinstance(event, RoundStarted) and event.plan.round in self.acts:
            threading.Thread(target=self.strike, args=[event.plan.round], daemon=True).start()

    def mark(self, round: int) -> Path:
        return self.marks / str(task_seeds(round, HELD[round])[0])

    def strike(self, round: int) -> None:
        try:
            assert wait_until(self.mark(round).exists, 60)
            self.acts[round]()
        except BaseException as error:  # noqa: BLE001 - a thread's mistake must fail the test
            self.failed.append(error)
            let_go(self.mark(round)).touch()

    def job(self) -> str:
        (job,) = slurm_bed.jobs(self.logs, "R")
        return job.id

    def expire(self) -> None:
        """The walltime ends a second from now; Slurm looks every 30 s."""
        soon = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(time.time() + 1))
        answer = ask(["scontrol", "update", f"jobid={self.job()}", f"EndTime={soon}"])
        assert not answer.code, answer.err

    def burst(self) -> None:
        kube = self.bed.levers()
        kube.fail(500, times=3, path="/pods")
        assert wait_until(lambda: not any(fault.times for fault in kube.faults), 20)
        let_go(self.mark(4)).touch()


@pytest.mark.timeout(240)  # Slurm looks for jobs that are overdue every 30 s only; the rest is about 60 s
def test_six_rounds_survive_a_fault_of_each_kind(
    bed: Bed, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, marks = tmp_path / "run", bed.shared or tmp_path
    faults = Faults(bed, run, marks)
    held = tuple(task_seeds(round, client)[0] for round, client in HELD.items())
    wanted = Experiment.model_validate({**SMALL, "model": Holding(held, str(marks)), "rounds": 6})
    reports = list(rounds(hybrid(bed), wanted, run, watch=faults.watch))
    assert faults.failed == []
    assert [(len(report.updates), report.failures) for report in reports] == [(4, ())] * 6
    tells_each_cause(reports)
    tells_where_the_time_went(reports)
    assert journal.reports(run) == reports
    monkeypatch.setenv("COLUMNS", "250")
    assert main(["report", str(run)]) == 0
    shown = capsys.readouterr().out
    for incident in (one for report in reports for one in report.incidents):
        assert incident.reason in shown
    assert reports[-1].model == undisturbed(tmp_path / "calm")
    assert hybrid_bed.emptied(bed, run / "parsl") == []
    assert wait_until(lambda: guarded_by(os.getpid()) == [], 10)


def tells_each_cause(reports: list[RoundReport]) -> None:
    by_round = {report.round: report.incidents for report in reports if report.incidents}
    assert sorted(by_round) == [1, 2, 3, 4]
    cancelled, deleted, expired, refused = (only(by_round[number]) for number in (1, 2, 3, 4))
    assert cancelled.clients == (Client(0, "hpc"),)
    assert cancelled.reason.endswith("ended: CANCELLED (by scancel)")
    assert deleted.clients == (Client(2, "cloud"),)
    assert "deleted (by hand, a drain or a preemption" in deleted.reason
    assert expired.clients == (Client(1, "hpc"),)
    assert "ended: TIMEOUT (its walltime of" in expired.reason
    assert (refused.site, refused.clients) == ("cloud", ())
    assert refused.reason.startswith("the API server: HTTP 500: injected (3 times within ")


def only(incidents: tuple[Incident, ...]) -> Incident:
    (one,) = incidents
    return one


def tells_where_the_time_went(reports: list[RoundReport]) -> None:
    for site, blocks in (("hpc", 3), ("cloud", 2)):
        times = [one for report in reports for one in report.sites if one.site == site]
        assert len(times) == 6
        assert sum(one.blocks for one in times) == blocks
        assert all(math.isfinite(one.queued) and 0 <= one.idle <= one.ready for one in times)
        assert all(one.training > 0 and one.transfer > 0 for one in times)
        assert sum(one.starting for one in times) > 0.5 * blocks


def undisturbed(run: Path) -> str:
    """The model that the same clients make where nothing happens."""
    executor = Local(workers=2, worker_init=f"export PYTHONPATH={WORKERS}")
    here = Federation(name="calm", sites=(Site(name="here", clients=4, executor=executor),))
    calm = Experiment.model_validate({**SMALL, "model": Holding((), ""), "rounds": 6, "eval_every": 0})
    return list(rounds(here, calm, run))[-1].model
