"""The codec of a client by its link and its training time, in numbers worked by hand."""

from __future__ import annotations

from typing import Any

import pytest

from parslfl.codecs.raw import Raw
from parslfl.messages import Client
from parslfl.planning.history import History, Late, Record
from parslfl.planning.links import Ladder, Rung, choose_codec

ANN, BOB = Client(0, "here"), Client(1, "here")
LADDER = Ladder(
    [Rung(Raw(), spec, share) for spec, share in (("a", 1.0), ("b", 0.5), ("c", 0.1), ("d", 0.01))], 2
)


def known(link: float | None, pace: float = 0.1, codec: str = "c", **changes: Any) -> History:
    """10 MB of update, `pace` x 100 steps of training."""
    links = () if link is None else (link,)
    record = Record(codec, links=links, paces={1.0: (pace,)}, steps=100, **changes)
    return History({ANN: record}, {1.0: 1e7})


def chosen(history: History, client: Client = ANN, deadline: float | None = None) -> str:
    return choose_codec(client, history, LADDER, 1.0, deadline)[0].spec


def test_at_first_it_is_the_one_that_the_ladder_names() -> None:
    rung, why = choose_codec(ANN, History(), LADDER, 1.0, None)
    assert (rung.spec, why) == ("c", "link not measured yet")


@pytest.mark.parametrize(
    ("link", "codec", "wanted"),
    [
        (1e8, "c", "a"),  # raw takes 0.1 s of the 1 s that is a tenth of 10 s of training
        (2e7, "c", "a"),  # 0.5 s: just half of it
        (1.9e7, "c", "b"),  # raw would take more than half, the next 0.26 s
        (1.9e7, "a", "a"),  # who has it keeps it: raw takes 0.53 s
        (9.9e6, "a", "b"),  # raw takes more than 1 s, the next half of that
        (4e6, "a", "c"),  # 2.5 s, 1.25 s, 0.25 s
        (4e6, "d", "c"),
        (1.9e6, "d", "d"),  # c would take 0.53 s
        (1.9e6, "c", "c"),
        (1e4, "a", "d"),  # none is short enough: the strongest
    ],
)
def test_the_mildest_that_takes_a_tenth_of_the_training(link: float, codec: str, wanted: str) -> None:
    assert chosen(known(link, codec=codec)) == wanted


def test_a_tenth_of_a_second_is_never_too_long() -> None:
    """Training takes 1 ms: a tenth of that is nothing."""
    assert chosen(known(2.1e8, pace=1e-5)) == "a"
    assert chosen(known(9e7, pace=1e-5, codec="a")) == "b"


def test_it_does_not_flap() -> None:
    """A link that swings by a quarter around the edge between two codecs."""
    codec, seen = "a", []
    for link in (9e6, 1.1e7, 9e6, 1.2e7, 9e6):
        codec = chosen(known(link, codec=codec))
        seen.append(codec)
    assert seen == ["b"] * 5


def test_the_reason_has_the_numbers() -> None:
    _, why = choose_codec(ANN, known(4e6), LADDER, 1.0, None)
    assert why == "link 4 MB/s, training 10 s: 0.25 s of transfer (raw: 2.5 s)"
    _, why = choose_codec(ANN, known(1.234e8), LADDER, 1.0, None)
    assert why == "link 123 MB/s, training 10 s: 0.081 s of transfer"


def test_a_client_without_numbers_goes_by_those_of_its_site() -> None:
    rung, why = choose_codec(BOB, known(4e7), LADDER, 1.0, None)
    assert (rung.spec, why) == ("a", "link 40 MB/s (its site's), training 10 s: 0.25 s of transfer")
    assert chosen(known(4e7), Client(2, "there")) == "c"


def test_what_updates_came_to_counts_more_than_what_was_expected() -> None:
    history = known(4e6)
    assert chosen(history) == "c"
    assert chosen(History(history.clients, history.sizes, {"c": 0.8})) == "d"


def test_part_of_the_model_is_sent_and_trained_sooner() -> None:
    """A quarter of 10 MB in a tenth of a quarter of 10 s."""
    rung, why = choose_codec(ANN, known(4e7), LADDER, 0.5, None)
    assert (rung.spec, why) == ("a", "link 40 MB/s, training 2.5 s: 0.062 s of transfer")


def test_who_is_late_before_its_link_was_ever_measured_sends_less() -> None:
    history = known(None, late=(Late(1.0, 60.0),))
    assert chosen(history, deadline=60.0) == "d"
    assert chosen(history, deadline=90.0) == "c"
    assert chosen(known(None, codec="d", late=(Late(1.0, 60.0),)), deadline=60.0) == "d"


def test_a_link_that_was_not_seen_for_five_rounds_is_looked_at_again() -> None:
    assert chosen(known(1e4, codec="d", unseen=4)) == "d"
    assert chosen(known(1e4, codec="d", unseen=5)) == "c"
    assert chosen(known(1e4, codec="c", unseen=6)) == "b"
    assert chosen(known(None, codec="c", unseen=6)) == "c"
