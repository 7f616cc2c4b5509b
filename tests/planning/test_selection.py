"""Who trains: a pure function of the seed."""

from __future__ import annotations

from collections import Counter

from parslfl.codecs.raw import Raw
from parslfl.learning import LocalWork
from parslfl.messages import Client, RoundPlan
from parslfl.planning.selection import plan_round

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
