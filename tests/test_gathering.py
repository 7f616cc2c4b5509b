"""When a site is asked for its sum, and what stands in for one that does not come."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import pytest

from parslfl import gathering, sites
from parslfl.codecs.raw import Raw
from parslfl.data.partition import Iid
from parslfl.data.synthetic import Synthetic
from parslfl.folding.merging import Merged
from parslfl.folding.partials import Partial
from parslfl.gathering import Gathering, ranks_tasks
from parslfl.learning import Evidence, LocalWork
from parslfl.messages import (
    Assignment,
    Client,
    Failure,
    Outcome,
    Ref,
    RoundPlan,
    Source,
    TrainTask,
    Update,
)
from parslfl.models.softmax import Softmax
from parslfl.strategies.fedavg import FedAvg
from parslfl.transport.file import File
from parslfl_executors.mpi import Mpi

CLIENTS = [Client(i, "far") for i in range(2)]
UPDATES = [Update(c, 4, Ref(1, ""), 1, 1, 1, 2.0, 1.0, 12) for c in CLIENTS]
SEEN = tuple(Evidence(1, 1, LocalWork(), 1.0) for _ in UPDATES)
SUM = Partial("far", 4, (Ref(9, "", "sum"),), Merged(2.0, tuple(UPDATES), (), SEEN))


class Site:
    """Answers when the test says so; notes what it is told."""

    def __init__(self, bounded: bool = False, refuses: bool = False) -> None:
        self.asked: list[Sequence[Outcome]] = []
        self.answer: Future[object] = Future()
        self.done: list[Update] = []
        self.surplus: list[Partial] = []
        self.refuses = refuses
        self.settled: list[Future[Outcome]] = [Future(), Future()]
        self.gathering = Gathering(
            "far",
            4,
            ask=self.ask,
            why=str,
            done=self.done.append,
            surplus=self.surplus.append,
            bounded=bounded,
        )
        self.gathering.watch(self.settled)

    def ask(self, outcomes: Sequence[Outcome]) -> Future[object]:
        if self.refuses:
            raise RuntimeError("the executor has failed")
        self.asked.append(outcomes)
        return self.answer

    def settle(self, *outcomes: Outcome) -> None:
        """In reverse: the order of arrival must not matter."""
        for future, outcome in reversed(list(zip(self.settled, outcomes, strict=True))):
            future.set_result(outcome)

    def landed(self) -> Partial:
        return self.gathering.landed.result(timeout=5)


def test_a_site_is_asked_once_all_have_settled_in_cohort_order() -> None:
    site = Site()
    site.settled[1].set_result(UPDATES[1])
    assert site.asked == []
    site.settled[0].set_result(UPDATES[0])
    assert site.asked == [UPDATES]
    site.answer.set_result(SUM)
    assert site.landed().refs == SUM.refs
    assert site.done == UPDATES


def test_a_site_whose_clients_all_failed_is_not_asked() -> None:
    site = Site()
    site.settle(*(Failure(c, 4, "late", "slow") for c in CLIENTS))
    assert site.asked == []
    assert [f.kind for f in site.landed().merged.failures] == ["late", "late"]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (RuntimeError("its block is gone"), "its site's merge was lost: its block is gone"),
        ("yes", "its site's merge failed: the worker answered for another task"),
    ],
)
def test_a_sum_that_does_not_come_costs_the_site_s_updates(answer: object, said: str) -> None:
    site = Site()
    site.settle(*UPDATES)
    if isinstance(answer, Exception):
        site.answer.set_exception(answer)
    else:
        site.answer.set_result(answer)
    assert [f.reason for f in site.landed().merged.failures] == [said, said]
    assert site.done == UPDATES


def test_a_site_that_cannot_be_asked_costs_its_updates() -> None:
    site = Site(refuses=True)
    site.settle(*UPDATES)
    assert "could not start: the executor has failed" in site.landed().merged.failures[0].reason


def test_with_a_deadline_a_sum_is_waited_for_only_so_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "GRACE", 0.05)
    site = Site(bounded=True)
    site.settle(*UPDATES)
    assert "did not come within 0.05 s" in site.landed().merged.failures[0].reason
    site.answer.set_result(SUM)
    assert [partial.refs for partial in site.surplus] == [SUM.refs]


def test_ranks_stop_when_workers_do_and_their_job_has_until_the_deadline(tmp_path: Path) -> None:
    transport, start = File(str(tmp_path)), Ref(1, "")
    source = Source(Synthetic(samples=8), Iid(), "", 2, 0)
    todo = [
        TrainTask(4, c, Softmax(), source, LocalWork(), start, Raw(), transport, 1, stop_at=1090.0)
        for c in CLIENTS
    ]
    ranks = sites.Site(name="far", clients=2, executor=Mpi(ranks_per_node=2))
    federation = sites.Federation(sites=(ranks,))
    cohort = tuple(Assignment(c, LocalWork(), Raw()) for c in CLIENTS)
    (task,) = ranks_tasks(federation, RoundPlan(4, cohort, 1, 2, 100.0), FedAvg(), todo)
    assert task.trains == tuple(todo)
    assert task.closes_at == pytest.approx(1100.0)
    todo = [replace(one, stop_at=None) for one in todo]
    (task,) = ranks_tasks(federation, RoundPlan(4, cohort, 1, 2), FedAvg(), todo)
    assert task.closes_at is None


def test_a_listener_that_fails_keeps_no_round_open(caplog: pytest.LogCaptureFixture) -> None:
    site = Site()
    site.gathering._done = lambda _: 1 / 0  # type: ignore[func-returns-value]
    site.settle(*UPDATES)
    site.answer.set_result(SUM)
    assert site.landed().refs == SUM.refs
    assert "the round goes on" in caplog.text
