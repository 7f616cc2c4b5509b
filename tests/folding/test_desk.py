"""The driver's sums, as the threads of two lanes use them at once."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

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


def _make_sums(desk: Desk) -> int:
    return len([desk.sums(1, scale) for scale in range(300)])
