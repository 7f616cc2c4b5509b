"""Parts of arrays, worked by hand, and descriptions of parts that do not fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from parslfl import submodel
from parslfl.errors import PayloadError
from parslfl.params import Params
from parslfl.submodel import Kept

LIKE: Params = {
    "w": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b": np.array([10.0, 20.0], np.float32),
    "n": np.array([7]),
}
KEPT: Kept = {"w": (np.array([1]), np.array([0, 2])), "b": (np.array([1]),)}


def add(total: Params, part: Params, kept: Kept) -> None:
    """A piece after the other."""
    for name, array in part.items():
        where = submodel.place(kept, name, total)
        for piece in submodel.pieces(array.shape):
            total[name][submodel.cut(where, piece)] += array[piece]


def test_take_cuts_what_is_named_and_carries_the_rest() -> None:
    part = submodel.take(LIKE, KEPT)
    assert part["w"].tolist() == [[3.0, 5.0]]
    assert part["b"].tolist() == [20.0]
    assert part["n"] is LIKE["n"]


def test_shapes_are_those_of_the_part_without_its_memory() -> None:
    part, shapes = submodel.take(LIKE, KEPT), submodel.shapes(LIKE, KEPT)
    assert [(a.shape, a.dtype) for a in shapes.values()] == [(a.shape, a.dtype) for a in part.values()]
    huge = submodel.shapes({"w": np.broadcast_to(np.float32(0), (1 << 20, 1 << 20))}, {})
    assert huge["w"].strides == (0, 0)


def test_a_part_is_added_and_counted_where_it_is_from() -> None:
    total = {"w": np.zeros((2, 3), np.float32), "b": np.zeros(2, np.float32)}
    counts = {name: array.copy() for name, array in total.items()}
    add(total, {"w": np.array([[2.0, 4.0]]), "b": np.array([8.0])}, KEPT)
    submodel.count(counts, KEPT, 2.0)
    add(total, {"w": np.full((2, 3), 3.0), "b": np.full(2, 3.0)}, {})
    submodel.count(counts, {}, 3.0)
    assert total["w"].tolist() == [[3.0, 3.0, 3.0], [5.0, 3.0, 7.0]]
    assert counts["w"].tolist() == [[3.0, 3.0, 3.0], [5.0, 3.0, 5.0]]
    assert total["b"].tolist() == [3.0, 11.0]
    assert counts["b"].tolist() == [3.0, 5.0]


@pytest.mark.parametrize("dims", [(0, 1), (0,), (1,), (2,), ()])
def test_dimensions_that_stay_whole_come_along(dims: tuple[int, ...]) -> None:
    """As the kernels of a convolution, whose last two dimensions nobody cuts."""
    whole = {"w": np.arange(4 * 3 * 5 * 2, dtype=np.float32).reshape(4, 3, 5, 2)}
    cut = [np.array([1, 2]) if dim in dims else None for dim in range(4)]
    every = [np.arange(n) if at is None else at for at, n in zip(cut, whole["w"].shape, strict=True)]
    part, total = submodel.take(whole, {"w": tuple(cut)}), {"w": np.zeros((4, 3, 5, 2), np.float32)}
    assert np.array_equal(part["w"], whole["w"][np.ix_(*every)])
    add(total, part, {"w": tuple(cut)})
    wanted = np.zeros_like(total["w"])
    wanted[np.ix_(*every)] = part["w"]
    assert np.array_equal(total["w"], wanted)


@pytest.mark.parametrize("block", [1, 2, 5, 7, 100])
@pytest.mark.parametrize("shape", [(), (0,), (5,), (3, 0), (4, 3), (2, 3, 5), (2, 3, 5, 2), (1, 1, 7)])
def test_pieces_are_all_of_an_array_in_order(
    shape: tuple[int, ...], block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submodel, "BLOCK", block)
    array = np.atleast_1d(np.arange(np.prod(shape, dtype=int)).reshape(shape))
    found = [array[piece].reshape(-1) for piece in submodel.pieces(shape)]
    assert np.array_equal(np.concatenate([np.empty(0, int), *found]), array.reshape(-1))
    assert all(part.size <= block for part in found)


@pytest.mark.parametrize("block", [1, 4, 6, 1000])
@pytest.mark.parametrize("dims", [(0, 1), (0,), (1,), (2,), (), (0, 2)])
def test_rows_longer_than_a_block_are_added_in_pieces(
    dims: tuple[int, ...], block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submodel, "BLOCK", block)
    test_dimensions_that_stay_whole_come_along(dims)
    whole = np.zeros((4, 3, 5, 2), np.float32)
    kept = {"w": tuple(np.array([1, 2]) if dim in dims else None for dim in range(4))}
    counts = {"w": whole}
    submodel.count(counts, kept, 2.0)
    every = [np.arange(n) if at is None else at for at, n in zip(kept["w"], whole.shape, strict=True)]
    wanted = np.zeros_like(whole)
    wanted[np.ix_(*every)] = 2
    assert np.array_equal(counts["w"], wanted)


def test_put_changes_a_copy() -> None:
    whole = {"w": np.zeros((2, 3), np.float32), "b": np.zeros(2, np.float32)}
    made = submodel.put(whole, {"w": np.array([[2.0, 4.0]]), "b": np.array([8.0])}, KEPT)
    assert made["w"].tolist() == [[0.0, 0.0, 0.0], [2.0, 0.0, 4.0]]
    assert made["b"].tolist() == [0.0, 8.0]
    assert not whole["w"].any()


def test_a_description_is_read_back() -> None:
    again = submodel.read(submodel.describe(KEPT), LIKE)
    assert {name: [None if at is None else at.tolist() for at in dims] for name, dims in again.items()} == {
        "w": [[1], [0, 2]],
        "b": [[1]],
    }
    assert submodel.describe(KEPT)["cuts"] == ["Ag==", "BQ=="]


@pytest.mark.parametrize(
    "described",
    [
        None,
        [],
        {"cuts": []},
        {"cuts": ["Ag=="], "arrays": {"v": [0]}},
        {"cuts": ["Ag=="], "arrays": {"b": [0, 0]}},
        {"cuts": ["Ag=="], "arrays": {"b": [1]}},
        {"cuts": ["Ag=="], "arrays": {"b": [-2]}},
        {"cuts": ["Ag=="], "arrays": {"b": ["0"]}},
        {"cuts": ["Ag=="], "arrays": {"b": [True]}},
        {"cuts": ["BA=="], "arrays": {"b": [0]}},
        {"cuts": ["AA=="], "arrays": {"b": [0]}},
        {"cuts": ["!!"], "arrays": {"b": [0]}},
        {"cuts": [3], "arrays": {"b": [0]}},
        {"cuts": ["/" * (1 << 20)], "arrays": {"b": [0]}},
    ],
)
def test_what_does_not_fit_is_refused(described: Any) -> None:
    with pytest.raises(PayloadError, match="no sub-model"):
        submodel.read(described, LIKE)


def test_a_dimension_that_no_index_tells_is_refused() -> None:
    huge = {"w": np.broadcast_to(np.float32(0), (1 << 31,))}
    with pytest.raises(PayloadError, match="a dimension of 2147483648 is longer than its indices"):
        submodel.read({"cuts": [], "arrays": {}}, huge)
