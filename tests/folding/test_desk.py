"""The driver's sums, as the threads of two lanes use them at once."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from parslfl.codecs.pieces import Dense
from parslfl.folding.desk import Desk


@pytest.fixture
def restless() -> Iterator[None]:
    """Threads that take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("restless")
def test_a_lane_begins_while_the_other_makes_its_sums() -> None:
    """They lie in one dict, which must not be gone through while it grows."""
    with ThreadPoolExecutor(1) as other:
        for _ in range(30):
            desk = Desk(like={"w": np.zeros(1, np.float32)})
            made = other.submit(_make_sums, desk)
            while not made.done():
                desk.clear(0)
            assert made.result() == 300


def test_only_the_first_lane_is_kept_where_a_step_needs_memory() -> None:
    desk = Desk(like={"w": np.zeros(2, np.float32)})
    for lane, scale in ((0, 0), (1, 0), (0, 1), (1, 1)):
        desk.sums(lane, scale)["w"][:] = 1 + lane
    for lane in (0, 1):
        desk.count(lane, {}, 1.0)
    means = [desk.mean(2, scale, 2.0)["w"] for scale in (0, 1)]
    desk.keep_first_lane()
    assert sorted(desk.totals) == [(0, 0), (0, 1)]
    assert not desk.counts
    desk.clear(1)
    assert desk.sums(1, 0)["w"].tolist() == [0, 0]
    assert [mean.tolist() for mean in means] == [[1.5, 1.5]] * 2


def test_memory_that_was_given_back_is_begun_afresh_once() -> None:
    desk = Desk(like={"w": np.zeros(1, np.float32)})
    desk.sums(1, 0)
    desk.clear(1)
    desk.keep_first_lane()
    for _ in range(2):
        desk.add(1, 0, [(Dense({"w": np.ones(1, np.float32)}), 2.0)])
    assert desk.sums(1, 0)["w"].tolist() == [4]


def _make_sums(desk: Desk) -> int:
    return len([desk.sums(1, scale) for scale in range(300)])
