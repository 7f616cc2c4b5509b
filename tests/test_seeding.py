"""Seeds: fixed for ever, and different for every use."""

from __future__ import annotations

import itertools

from parslfl.seeding import derive, generator


def test_a_seed_never_changes() -> None:
    assert derive(0, "train", 3, 7) == derive(0, "train", 3, 7)


def test_neighbours_do_not_collide() -> None:
    uses = [("train", r, c) for r, c in itertools.product(range(30), range(30))] + [
        ("select", r) for r in range(30)
    ]
    assert len({derive(s, *use) for s in range(3) for use in uses}) == 3 * len(uses)


def test_generators_repeat() -> None:
    assert generator(1, "x").integers(1 << 60) == generator(1, "x").integers(1 << 60)
    assert generator(1, "x").integers(1 << 60) != generator(2, "x").integers(1 << 60)
