"""How much of the model a client trains, in numbers worked by hand."""

from __future__ import annotations

from typing import Any

import pytest

from parslfl.messages import Client
from parslfl.planning.history import History, Late, Record
from parslfl.planning.paces import choose_keep

CLIENTS = [Client(i, "here") for i in range(5)]
SLOW = CLIENTS[4]


def known(slower: float, **changes: Any) -> History:
    """Four clients with 1/8 s a step and one that is `slower` times slower, 80 steps each."""
    record = Record(paces={1.0: (0.125,)}, steps=80)
    own = Record(**{"paces": {1.0: (0.125 * slower,)}, "steps": 80, **changes})
    return History({**dict.fromkeys(CLIENTS[:4], record), SLOW: own})


def keep(history: History, deadline: float | None = None) -> float:
    return choose_keep(SLOW, history, deadline)[0]


def test_at_first_it_is_the_whole_model() -> None:
    assert choose_keep(SLOW, History(), 60.0) == (1.0, "pace not measured yet")


@pytest.mark.parametrize(
    ("slower", "wanted"),
    [
        (0.5, 1.0),
        (1.5, 1.0),  # just as slow as one may be
        (1.6, 0.75),  # 1.6 x 0.5625 = 0.9
        (2.7, 0.5),  # 2.7 x 0.5625 = 1.52; 2.7 x 0.25 = 0.68
        (6.5, 0.25),  # 6.5 x 0.25 = 1.63; 6.5 x 0.0625 = 0.41
        (99.0, 0.25),
    ],
)
def test_a_slow_client_trains_as_much_as_keeps_up_with_the_median(slower: float, wanted: float) -> None:
    assert keep(known(slower)) == wanted
    assert choose_keep(CLIENTS[0], known(slower), None)[0] == 1.0


def test_the_whole_model_comes_back_only_with_room() -> None:
    """At half the units a step takes a quarter: 1/32 s is as fast as all others, more is too slow."""
    paces = {1.0: (0.375,), 0.5: (0.0375,)}
    back = {"keep": 0.5, "measured": 0.5}
    assert keep(known(1.0, paces=paces, **back)) == 0.75
    assert keep(known(1.0, paces={1.0: (0.375,), 0.5: (0.03125,)}, **back)) == 1.0


def test_it_does_not_flap() -> None:
    share, seen = 1.0, []
    for slower in (1.6, 1.4, 1.6, 1.3, 1.6):
        share = keep(known(slower, keep=share))
        seen.append(share)
    assert seen == [0.75] * 5


def test_a_training_of_a_second_is_never_too_long() -> None:
    """80 steps of 1/80 s beside others of 1/800 s."""
    short = Record(paces={1.0: (1 / 800,)}, steps=80)
    others = dict.fromkeys(CLIENTS[:4], short)
    assert keep(History({**others, SLOW: Record(paces={1.0: (1 / 80,)}, steps=80)})) == 1.0
    assert keep(History({**others, SLOW: Record(paces={1.0: (1.01 / 80,)}, steps=80)})) == 0.75


def test_the_deadline_counts_too() -> None:
    """10 s for the whole model, 5.6 s for three quarters of the units: at most 0.8 of the deadline."""
    assert keep(known(1.0), 12.5) == 1.0
    assert keep(known(1.0), 12.4) == 0.75
    assert keep(known(1.0), 7.1) == 0.75
    assert keep(known(1.0), 7.0) == 0.5


def test_who_was_late_gets_less_than_what_it_was_late_with() -> None:
    history = known(1.0, paces={}, late=(Late(1.0, 60.0),))
    assert choose_keep(SLOW, history, 60.0) == (0.75, "late at the deadline with the whole model")
    again = known(1.0, paces={}, late=(Late(1.0, 60.0), None, Late(0.75, 61.0)), keep=0.75)
    assert choose_keep(SLOW, again, 60.0) == (0.5, "late at the deadline with 75 % of the units")
    assert keep(known(1.0, paces={}, late=(Late(0.25, 60.0),), keep=0.25), 60.0) == 0.25


def test_a_pace_that_would_do_does_not_bring_back_what_it_was_late_with() -> None:
    """It may have waited for a worker: the deadline is missed all the same."""
    history = known(1.0, late=(Late(1.0, 60.0), None), keep=0.75)
    share, why = choose_keep(SLOW, history, 60.0)
    assert share == 0.75
    assert why == (
        "late at the deadline with the whole model; 1 x the median's seconds a step, "
        "the whole model takes 10 s of 60 s"
    )


def test_without_a_deadline_being_late_is_no_reason() -> None:
    """Behind the fastest k somebody always is."""
    assert keep(known(1.0, late=(Late(1.0, 60.0),))) == 1.0


def test_the_reason_has_the_numbers() -> None:
    assert choose_keep(SLOW, known(2.7), None)[1] == "2.7 x the median's seconds a step"
