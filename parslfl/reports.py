"""What a run tells its reader: reports of finished rounds, and events as they happen.

Does not know: how they are made, or where they are kept.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from parslfl.messages import Client, Failure, Outcome, RoundPlan, SitePartial, Update

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SiteTimes:
    """Where a site's time went, in seconds, from the end of the round before to the end of this one.

    Summed over blocks (jobs, pods): `queued` from asking for one until it starts; `starting` from
    there until its first workers report, and each worker's seconds until its libraries are loaded;
    `ready`, with workers; `idle`, the part of that in which they had no task. Summed over the
    delivered updates: `transfer`, to read the model and the data and to write the update;
    `training`. `blocks`: how many started.
    """

    site: str
    blocks: int = 0
    queued: float = 0.0
    starting: float = 0.0
    ready: float = 0.0
    idle: float = 0.0
    transfer: float = 0.0
    training: float = 0.0


@dataclass(frozen=True)
class Incident:
    """What went wrong at `site` and was survived: a block lost, a scheduler that did not answer.

    `at`: seconds since the round began, below 0 before that. `clients`: whose training was lost
    with it and done again.
    """

    site: str
    at: float
    reason: str
    clients: tuple[Client, ...] = ()


@dataclass(frozen=True)
class Choice:
    """What the planner chose for `client`, and why: the spec of its codec, the share of units it kept."""

    client: Client
    codec: str
    keep: float
    why: str


@dataclass(frozen=True)
class RoundReport:
    """One finished round.

    `model` is the checksum of the new global model. Bytes are those that crossed a process
    border: `bytes_down` models sent, `bytes_up` updates received, or `partials` where a site adds its
    updates up itself; over gRPC since the round before, each counted as it crosses, what was sent again
    too. `seconds` from planning to the new model. `accuracy` and `test_loss` are None in rounds that are
    not evaluated; where an evaluation was due and failed, `evaluation_error` says why. `sites`: where each
    site's time went; `incidents`: what was survived; `choices`: of the planner, where it had any.
    `caution`: what the strategy does not hold, with fewer updates than were planned.
    """

    round: int
    model: str
    updates: tuple[Update, ...]
    failures: tuple[Failure, ...]
    loss: float
    bytes_down: int
    bytes_up: int
    seconds: float
    accuracy: float | None = None
    test_loss: float | None = None
    evaluation_error: str = ""
    sites: tuple[SiteTimes, ...] = ()
    incidents: tuple[Incident, ...] = ()
    partials: tuple[SitePartial, ...] = ()
    choices: tuple[Choice, ...] = ()
    caution: str = ""


@dataclass(frozen=True)
class RunStarted:
    """Event: sites are about to be asked for workers; `remarks`: what is good to know before (`fitting`)."""

    remarks: tuple[str, ...]


@dataclass(frozen=True)
class RoundStarted:
    """Event: a round's tasks have been submitted."""

    plan: RoundPlan


@dataclass(frozen=True)
class ClientSettled:
    """Event: a client of the running round delivered or failed."""

    outcome: Outcome


@dataclass(frozen=True)
class RoundClosed:
    """Event: the new model is made and on disk; its evaluation may still be running."""

    report: RoundReport


@dataclass(frozen=True)
class Evaluated:
    """Event: the model of `report.round` has been scored; the report is now complete."""

    report: RoundReport


@dataclass(frozen=True)
class SiteWaits:
    """Event: none of the workers of `site` runs; `reason`: its scheduler's word for why."""

    site: str
    reason: str


Event = RunStarted | RoundStarted | ClientSettled | RoundClosed | Evaluated | SiteWaits
#: What hears every event as it happens, in any thread.
Watch = Callable[[Event], None]


def log(event: Event) -> None:
    """The listener of a program that has none of its own: what a person might act on becomes a warning."""
    if isinstance(event, RunStarted):
        for remark in event.remarks:
            _log.warning("%s", remark)
    elif isinstance(event, SiteWaits):
        _log.warning("%s waits: %s", event.site, event.reason)
