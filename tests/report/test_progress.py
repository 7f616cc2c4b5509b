"""The reader's view of a run, from event streams written by hand."""

from __future__ import annotations

from dataclasses import replace

from parslfl.codecs.raw import Raw
from parslfl.learning import LocalWork
from parslfl.messages import Assignment, Client, Failure, Ref, RoundPlan, Update
from parslfl.report.progress import Progress, advance, causes, resumed
from parslfl.reports import ClientSettled, Evaluated, Event, RoundClosed, RoundReport, RoundStarted

A, B, C = (Client(index, "here") for index in range(3))


def started(round: int) -> RoundStarted:
    cohort = tuple(Assignment(client, LocalWork(), Raw()) for client in (A, B, C))
    return RoundStarted(RoundPlan(round, cohort, quorum=2, close_at=3))


def delivered(client: Client, round: int, size: int = 100) -> ClientSettled:
    return ClientSettled(Update(client, round, Ref(size, ""), 10, 5, 5, 2.0, 1.0, size))


def failed(client: Client, round: int, reason: str = "its worker died") -> Failure:
    return Failure(client, round, "lost", reason)


def report(round: int, seconds: float = 10.0, failures: tuple[Failure, ...] = ()) -> RoundReport:
    return RoundReport(round, "digest", (), failures, 1.0, 300, 200, seconds)


def after(progress: Progress, *events: tuple[float, Event]) -> Progress:
    for now, event in events:
        progress = advance(progress, event, now)
    return progress


def test_clients_leave_the_awaited_as_they_settle() -> None:
    progress = after(Progress(rounds=2), (0.0, started(0)), (1.0, delivered(B, 0)))
    assert progress.running
    assert progress.pending == (A, C)
    assert progress.bytes_up_now == 100


def test_settling_twice_counts_once() -> None:
    progress = after(Progress(2), (0.0, started(0)), (1.0, delivered(B, 0)), (1.0, delivered(B, 0)))
    assert len(progress.settled) == 1


def test_a_late_event_of_an_earlier_round_changes_nothing() -> None:
    progress = after(Progress(2), (0.0, started(1)))
    assert advance(progress, delivered(A, 0), 1.0) == progress


def test_before_the_first_round_nothing_is_awaited() -> None:
    progress = advance(Progress(2), delivered(A, 0), 0.0)
    assert progress == Progress(2)
    assert (progress.pending, progress.failures, progress.seconds_left(5.0)) == ((), (), None)


def test_a_round_is_told_twice_and_counted_once() -> None:
    scored = replace(report(0), accuracy=0.4, test_loss=1.5)
    progress = after(Progress(2), (0.0, started(0)), (9.0, RoundClosed(report(0))), (11.0, Evaluated(scored)))
    assert [(row.round, row.accuracy) for row in progress.rows] == [(0, 0.4)]
    assert not progress.running
    assert progress.pending == ()


def test_an_evaluation_may_come_while_the_next_round_runs() -> None:
    scored = replace(report(0), accuracy=0.4)
    events: list[tuple[float, Event]] = [
        (0.0, started(0)),
        (9.0, RoundClosed(report(0))),
        (10.0, started(1)),
        (11.0, Evaluated(scored)),
    ]
    progress = after(Progress(3), *events)
    assert progress.running
    assert [row.accuracy for row in progress.evaluated] == [0.4]


def test_time_left_is_the_median_round_times_the_rounds_left() -> None:
    events = [RoundClosed(report(n, seconds)) for n, seconds in enumerate((10.0, 12.0, 50.0))]
    progress = after(Progress(rounds=6), *((0.0, event) for event in events))
    assert progress.seconds_left(now=100.0) == 36.0
    progress = advance(progress, started(3), now=100.0)
    assert progress.seconds_left(now=105.0) == 31.0
    assert progress.seconds_left(now=900.0) == 24.0  # a slow round is never counted as less than nothing


def test_failures_of_the_running_round_are_not_counted_twice_when_it_closes() -> None:
    lost = failed(A, 0)
    progress = after(Progress(2), (0.0, started(0)), (1.0, ClientSettled(lost)))
    assert progress.failures == (lost,)
    closed = advance(progress, RoundClosed(report(0, failures=(lost,))), 2.0)
    assert closed.failures == (lost,)


def test_equal_failures_have_one_cause_and_the_latest_comes_last() -> None:
    found = causes([failed(A, 0), failed(B, 0, "no memory"), failed(C, 1, "its worker died\nwith details")])
    assert [(cause.reason, len(cause.failures)) for cause in found] == [
        ("no memory", 1),
        ("its worker died", 2),
    ]


def test_a_resumed_run_starts_with_the_rounds_it_has() -> None:
    progress = resumed(5, [report(0), report(1)])
    assert [row.round for row in progress.rows] == [0, 1]
    assert progress.seconds_left(0.0) == 30.0
