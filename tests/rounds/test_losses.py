"""Clients that fail, die, diverge or dawdle: each costs the round at most itself."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from looking import guarded_by, is_interchange, task_seeds, wait_until
from mischief import Mischief

from parslfl import orchestrator
from parslfl.errors import QuorumError, RunError
from parslfl.experiment import Experiment
from parslfl.learning import Cohort, Evidence
from parslfl.orchestrator import rounds
from parslfl.params import Params
from parslfl.reports import RoundReport
from parslfl.rundir import journal
from parslfl.sites import Federation
from parslfl.strategies.fedavg import FedAvg

Make = Callable[..., Experiment]


def one(federation: Federation, experiment: Experiment, path: Path) -> RoundReport:
    (report,) = rounds(federation, experiment, path / "run")
    return report


def test_a_worker_that_raises(federation: Federation, experiment: Make, tmp_path: Path) -> None:
    model = Mischief("raise", task_seeds(0, 2, 5))
    report = one(federation, experiment(model=model, rounds=1, per_round=8), tmp_path)
    assert [f.client.index for f in report.failures] == [2, 5]
    assert {(f.kind, f.reason) for f in report.failures} == {("error", "RuntimeError: the disk is on fire")}
    assert "mischief.py" in report.failures[0].detail
    assert len(report.updates) == 6


def test_a_worker_that_is_killed_costs_at_most_its_client(
    federation: Federation, experiment: Make, tmp_path: Path
) -> None:
    """SIGKILL once: another worker takes the client, and nothing is lost."""
    model = Mischief("die-once", task_seeds(0, 3), str(tmp_path / "mark"))
    report = one(federation, experiment(model=model, rounds=1, per_round=8), tmp_path)
    assert (tmp_path / "mark").exists()
    assert (len(report.updates), report.failures) == (8, ())


def test_a_client_that_kills_every_worker_is_given_up(
    federation: Federation, experiment: Make, tmp_path: Path
) -> None:
    model = Mischief("die", task_seeds(0, 3), str(tmp_path / "mark"))
    report = one(federation, experiment(model=model, rounds=1, per_round=8), tmp_path)
    assert [(f.client.index, f.kind) for f in report.failures] == [(3, "lost")]
    assert "WorkerLost" in report.failures[0].reason
    assert len(report.updates) == 7


def test_a_client_that_diverges_is_refused(federation: Federation, experiment: Make, tmp_path: Path) -> None:
    model = Mischief("nan", task_seeds(0, 1))
    report = one(federation, experiment(model=model, rounds=1, per_round=8), tmp_path)
    assert [(f.client.index, f.kind) for f in report.failures] == [(1, "refused")]
    assert "NaN or Inf" in report.failures[0].reason
    assert report.accuracy is not None


def test_a_round_closes_at_its_deadline_and_the_next_is_not_held_up(
    federation: Federation, experiment: Make, tmp_path: Path
) -> None:
    model = Mischief("deaf", task_seeds(0, 1), seconds=8)
    reports = list(
        rounds(federation, experiment(model=model, rounds=2, per_round=8, deadline=6), tmp_path / "run")
    )
    assert [f.reason for f in reports[0].failures] == ["not in when the deadline of 6 s passed"]
    assert 5.9 < reports[0].seconds < 9
    assert (len(reports[1].updates), reports[1].seconds < 5) == (8, True)


def test_a_deadline_takes_what_clients_have_done_by_then(
    federation: Federation, experiment: Make, tmp_path: Path
) -> None:
    """Four clients of 12 s each for two workers, which stop at nine tenths of 8 s: two have no time."""
    model = Mischief("dawdle", task_seeds(0, *range(8)), seconds=0.1)
    slow = experiment(model=model, rounds=1, epochs=20, deadline=8, quorum=1, strategy="fednova")
    report = one(federation, slow, tmp_path)
    assert [0 < u.steps < u.planned_steps == 120 for u in report.updates] == [True, True]
    assert {f.kind for f in report.failures} == {"late"}
    begun = {f"the deadline was too near {when}" for when in ("when this client began", "for a first step")}
    assert [f.reason in begun for f in report.failures] == [True, True]
    assert 7.2 < report.seconds < 8


def test_a_round_closes_with_its_fastest(federation: Federation, experiment: Make, tmp_path: Path) -> None:
    model = Mischief("sleep", task_seeds(0, 1), seconds=60)
    reports = list(
        rounds(federation, experiment(model=model, rounds=2, per_round=8, fastest=7), tmp_path / "run")
    )
    assert [f.reason for f in reports[0].failures] == ["not among the fastest 7"]
    assert all(r.seconds < 20 for r in reports)
    assert len(reports[1].updates) == 7


def test_below_quorum_the_run_stops_with_the_cause(
    federation: Federation, experiment: Make, tmp_path: Path
) -> None:
    seeds = task_seeds(1, *range(8))
    broken = experiment(model=Mischief("raise", seeds), rounds=2, per_round=8)
    running = rounds(federation, broken, tmp_path / "run")
    first = next(running)
    with pytest.raises(QuorumError, match="0 of 8 clients delivered, the quorum is 4") as caught:
        next(running)
    assert "8 x error: RuntimeError: the disk is on fire" in str(caught.value)
    assert first.round == 0
    assert [r.round for r in journal.reports(tmp_path / "run")] == [0]


def test_a_failed_evaluation_is_said_aloud_and_costs_nothing_else(
    federation: Federation, experiment: Make, tmp_path: Path
) -> None:
    reports = list(rounds(federation, experiment(model=Mischief("blind", ())), tmp_path / "run"))
    assert [r.accuracy for r in reports] == [None, None]
    assert {r.evaluation_error for r in reports} == {"RuntimeError: no glasses"}
    assert all(len(r.updates) == 4 for r in reports)


def test_a_worker_pool_that_is_killed_is_replaced(
    federation: Federation, experiment: Make, tmp_path: Path
) -> None:
    """SIGKILL to the pool with all its workers: its clients train again on a new one."""
    model = Mischief("sleep", task_seeds(1, *range(8)), seconds=1.0)
    running = rounds(federation, experiment(model=model, rounds=2, per_round=8), tmp_path / "run")
    next(running)
    (pool,) = [p for p in guarded_by(os.getpid()) if "process_worker_pool" in " ".join(p.cmdline())]
    os.killpg(os.getpgid(pool.pid), signal.SIGKILL)
    report = next(running)
    assert (len(report.updates), report.failures) == (8, ())
    assert report.seconds < 60


def test_workers_that_cannot_start_end_the_run_with_their_own_words(
    federation: Federation, experiment: Make, tmp_path: Path
) -> None:
    site = federation.sites[0]
    broken = site.executor.model_copy(update={"worker_init": "echo no such module: conda >&2; exit 3"})
    sites = (site.model_copy(update={"executor": broken}),)
    with pytest.raises(RunError, match="no such module: conda"):
        next(rounds(federation.model_copy(update={"sites": sites}), experiment(), tmp_path / "run"))


def test_an_interchange_that_is_killed_ends_the_run_instead_of_hanging_it(
    federation: Federation, experiment: Make, tmp_path: Path
) -> None:
    model = Mischief("sleep", task_seeds(1, *range(8)), seconds=30.0)
    running = rounds(federation, experiment(model=model, rounds=2, per_round=8), tmp_path / "run")
    next(running)
    (interchange,) = filter(is_interchange, guarded_by(os.getpid()))
    interchange.kill()
    with pytest.raises(QuorumError, match="here: Parsl's interchange process ended"):
        next(running)
    assert wait_until(lambda: guarded_by(os.getpid()) == [], 30)


def test_a_stopped_worker_is_ended_with_the_run(
    federation: Federation, experiment: Make, tmp_path: Path
) -> None:
    running = rounds(federation, experiment(rounds=50), tmp_path / "run")
    next(running)
    workers = [p for p in guarded_by(os.getpid()) if "spawn_main" in " ".join(p.cmdline())]
    workers[0].suspend()
    running.close()
    assert wait_until(lambda: guarded_by(os.getpid()) == [] and not workers[0].is_running(), 10)


@pytest.mark.parametrize(
    ("act", "why"),
    [
        ("missing", "Mischief.train returned other arrays than it was given"),
        ("reshape", "as float32\\[1, .*not float32\\["),
        ("integer", "as int64"),
    ],
)
def test_a_model_that_returns_something_else_is_told_so(
    federation: Federation, experiment: Make, tmp_path: Path, act: str, why: str
) -> None:
    model = Mischief(act, task_seeds(0, 1))
    report = one(federation, experiment(model=model, rounds=1, per_round=8), tmp_path)
    assert [(f.client.index, f.kind) for f in report.failures] == [(1, "error")]
    assert re.search(why, report.failures[0].reason)


def test_an_evaluation_that_hangs_does_not_hang_the_run(
    federation: Federation, experiment: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(orchestrator, "_EVALUATION", 1.0)
    model = Mischief("doze", (), seconds=60)
    asked = experiment(model=model, rounds=2, per_round=4, deadline=5)
    reports = list(rounds(federation, asked, tmp_path / "run"))
    assert reports[0].evaluation_error == "given up after 5 s"
    assert len(reports) == 2


def test_a_strategy_that_fails_is_named(federation: Federation, experiment: Make, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="round 1 could not be merged: Broken.weight failed: KeyError: 'norm'"):
        next(rounds(federation, experiment(strategy=Broken()), tmp_path / "run"))
    with pytest.raises(QuorumError, match=r"4 x refused: .* Divided.weight has no answer to: div"):
        next(rounds(federation, experiment(strategy=Divided()), tmp_path / "third"))
    with pytest.raises(RunError, match="Shapeless.step returned other arrays"):
        next(rounds(federation, experiment(strategy=Shapeless()), tmp_path / "other"))


@dataclass(frozen=True)
class Broken(FedAvg):
    def weight(self, evidence: Evidence) -> float:
        return float({}["norm"])


@dataclass(frozen=True)
class Divided(FedAvg):
    """What a client claims may be the cause, so it is its update that is refused."""

    def weight(self, evidence: Evidence) -> float:
        return 1 / (evidence.samples - evidence.samples)


@dataclass(frozen=True)
class Shapeless(FedAvg):
    def step(self, state: Params, params: Params, mean: Params, cohort: Cohort) -> tuple[Params, Params]:
        return state, {}


def test_a_path_that_parsl_would_split_is_refused_at_once(
    federation: Federation, experiment: Make, tmp_path: Path
) -> None:
    with pytest.raises(RunError, match="Parsl cannot start workers from .*: name a directory without ' '"):
        next(rounds(federation, experiment(), tmp_path / "a b"))
