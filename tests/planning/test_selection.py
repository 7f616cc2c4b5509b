"""Who trains: a pure function of the seed."""

from __future__ import annotations

from collections import Counter

from parslfl.codecs.raw import Raw
from parslfl.learning import LocalWork
from parslfl.messages import Client, RoundPlan
from parslfl.planning.selection import in_time, plan_round

ROSTER = [Client(i, "here") for i in range(60)]


def plan(round: int, seed: int = 0, count: int = 20) -> RoundPlan:
    return plan_round(round, ROSTER, count, seed, LocalWork(), Raw())


def test_the_same_question_has_the_same_answer() -> None:
    assert plan(3) == plan(3)
    assert plan(3) != plan(4)
    assert plan(3) != plan(3, seed=1)


def test_no_client_twice_and_in_roster_order() -> None:
    chosen = [a.client.index for a in plan(0).cohort]
    assert chosen == sorted(set(chosen))
    assert len(chosen) == 20


def test_every_client_is_chosen_about_equally_often() -> None:
    times = Counter(a.client.index for r in range(600) for a in plan(r).cohort)
    assert len(times) == 60
    assert min(times.values()) > 140  # expected 200, standard deviation 11.5
    assert max(times.values()) < 260


def test_everyone() -> None:
    assert [a.client for a in plan(0, count=60).cohort] == ROSTER


def test_quorum_is_half_rounded_up_and_all_are_awaited() -> None:
    assert (plan(0, count=5).quorum, plan(0, count=5).close_at) == (3, 5)


#: Four clients at `near`, two at `far`.
TWO = [Client(i, "near" if i < 4 else "far") for i in range(6)]


def test_a_site_that_cannot_begin_before_the_deadline_is_left_out() -> None:
    assert in_time(TWO, 4, 60.0, {"near": 0.0, "far": 61.0}) == TWO[:4]
    assert in_time(TWO, 4, 60.0, {"near": 0.0, "far": 54.0}) == TWO[:4]  # clients stop then
    assert in_time(TWO, 4, 60.0, {"near": 0.0, "far": 53.0}) == TWO
    assert in_time(TWO, 4, 60.0, {"near": 0.0}) == TWO  # nobody knows: it may be in time


def test_all_are_asked_where_too_few_could_be_in_time() -> None:
    assert in_time(TWO, 5, 60.0, {"far": 3600.0}) == TWO
    assert in_time(TWO, 4, 60.0, {"far": 3600.0, "near": 3600.0}) == TWO


def test_without_a_deadline_waiting_changes_nothing() -> None:
    def drawn(deadline: float | None, **waits: float) -> RoundPlan:
        return plan_round(0, TWO, 3, 7, LocalWork(), Raw(), deadline=deadline, waits=waits)

    assert drawn(None, far=3600.0) == drawn(None)
    assert {a.client.site for a in drawn(60.0, far=3600.0).cohort} == {"near"}
    assert drawn(60.0, far=3600.0) == drawn(60.0, far=3600.0)
    assert drawn(60.0, far=1.0) == drawn(60.0)
