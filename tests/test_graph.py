"""When a round closes, and that every client then has an outcome."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future
from dataclasses import replace

import pytest

from parslfl.closing import Closing
from parslfl.codecs.raw import Raw
from parslfl.data.partition import Iid
from parslfl.data.synthetic import Synthetic
from parslfl.folding.merging import Merged
from parslfl.folding.partials import Partial
from parslfl.graph import _groups
from parslfl.learning import Evidence, LocalWork
from parslfl.messages import (
    Assignment,
    Client,
    Failure,
    Outcome,
    RanksTask,
    Ref,
    RoundPlan,
    Source,
    TrainTask,
    Update,
)
from parslfl.models.softmax import Softmax
from parslfl.strategies.fedavg import FedAvg
from parslfl.transport.inline import Inline

CLIENTS = [Client(i, "here") for i in range(4)]


class Listener:
    """What a closing told."""

    def __init__(self) -> None:
        self.heard: list[Outcome] = []
        self.surplus: list[Update] = []
        self.closed = 0

    def close(self) -> None:
        self.closed += 1


def update(client: Client) -> Update:
    return Update(client, 0, Ref(1, ""), 1, 1, 1, 1.0, 1.0, 1)


def started(
    close_at: int = 4, deadline: float | None = None
) -> tuple[Closing, dict[Client, Future[Outcome]], Listener]:
    plan = RoundPlan(0, tuple(Assignment(c, LocalWork(), Raw()) for c in CLIENTS), 1, close_at, deadline)
    listener = Listener()
    closing = Closing(plan, listener.heard.append, listener.surplus.append, listener.close)
    futures: dict[Client, Future[Outcome]] = {c: Future() for c in CLIENTS}
    closing.watch(futures)
    return closing, futures, listener


@pytest.mark.parametrize("answer", [None, update(CLIENTS[1]), Failure(CLIENTS[0], 7, "error", "x")])
def test_an_answer_for_another_task_is_refused(answer: object) -> None:
    closing, futures, _ = started()
    futures[CLIENTS[0]].set_result(answer)  # type: ignore[arg-type]
    outcome = closing.settled[CLIENTS[0]].result(0)
    assert isinstance(outcome, Failure)
    assert (outcome.client, outcome.kind) == (CLIENTS[0], "refused")
    assert not closing.settled[CLIENTS[1]].done()


def test_all_arrive() -> None:
    closing, futures, listener = started()
    for client, future in futures.items():
        future.set_result(update(client))
    assert [closing.settled[c].result(0) for c in CLIENTS] == [update(c) for c in CLIENTS]
    assert (len(listener.heard), listener.surplus, listener.closed) == (4, [], 0)


def test_a_lost_client_becomes_a_failure_with_its_cause() -> None:
    closing, futures, _ = started()
    futures[CLIENTS[0]].set_exception(RuntimeError("the node is gone"))
    outcome = closing.settled[CLIENTS[0]].result(0)
    assert outcome == Failure(CLIENTS[0], 0, "lost", "RuntimeError: the node is gone")


def test_the_fastest_close_the_round() -> None:
    closing, futures, listener = started(close_at=2)
    futures[CLIENTS[3]].set_result(update(CLIENTS[3]))
    assert not closing.settled[CLIENTS[0]].done()
    futures[CLIENTS[1]].set_result(update(CLIENTS[1]))
    late = closing.settled[CLIENTS[0]].result(0)
    assert isinstance(late, Failure)
    assert (late.kind, late.reason) == ("late", "not among the fastest 2")
    assert listener.closed == 1
    futures[CLIENTS[0]].set_result(update(CLIENTS[0]))
    assert listener.surplus == [update(CLIENTS[0])]
    assert len(listener.heard) == 4


def test_failures_do_not_count_among_the_fastest() -> None:
    closing, futures, _ = started(close_at=2)
    futures[CLIENTS[0]].set_result(Failure(CLIENTS[0], 0, "error", "x"))
    futures[CLIENTS[1]].set_result(update(CLIENTS[1]))
    assert not closing.settled[CLIENTS[2]].done()


def test_the_deadline_closes_the_round() -> None:
    closing, futures, listener = started(deadline=0.1)
    futures[CLIENTS[0]].set_result(update(CLIENTS[0]))
    late = closing.settled[CLIENTS[1]].result(5)
    assert isinstance(late, Failure)
    assert late.reason == "not in when the deadline of 0.1 s passed"
    assert closing.settled[CLIENTS[0]].result(0) == update(CLIENTS[0])
    assert listener.closed == 1


def test_no_clock_is_left_running_once_all_have_settled() -> None:
    before = threading.active_count()
    _, futures, _ = started(deadline=60)
    for client, future in futures.items():
        future.set_result(update(client))
    until = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < until:
        time.sleep(0.01)
    assert threading.active_count() == before


def test_a_listener_that_fails_does_not_stop_the_round(caplog: pytest.LogCaptureFixture) -> None:
    plan = RoundPlan(0, tuple(Assignment(c, LocalWork(), Raw()) for c in CLIENTS), 1, 1)

    def broken(outcome: Outcome) -> None:
        raise RuntimeError("a bad display")

    def full() -> None:
        raise OSError("the disk is full")

    closing = Closing(plan, broken, lambda _: None, full)
    future: Future[Outcome] = Future()
    closing.watch({CLIENTS[0]: future})
    future.set_result(update(CLIENTS[0]))
    assert closing.settled[CLIENTS[0]].result(0) == update(CLIENTS[0])
    assert all(closing.settled[c].done() for c in CLIENTS)
    assert "a bad display" in caplog.text
    assert "the disk is full" in caplog.text


def test_what_keeps_updates_is_heard_first_and_its_mistake_settles_the_client() -> None:
    plan = RoundPlan(0, tuple(Assignment(c, LocalWork(), Raw()) for c in CLIENTS), 1, 1)

    def keep(update: Update) -> Outcome:
        if update.client.index == 0:
            raise RuntimeError("no hands")
        return replace(update, ref=Ref(1, "", path="kept"))

    listener = Listener()
    closing = Closing(plan, listener.heard.append, listener.surplus.append, listener.close, keep=keep)
    futures: dict[Client, Future[Outcome]] = {c: Future() for c in CLIENTS}
    closing.watch(futures)
    for client, future in futures.items():
        future.set_result(update(client))
    first, second = (closing.settled[client].result(0) for client in CLIENTS[:2])
    assert first == Failure(CLIENTS[0], 0, "refused", "RuntimeError: no hands")
    assert isinstance(second, Update)
    assert [one.ref.path for one in (second, *listener.surplus)] == ["kept"] * 3


@pytest.mark.parametrize("close_at", [1, 3, 8])
def test_arrivals_from_many_threads_settle_everyone_once(close_at: int) -> None:
    clients = [Client(i, "here") for i in range(40)]
    plan = RoundPlan(0, tuple(Assignment(c, LocalWork(), Raw()) for c in clients), 1, close_at)
    listener = Listener()
    closing = Closing(plan, listener.heard.append, listener.surplus.append, listener.close)
    futures: dict[Client, Future[Outcome]] = {c: Future() for c in clients}
    closing.watch(futures)
    threads = [threading.Thread(target=f.set_result, args=[update(c)]) for c, f in futures.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    outcomes = [closing.settled[c].result(5) for c in clients]
    assert sum(isinstance(o, Update) for o in outcomes) == close_at
    assert len(listener.heard) == len(clients)
    assert len(listener.surplus) == len(clients) - close_at


def test_the_last_groups_are_folded_one_by_one_in_the_same_lanes() -> None:
    futures: list[Future[Outcome]] = [Future() for _ in range(11)]
    groups = _groups(futures, 2)
    assert [(lane, len(group)) for lane, group in groups] == [(0, 4), *[(1, 1)] * 4, *[(0, 1)] * 3]
    assert [len(group) for _, group in _groups(futures, 1)] == [4, 4, 1, 1, 1]
    assert [one for _, group in groups for one in group] == futures


def job(closing: Closing, *clients: Client) -> tuple[Future[Partial], list[Partial]]:
    """The answer of one job for `clients`, and what of it was surplus."""
    model, place = Softmax(), Inline()
    source = Source(Synthetic(), Iid(), "", 4, 0)
    trains = tuple(
        TrainTask(0, client, model, source, LocalWork(), Ref(1, ""), Raw(), place, 0) for client in clients
    )
    task = RanksTask(0, "here", trains, FedAvg(), Ref(1, ""), place, "mpiexec", 1)
    answer: Future[Partial] = Future()
    surplus: list[Partial] = []
    closing.watch_job(task, answer, surplus.append)
    return answer, surplus


def summed(*clients: Client) -> Partial:
    evidence = tuple(Evidence(1, 1, LocalWork(), 1.0) for _ in clients)
    merged = Merged(1.0, tuple(map(update, clients)), (), evidence)
    return Partial("here", 0, (Ref(1, ""),), merged)


def test_a_job_s_clients_settle_together_and_count_as_a_whole() -> None:
    """Three updates where two close the round: all three are in its sum, so all three count."""
    closing, _, _ = started(close_at=2)
    answer, surplus = job(closing, *CLIENTS[:3])
    answer.set_result(summed(*CLIENTS[:3]))
    assert [closing.settled[c].result(0) for c in CLIENTS[:3]] == [update(c) for c in CLIENTS[:3]]
    assert surplus == []
    late = closing.settled[CLIENTS[3]].result(0)
    assert isinstance(late, Failure)
    assert late.reason == "not among the fastest 2"


def test_a_job_that_is_late_gives_nothing() -> None:
    closing, futures, listener = started(close_at=1)
    answer, surplus = job(closing, *CLIENTS[:3])
    futures[CLIENTS[3]].set_result(update(CLIENTS[3]))
    answer.set_result(summed(*CLIENTS[:3]))
    assert {type(closing.settled[c].result(0)) for c in CLIENTS[:3]} == {Failure}
    assert surplus == [answer.result()]
    assert len(listener.heard) == 4


@pytest.mark.parametrize("answered", [None, summed(*CLIENTS[:2]), summed(*CLIENTS[:2], CLIENTS[3])])
def test_a_job_that_answers_for_others_is_refused(answered: Partial) -> None:
    closing, _, _ = started()
    answer, surplus = job(closing, *CLIENTS[:3])
    answer.set_result(answered)
    outcomes = [closing.settled[c].result(0) for c in CLIENTS[:3]]
    assert [o.kind for o in outcomes if isinstance(o, Failure)] == ["refused"] * 3
    assert surplus == [answered]


def test_a_job_that_is_lost_costs_its_clients() -> None:
    closing, _, _ = started()
    answer, surplus = job(closing, *CLIENTS[:2])
    answer.set_exception(RuntimeError("the node is gone"))
    outcomes = [closing.settled[c].result(0) for c in CLIENTS[:2]]
    assert [o.reason for o in outcomes if isinstance(o, Failure)] == ["RuntimeError: the node is gone"] * 2
    assert surplus == []
