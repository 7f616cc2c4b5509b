"""Walks over several updates: every block is visited, and numbers are as numpy has them."""

from __future__ import annotations

import numpy as np
import pytest

from parslfl.stack import Stack, in_order

SIZE = 70_001  # three blocks, the last one not full


def updates(count: int) -> Stack:
    random = np.random.default_rng(count)
    return Stack(
        tuple(
            {"w": random.normal(size=(7, SIZE // 7)).astype(np.float32), "b": random.normal(size=3)}
            for _ in range(count)
        )
    )


@pytest.mark.parametrize("count", [*range(1, 18), 20, 33])
def test_rows_come_in_order(count: int) -> None:
    rows = np.random.default_rng(0).integers(0, 9, (count, 50)).astype(np.float32)
    assert in_order(rows.copy()).tolist() == np.sort(rows, axis=0).tolist()


def test_every_block_is_reduced() -> None:
    stack = updates(3)
    out = {name: np.empty_like(array) for name, array in stack.deltas[0].items()}
    stack.reduce(lambda rows: rows.max(axis=0), out)
    for name, array in out.items():
        assert (array == np.maximum.reduce([delta[name] for delta in stack.deltas])).all()


def test_updates_stay_as_they_are() -> None:
    stack = updates(3)
    before = [delta["w"].copy() for delta in stack.deltas]
    stack.reduce(lambda rows: in_order(rows)[0], {n: np.empty_like(a) for n, a in stack.deltas[0].items()})
    stack.squared_distances()
    assert all((a == d["w"]).all() for a, d in zip(before, stack.deltas, strict=True))


def test_distances_are_those_of_differences() -> None:
    """Also where updates are a thousand times as long as their differences."""
    stack = updates(5)
    for delta in stack.deltas:
        delta["w"] += np.float32(1000)
    found = stack.squared_distances()
    for i, a in enumerate(stack.deltas):
        for j, b in enumerate(stack.deltas):
            wide = [np.float64(a[n]) - np.float64(b[n]) for n in a]
            assert found[i, j] == pytest.approx(sum(float((x * x).sum()) for x in wide), rel=1e-6)


def test_a_weighted_sum() -> None:
    stack = updates(3)
    out = {name: np.full_like(array, 9) for name, array in stack.deltas[0].items()}
    stack.weighted([0.5, 0.0, 2.0], out)
    a, _, c = stack.deltas
    assert np.allclose(out["w"], 0.5 * a["w"] + 2 * c["w"])
    assert stack.only([2, 0]).deltas[0] is c
