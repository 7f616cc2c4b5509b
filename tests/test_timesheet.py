"""A round's report from what its executors and updates tell."""

from __future__ import annotations

import math
from dataclasses import replace

from parslfl.messages import Client, Failure, Ref, Spent, Update
from parslfl.reports import Incident, SiteTimes
from parslfl.timesheet import Timesheet, mean_loss, site_times, survived
from parslfl_executors.ledger import Account, Event, Ledger

HPC, CLOUD = Client(0, "hpc"), Client(1, "cloud")
UPDATE = Update(HPC, 0, Ref(8, ""), 10, 1, 1, 2.5, 1.5, 8, Spent(load=1.0, train=4.0, encode=0.5, setup=0.25))
LOST = "slurm job 7 on node1 ended: CANCELLED (by scancel)"


class Site:
    """A site's executor, as far as it tells anything."""

    def __init__(self, *events: Event) -> None:
        self.ledger, self.events = Ledger(), events

    def troubles(self) -> tuple[Event, ...]:
        found, self.events = self.events, ()
        return found


def test_workers_times_are_those_of_the_sites_own_updates() -> None:
    other = replace(UPDATE, client=CLOUD)
    times = site_times("hpc", Account(2, 1.0, 2.0, 9.0, 3.0), [UPDATE, UPDATE, other])
    assert times == SiteTimes("hpc", 2, 1.0, 2.5, 9.0, 3.0, transfer=3.0, training=8.0)


def test_a_round_gets_what_was_added_since_the_last() -> None:
    site = Site()
    site.ledger.asked("0", 0.0)
    site.ledger.ended("0", 5.0)
    sheet = Timesheet({"hpc": site})
    first = sheet.times([UPDATE])[0]
    assert (first.queued, first.starting) == (5.0, 0.25)
    assert sheet.times([])[0] == SiteTimes("hpc")


def test_the_clients_of_a_block_are_one_incident() -> None:
    events = [Event(11.0, LOST, "0"), Event(11.5, LOST, "0", task=3), Event(11.6, LOST, "0", task=99)]
    assert survived("hpc", events, 10.0, {3: HPC}, []) == [Incident("hpc", 1.0, LOST, (HPC,))]


def test_causes_without_a_block_are_told_apart() -> None:
    events = [Event(11.0, "HTTP 500 (once)"), Event(12.0, "squeue did not answer (once)")]
    assert [one.reason for one in survived("hpc", events, 10.0, {}, [])] == [event.why for event in events]


def test_a_loss_that_only_cost_clients_is_their_failure_and_nothing_more() -> None:
    failure = Failure(HPC, 0, "lost", f"{LOST}; ManagerLost: of manager 1")
    assert survived("hpc", [Event(11.0, LOST, "0")], 10.0, {}, [failure]) == []
    assert survived("cloud", [Event(11.0, LOST, "0")], 10.0, {}, [failure]) != []


def test_incidents_of_all_sites_come_in_order() -> None:
    sheet = Timesheet({"hpc": Site(Event(13.0, "later")), "cloud": Site(Event(12.0, "sooner"))})
    assert [(one.site, one.at) for one in sheet.incidents(10.0, {}, [])] == [("cloud", 2.0), ("hpc", 3.0)]
    assert sheet.incidents(10.0, {}, []) == ()


def test_the_loss_of_clients_that_made_no_step_is_left_out() -> None:
    idle = replace(UPDATE, loss=math.nan, samples=1000)
    assert mean_loss([UPDATE, idle, replace(UPDATE, loss=4.5, samples=20)]) == 3.5
