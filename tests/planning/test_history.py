"""What is remembered of clients: folded from reports, the same from the journal as from the live run."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from functools import reduce
from typing import Any

import pytest

from parslfl.messages import Client, Failure, Ref, Spent, Update
from parslfl.planning.history import History, Late
from parslfl.reports import Choice, RoundReport, SiteTimes
from parslfl.rundir import records

ANN, BOB, EVE = Client(0, "here"), Client(1, "here"), Client(2, "there")


def update(client: Client, **changes: Any) -> Update:
    """100 bytes of 400 in half a second, 10 steps in 4 s."""
    plain = Update(client, 0, Ref(100, ""), 8, 10, 10, 2.0, 1.0, 400, Spent(train=4.0, encode=0.7, send=0.5))
    return replace(plain, **changes)


def report(
    *updates: Update, late: tuple[Client, ...] = (), keep: float = 1.0, seconds: float = 9.0
) -> RoundReport:
    clients = (*(u.client for u in updates), *late)
    failures = tuple(Failure(client, 0, "late", "") for client in late)
    choices = tuple(Choice(client, "raw", keep, "so") for client in clients)
    return RoundReport(0, "", updates, failures, 1.0, 0, 0, seconds, choices=choices)


def told(*reports: RoundReport) -> History:
    return reduce(History.after, reports, History())


def test_a_client_has_a_link_and_a_pace() -> None:
    history = told(report(update(ANN)))
    assert (history.link(ANN), history.pace(ANN)) == (200.0, 0.4)
    assert (history.size(1.0), history.shares) == (400.0, {"raw": 0.25})
    assert (history.training(ANN, 1.0), history.typical) == (4.0, 0.4)


def test_of_a_client_that_was_never_chosen_its_sites_median_is_known() -> None:
    faster = update(BOB, spent=Spent(train=2.0, send=0.25))
    history = told(report(update(ANN), faster))
    other = Client(7, "here")
    assert (history.link(other), history.training(other, 1.0)) == (300.0, 3.0)
    assert (history.link(EVE), history.training(EVE, 1.0)) == (None, None)
    assert history.pace(other) is None


def test_the_last_three_measurements_count_and_one_that_was_stalled_does_not_show() -> None:
    sends = (9.0, 0.5, 50.0, 0.25)
    history = told(*(report(update(ANN, spent=Spent(train=4.0, send=s))) for s in sends))
    assert history.clients[ANN].links == (200.0, 2.0, 400.0)
    assert history.link(ANN) == 200.0


def test_what_rides_in_a_result_measures_no_link() -> None:
    rides = update(ANN, spent=Spent(train=4.0, send=0.0))
    history = told(report(update(ANN)), report(rides), report(rides))
    assert (history.link(ANN), history.clients[ANN].unseen) == (200.0, 2)


def test_a_pace_with_part_of_the_model_is_scaled_back() -> None:
    """Half the units took 0.25 of the time: keep squared. Bob's took 0.5 of it, which is then believed."""
    half = update(ANN, spent=Spent(train=1.0))
    assert told(report(half, keep=0.5)).pace(ANN) == 0.4
    history = told(report(update(BOB)), report(update(BOB, spent=Spent(train=2.0)), half, keep=0.5))
    assert history.cost(0.5) == 0.5
    assert (history.pace(ANN), history.pace(BOB)) == (0.2, 0.4)
    assert history.training(BOB, 0.5) == 2.0


def test_the_cost_is_never_less_than_a_layer_between_two_layers_has() -> None:
    """A machine that got ten times faster, not a model that costs a fortieth."""
    history = told(report(update(ANN)), report(update(ANN, spent=Spent(train=0.1)), keep=0.5))
    assert history.cost(0.5) == 0.25
    assert history.pace(ANN) == pytest.approx(0.04)


def test_sizes_that_nobody_sent_yet_follow_from_those_that_somebody_did() -> None:
    history = told(report(update(ANN)))
    assert (history.size(0.5), History().size(0.5)) == (100.0, None)
    assert told(report(update(ANN)), report(update(ANN, raw_bytes=130), keep=0.5)).size(0.5) == 130.0


def test_who_was_late_is_remembered_for_five_rounds_and_only_for_such_a_deadline() -> None:
    history = told(report(late=(ANN,), seconds=9.0))  # as of a deadline of 10 s: clients stop after 9
    record = history.clients[ANN]
    assert record.late == (Late(1.0, 9.0),)
    assert (record.too_late(10.0), record.too_late(10.1), record.too_late(None)) == ([1.0], [], [])
    assert record.just_late(8.0)
    after = reduce(History.after, [report(update(ANN))] * 4, history)
    assert after.clients[ANN].too_late(8.0) == [1.0]
    assert not after.clients[ANN].just_late(8.0)
    assert after.after(report(update(ANN))).clients[ANN].too_late(8.0) == []


def test_who_was_late_for_want_of_workers_was_not_slow() -> None:
    """Of 9 s, their site had workers in the last 4 s; blocks' seconds are summed."""
    waited = report(late=(ANN, EVE), seconds=9.0)
    sites = (SiteTimes("here", ready=4.0), SiteTimes("there", ready=4.5))
    history = told(replace(waited, sites=sites))
    assert (history.clients[ANN].late, history.clients[EVE].late) == ((None,), (Late(1.0, 9.0),))


@pytest.mark.parametrize("lie", [math.nan, math.inf, -1.0, 0.0, 1e300, "fast", None])
def test_what_no_clock_shows_is_not_believed(lie: Any) -> None:
    claimed = update(ANN, steps=lie, raw_bytes=lie, spent=Spent(train=lie, send=lie))
    history = told(report(claimed))
    assert (history.link(ANN), history.pace(ANN), history.size(1.0)) == (None, None, None)
    assert history.shares == {}


def test_one_liar_does_not_change_what_is_believed_of_all() -> None:
    lies = update(EVE, raw_bytes=10**14, spent=Spent(train=1e9, send=1e-6))
    history = told(report(update(ANN), update(BOB), lies))
    assert (history.size(1.0), history.typical, history.shares["raw"]) == (400.0, 0.4, 0.25)


def test_the_journal_tells_the_same() -> None:
    live = [
        report(update(ANN, spent=Spent(train=1 / 3, send=0.1)), late=(BOB,)),
        report(update(BOB, spent=Spent(train=math.inf)), keep=0.75),
    ]
    read = []
    for one in live:
        entry = records.parse(records.line(records.finished(one, "")).encode(), "here")
        assert isinstance(entry, records.Finished)
        read.append(entry.report)
    assert told(*read) == told(*live)
    assert json.loads(records.line(records.metrics(live[0]))).keys().isdisjoint({"choices"})
    assert read[0].choices == live[0].choices


def test_a_round_without_choices_tells_nothing() -> None:
    assert told(replace(report(update(ANN)), choices=())) == History()
