"""The lines of a journal: what each says, and how it is written so that any JSON reader takes it.

A number that is not finite is written as null; a loss that reads null is not a number.

Does not know: files.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from parslfl.errors import RunError
from parslfl.learning import Personal
from parslfl.messages import Client, Failure, Ref, SitePartial, Spent, Update
from parslfl.reports import Choice, Incident, RoundReport, SiteTimes

#: What an evaluation adds to a report.
SCORES = ("accuracy", "test_loss", "evaluation_error")


@dataclass(frozen=True)
class Finished:
    """A round is done. `state` is the checksum of the strategy's state, `residual` of what a downlink codec
    left out; "" where there is none."""

    report: RoundReport
    state: str
    residual: str = ""


@dataclass(frozen=True)
class Scored:
    """A round is complete; `scores` are the fields `SCORES` of its report."""

    round: int
    scores: Mapping[str, Any]


Entry = Finished | Scored


def finished(report: RoundReport, state: str, residual: str = "") -> dict[str, Any]:
    """The journal's line for a round that is done."""
    entry = asdict(report)
    for update in entry["updates"]:
        del update["ref"]["data"]  # an inline update has been merged: its bytes are history
    left = {"residual": residual} if residual else {}
    return {"event": "finished", "state": state, **left, "report": entry}


def scored(report: RoundReport) -> dict[str, Any]:
    """The journal's line for a report that is complete."""
    return {"event": "evaluated", **{key: getattr(report, key) for key in ("round", *SCORES)}}


def metrics(report: RoundReport) -> dict[str, Any]:
    """`report` as one flat line: counts instead of clients, `SITE.idle` and the like for each site."""
    counted = ("updates", "failures", "incidents")
    flat = {k: v for k, v in asdict(report).items() if k not in {*counted, "sites", "partials", "choices"}}
    sites = {f"{s.site}.{k}": v for s in report.sites for k, v in asdict(s).items() if k != "site"}
    return {**flat, **{name: len(getattr(report, name)) for name in counted}, **sites}


def line(entry: Mapping[str, Any]) -> str:
    """`entry` as one line of JSON, its end included."""
    return json.dumps(_plain(entry), allow_nan=False) + "\n"


def parse(text: bytes, place: str) -> Entry:
    """What the journal's line at `place` says.

    Raises:
        RunError: it is not a line that `finished` or `scored` makes.
    """
    try:
        entry = json.loads(text)
        if entry["event"] == "finished":
            left = str(entry.get("residual", ""))
            return Finished(_report(entry["report"]), str(entry["state"]), left)
        if entry["event"] == "evaluated":
            return Scored(int(entry["round"]), {key: entry[key] for key in SCORES})
    except KeyError as error:
        raise RunError(f"{place} is damaged: not a line of a journal, it lacks {error}") from None
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise RunError(f"{place} is damaged: {error}") from None
    raise RunError(f"{place} is damaged: the event {entry['event']!r} is unknown")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic | np.ndarray):
        return _plain(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _report(entry: dict[str, Any]) -> RoundReport:
    failures = tuple(Failure(**{**f, "client": Client(**f["client"])}) for f in entry["failures"])
    parts = {
        "updates": tuple(map(_update, entry["updates"])),
        "failures": failures,
        "loss": _loss(entry["loss"]),
        "partials": tuple(SitePartial(**partial) for partial in entry.get("partials", ())),
        "sites": tuple(SiteTimes(**times) for times in entry.get("sites", ())),
        "incidents": tuple(map(_incident, entry.get("incidents", ()))),
        "choices": tuple(map(_choice, entry.get("choices", ()))),
    }
    return RoundReport(**{**entry, **parts})


def _incident(entry: dict[str, Any]) -> Incident:
    return Incident(**{**entry, "clients": tuple(Client(**client) for client in entry["clients"])})


def _choice(entry: dict[str, Any]) -> Choice:
    return Choice(**{**entry, "client": Client(**entry["client"])})


def _update(entry: dict[str, Any]) -> Update:
    parts = {
        "client": Client(**entry["client"]),
        "ref": Ref(**entry["ref"]),
        "spent": Spent(**entry["spent"]),
        "first_loss": _loss(entry["first_loss"]),
        "loss": _loss(entry["loss"]),
        "notes": tuple(entry.get("notes", ())),
        "personal": Personal(**entry["personal"]) if entry.get("personal") else None,
    }
    return Update(**{**entry, **parts})


def _loss(value: float | None) -> float:
    return math.nan if value is None else value
