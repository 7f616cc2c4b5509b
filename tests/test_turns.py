"""Which tasks of a site have been sent at any time, and what becomes of the others."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future

import pytest

from parslfl.closing import Closing
from parslfl.codecs.raw import Raw
from parslfl.data.partition import Iid
from parslfl.data.synthetic import Synthetic
from parslfl.learning import LocalWork
from parslfl.messages import Assignment, Client, Failure, Outcome, Ref, RoundPlan, Source, TrainTask, Update
from parslfl.models.softmax import Softmax
from parslfl.transport.inline import Inline
from parslfl.turns import Turns
from parslfl_executors.htex import NoWorkersError


def update(index: int) -> Update:
    return Update(Client(index, "here"), 0, Ref(1, ""), 1, 1, 1, 1.0, 1.0, 1)


class Bed:
    """Turns of `count` clients, and the future of each that was sent; `broken`: nothing can be sent."""

    def __init__(self, count: int, window: int, close_at: int | None = None, broken: str = "") -> None:
        clients = [Client(index, "here") for index in range(count)]
        source = Source(Synthetic(), Iid(), "", count, 0)
        plan = RoundPlan(
            0, tuple(Assignment(c, LocalWork(), Raw()) for c in clients), 1, close_at or count, None
        )
        self.heard: list[Outcome] = []
        self.closing = Closing(plan, self.heard.append, lambda _: None, lambda: None)
        self.sent: dict[int, Future[Outcome]] = {}
        self.broken = broken
        todo = [
            TrainTask(0, client, Softmax(), source, LocalWork(), Ref(1, ""), Raw(), Inline(), 0)
            for client in clients
        ]
        self.turns = Turns(todo, window, self.send, self.closing)

    def send(self, task: TrainTask) -> Future[Outcome]:
        if self.broken:
            raise RuntimeError(self.broken)
        future: Future[Outcome] = Future()
        self.sent[task.client.index] = future
        return future

    def under_way(self) -> list[int]:
        return [index for index, future in self.sent.items() if not future.done()]

    def reasons(self) -> list[str]:
        return [outcome.reason for outcome in self.heard if isinstance(outcome, Failure)]


def test_a_window_of_them_is_under_way_in_order_until_all_are_done() -> None:
    bed = Bed(6, 2)
    bed.turns.begin()
    assert bed.under_way() == [0, 1]
    bed.sent[1].set_result(update(1))
    assert bed.under_way() == [0, 2]
    bed.sent[0].set_result(update(0))
    assert bed.under_way() == [2, 3]
    for index in (2, 3, 4, 5):
        bed.sent[index].set_result(update(index))
    assert (list(bed.sent), bed.under_way(), len(bed.heard)) == ([0, 1, 2, 3, 4, 5], [], 6)


@pytest.mark.parametrize("end", ["lost", "failure", "refused"])
def test_the_next_one_goes_whatever_became_of_the_one_before(end: str) -> None:
    bed = Bed(3, 1)
    bed.turns.begin()
    if end == "lost":
        bed.sent[0].set_exception(RuntimeError("the node is gone"))
    else:
        bed.sent[0].set_result(Failure(Client(0, "here"), 0 if end == "failure" else 7, "error", "x"))
    assert bed.under_way() == [1]


def test_once_enough_came_none_is_sent_any_more() -> None:
    """The update that closes the round does not let the next one go first."""
    bed = Bed(6, 2, close_at=2)
    bed.turns.begin()
    bed.sent[1].set_result(update(1))
    bed.sent[2].set_result(update(2))
    bed.sent[0].set_result(update(0))
    assert list(bed.sent) == [0, 1, 2]
    assert bed.reasons() == ["not among the fastest 2"] * 4


@pytest.mark.parametrize("cancelled", [True, False])
def test_when_the_round_was_closed_or_the_run_ended_none_is_sent_any_more(cancelled: bool) -> None:
    bed = Bed(4, 1)
    bed.turns.begin()
    bed.closing.cancel() if cancelled else bed.closing.close("too late")
    bed.sent[0].set_exception(RuntimeError("ended"))
    assert list(bed.sent) == [0]
    assert bed.reasons() == (["RuntimeError: ended"] if cancelled else ["too late"] * 4)


def test_a_scheduler_that_is_asked_for_long_as_a_round_closes_lets_none_go() -> None:
    bed = Bed(3, 1)
    bed.turns.begin()
    bed.closing._waiting = lambda _: bed.sent[0].set_result(update(0)) or ""  # type: ignore[func-returns-value]
    bed.closing.close("too late")
    assert list(bed.sent) == [0]


def test_where_no_block_came_the_others_do_not_wait_for_one_again() -> None:
    bed = Bed(4, 2)
    bed.turns.begin()
    bed.sent[0].set_exception(NoWorkersError("the queue is full", final=True))
    assert list(bed.sent) == [0, 1]
    bed.sent[1].set_exception(NoWorkersError("the queue is full", final=True))
    assert bed.reasons() == ["NoWorkersError: the queue is full"] * 4


def test_what_cannot_be_sent_is_lost_however_many_there_are() -> None:
    bed = Bed(1000, 2, broken="no executor")
    bed.turns.begin()
    assert bed.reasons() == ["RuntimeError: no executor"] * 1000


def test_what_cannot_be_sent_because_the_run_ends_is_nobodys() -> None:
    bed = Bed(3, 1)

    def ended(task: TrainTask) -> Future[Outcome]:
        bed.closing.cancel()
        raise RuntimeError("cleaned up")

    bed.turns._send = ended
    bed.turns.begin()
    assert bed.heard == []


def test_from_many_threads_each_goes_once_and_in_order() -> None:
    bed, most = Bed(300, 8), 0
    bed.turns.begin()

    def finish(own: int) -> None:
        nonlocal most
        for index in range(own, 300, 8):
            while index not in bed.sent:
                time.sleep(0.0001)
            most = max(most, sum(not future.done() for future in list(bed.sent.values())))
            bed.sent[index].set_result(update(index))

    threads = [threading.Thread(target=finish, args=[own]) for own in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert (list(bed.sent), len(bed.heard)) == (list(range(300)), 300)
    assert most <= 8
