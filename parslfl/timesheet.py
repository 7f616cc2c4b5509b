"""A finished round's report: what came in, where each site's time went, what was survived.

Blocks' times come from the executors' ledgers, workers' from what the updates say of themselves.

Does not know: schedulers, or what becomes of the report.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Protocol

from parslfl import specs
from parslfl.codecs.names import CODECS
from parslfl.folding.finishing import Finished
from parslfl.graph import Flight
from parslfl.messages import Client, Failure, RoundPlan, Update
from parslfl.reports import Choice, Incident, RoundReport, SiteTimes
from parslfl_executors.ledger import Account, Event, Ledger


class Told(Protocol):
    """A site's executor, as this module sees it."""

    @property
    def ledger(self) -> Ledger: ...
    def troubles(self) -> tuple[Event, ...]: ...


class Timesheet:
    """The sites' accounts from one round's end to the next; the first round begins with the run."""

    def __init__(self, executors: Mapping[str, Told]) -> None:
        self.executors = executors
        self._before = dict.fromkeys(executors, Account())

    def report(self, flight: Flight, done: Finished, crossed: tuple[int, int]) -> RoundReport:
        """The report of the round `flight`, which ended as `done`; `crossed`: bytes that went (down, up)."""
        return RoundReport(
            round=flight.plan.round,
            model=done.model,
            updates=done.updates,
            failures=done.failures,
            loss=mean_loss(done.updates),
            bytes_down=crossed[0],
            bytes_up=crossed[1],
            seconds=done.seconds,
            partials=done.partials,
            sites=self.times(done.updates),
            incidents=self.incidents(flight.began, flight.tasks, done.failures),
            choices=choices(flight.plan),
            caution=done.caution,
        )

    def times(self, updates: Sequence[Update]) -> tuple[SiteTimes, ...]:
        """Where the time went since this was asked last; `updates`: those delivered since."""
        found, now = [], time.time()
        for site, executor in self.executors.items():
            account = executor.ledger.account(now)
            found.append(site_times(site, account.since(self._before[site]), updates))
            self._before[site] = account
        return tuple(found)

    def incidents(
        self, began: float, tasks: Mapping[int, Client], failures: Sequence[Failure]
    ) -> tuple[Incident, ...]:
        """What was survived since this was asked last, in order; `began`, `tasks`: as in `graph.Flight`."""
        found = [
            incident
            for site, executor in self.executors.items()
            for incident in survived(site, executor.troubles(), began, tasks, failures)
        ]
        return tuple(sorted(found, key=lambda incident: incident.at))


def choices(plan: RoundPlan) -> tuple[Choice, ...]:
    """What the planner had reasons for."""
    return tuple(
        Choice(given.client, specs.render(given.codec, CODECS), given.work.keep, given.why)
        for given in plan.cohort
        if given.why
    )


def mean_loss(updates: Sequence[Update]) -> float:
    """Mean training loss over all examples; clients that made no step have none and are left out."""
    counted = [(u.loss, u.samples) for u in updates if math.isfinite(u.loss)]
    return sum(loss * n for loss, n in counted) / max(1, sum(n for _, n in counted))


def site_times(site: str, account: Account, updates: Sequence[Update]) -> SiteTimes:
    """The times of `site` in a round: blocks' by `account`, workers' by those of `updates` made there."""
    spent = [update.spent for update in updates if update.client.site == site]
    return SiteTimes(
        site=site,
        blocks=account.blocks,
        queued=account.queued,
        starting=account.starting + sum(one.setup for one in spent),
        ready=account.ready,
        idle=account.idle,
        transfer=sum(one.load + one.encode for one in spent),
        training=sum(one.train for one in spent),
    )


def survived(
    site: str,
    events: Sequence[Event],
    began: float,
    tasks: Mapping[int, Client],
    failures: Sequence[Failure],
) -> list[Incident]:
    """One incident for each block that had an event, or else for each cause.

    What cost clients and nothing else is left out: it is the reason of their failures.
    """
    groups: dict[tuple[str, str], list[Event]] = {}
    for event in events:
        groups.setdefault((event.block, "" if event.block else event.why), []).append(event)
    made = [_incident(site, group, began, tasks) for group in groups.values()]
    told = [failure.reason for failure in failures if failure.client.site == site]
    return [one for one in made if one.clients or not any(one.reason in reason for reason in told)]


def _incident(site: str, events: Sequence[Event], began: float, tasks: Mapping[int, Client]) -> Incident:
    hit = {tasks[event.task] for event in events if event.task is not None and event.task in tasks}
    return Incident(site, min(event.at for event in events) - began, events[-1].why, tuple(sorted(hit)))
