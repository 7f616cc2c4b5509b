"""What a run has told so far, as one value: `advance(progress, event, now)` gives the next.

Pure, so the display needs no logic and a test needs no terminal. A finished round keeps its
numbers and its failures, not its updates: a long run of many clients stays small.

Does not know: threads, terminals, clocks (`now` is any steadily growing count of seconds).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, median

from parslfl.learning import Personal
from parslfl.messages import Client, Failure, Outcome, RoundPlan, SitePartial, Update
from parslfl.report.text import first_line
from parslfl.reports import (
    Choice,
    ClientSettled,
    Event,
    Incident,
    RoundReport,
    RoundStarted,
    RunStarted,
    SiteTimes,
    SiteWaits,
)


@dataclass(frozen=True)
class Own:
    """Accuracies on what `clients` clients held out: of their own models and of the global one, the mean
    and the worst."""

    clients: int
    mean: float
    worst: float
    global_mean: float
    global_worst: float

    @classmethod
    def of(cls, found: Sequence[Personal]) -> Own | None:
        """None where no client has a model of its own."""
        if not found:
            return None
        own, shared = [p.accuracy for p in found], [p.global_accuracy for p in found]
        return cls(len(found), fmean(own), min(own), fmean(shared), min(shared))


@dataclass(frozen=True)
class Row:
    """A closed round: a `RoundReport` with its updates counted instead of kept."""

    round: int
    updates: int
    failures: tuple[Failure, ...]
    loss: float
    bytes_down: int
    bytes_up: int
    seconds: float
    accuracy: float | None = None
    test_loss: float | None = None
    evaluation_error: str = ""
    notes: tuple[tuple[Client, str], ...] = ()
    raw_up: int = 0
    raw_down: int = 0
    own: Own | None = None
    sites: tuple[SiteTimes, ...] = ()
    incidents: tuple[Incident, ...] = ()
    partials: tuple[SitePartial, ...] = ()
    choices: tuple[Choice, ...] = ()
    caution: str = ""

    @classmethod
    def of(cls, report: RoundReport) -> Row:
        """The row of one round's report."""
        return cls(
            round=report.round,
            updates=len(report.updates),
            failures=report.failures,
            loss=report.loss,
            bytes_down=report.bytes_down,
            bytes_up=report.bytes_up,
            seconds=report.seconds,
            accuracy=report.accuracy,
            test_loss=report.test_loss,
            evaluation_error=report.evaluation_error,
            notes=tuple((update.client, note) for update in report.updates for note in update.notes),
            raw_up=sum(update.raw_bytes for update in report.updates),
            raw_down=sum(update.raw_down for update in report.updates),
            own=Own.of([update.personal for update in report.updates if update.personal]),
            sites=report.sites,
            incidents=report.incidents,
            partials=report.partials,
            choices=report.choices,
            caution=report.caution,
        )


@dataclass(frozen=True)
class Cause:
    """Failures of one kind for one reason, oldest first."""

    kind: str
    reason: str
    failures: tuple[Failure, ...]


@dataclass(frozen=True)
class Progress:
    """A run's state as its reader sees it.

    `rounds`: how many the run shall have, with those of before a resume. `rows`: closed rounds in
    order. `plan`, `since`, `settled`: the round that runs, when it started, who is done with it.
    """

    rounds: int
    rows: tuple[Row, ...] = ()
    plan: RoundPlan | None = None
    since: float = 0.0
    settled: tuple[Outcome, ...] = ()

    @property
    def running(self) -> bool:
        """Whether the planned round is still open."""
        return self.plan is not None and all(row.round != self.plan.round for row in self.rows)

    @property
    def evaluated(self) -> tuple[Row, ...]:
        """Closed rounds whose model has been scored."""
        return tuple(row for row in self.rows if row.accuracy is not None)

    @property
    def pending(self) -> tuple[Client, ...]:
        """Clients of the running round that have neither delivered nor failed."""
        if self.plan is None or not self.running:
            return ()
        done = {outcome.client for outcome in self.settled}
        return tuple(a.client for a in self.plan.cohort if a.client not in done)

    @property
    def bytes_up_now(self) -> int:
        """Bytes that the running round's updates have brought so far."""
        return sum(o.ref.size for o in self.settled if isinstance(o, Update)) if self.running else 0

    @property
    def failures(self) -> tuple[Failure, ...]:
        """Every failure so far, oldest first."""
        closed = [failure for row in self.rows for failure in row.failures]
        now = [o for o in self.settled if isinstance(o, Failure)] if self.running else []
        return (*closed, *now)

    def seconds_left(self, now: float) -> float | None:
        """Median seconds of the closed rounds times the rounds left; None before the first."""
        if not self.rows:
            return None
        typical = median(row.seconds for row in self.rows)
        spent = min(now - self.since, typical) if self.running else 0.0
        return max(0.0, typical * (self.rounds - len(self.rows)) - spent)


def resumed(rounds: int, reports: Iterable[RoundReport]) -> Progress:
    """The progress of a run that starts after `reports` (none for a new run)."""
    return Progress(rounds, rows=tuple(Row.of(report) for report in reports))


def advance(progress: Progress, event: Event, now: float) -> Progress:
    """`progress` after `event`; an event of another round than the running one changes no cell."""
    if isinstance(event, RoundStarted):
        return replace(progress, plan=event.plan, since=now, settled=())
    if isinstance(event, ClientSettled):
        return _settle(progress, event.outcome)
    if isinstance(event, RunStarted | SiteWaits):
        return progress
    return replace(progress, rows=_with(progress.rows, Row.of(event.report)))


def causes(failures: Iterable[Failure]) -> tuple[Cause, ...]:
    """`failures` by kind and reason, the cause seen last at the end.

    A mistake in one place fails every client alike; its reader needs the reason once.
    """
    found: dict[tuple[str, str], tuple[Failure, ...]] = {}
    for failure in failures:
        key = (failure.kind, first_line(failure.reason))
        found[key] = (*found.pop(key, ()), failure)
    return tuple(Cause(kind, reason, alike) for (kind, reason), alike in found.items())


def _settle(progress: Progress, outcome: Outcome) -> Progress:
    if progress.plan is None or outcome.round != progress.plan.round:
        return progress
    others = tuple(o for o in progress.settled if o.client != outcome.client)
    return replace(progress, settled=(*others, outcome))


def _with(rows: tuple[Row, ...], new: Row) -> tuple[Row, ...]:
    """`rows` with `new` in its round's place: a round is told twice, closed and then evaluated."""
    return tuple(sorted((*(row for row in rows if row.round != new.round), new), key=lambda row: row.round))
