"""Parameter arithmetic, with numbers worked by hand."""

from __future__ import annotations

import math
import mmap
from pathlib import Path

import numpy as np
import pytest

from parslfl import params


def test_fold_adds_weighted_deltas() -> None:
    total = {"w": np.array([1.0, 2.0, 3.0], np.float32)}
    params.fold(total, {"w": np.array([1.0, 0.0, -1.0], np.float32)}, 2.0)
    assert total["w"].tolist() == [3.0, 2.0, 1.0]


def test_fold_walks_arrays_longer_than_a_block() -> None:
    n = 2 * params.BLOCK + 3
    total = {"w": np.ones((n,), np.float32)}
    params.fold(total, {"w": np.arange(n, dtype=np.float32)}, 0.5)
    np.testing.assert_array_equal(total["w"], 1 + 0.5 * np.arange(n, dtype=np.float32))


def test_fold_reaches_zero_dimensional_and_empty_arrays() -> None:
    total = {"a": np.array(1.0), "b": np.zeros((0, 3), np.float32)}
    params.fold(total, {"a": np.array(2.0), "b": np.zeros((0, 3), np.float32)}, 3.0)
    assert total["a"] == 7.0


@pytest.mark.parametrize("size", [0, 1, 5, params.SPAN, params.SPAN + 3])
@pytest.mark.parametrize("number", [1, 2, 3, 4, 5])
def test_several_deltas_are_added_as_one_after_the_other(size: int, number: int) -> None:
    """Denormals, zeros of both signs and numbers of all sizes; weights that are no powers of two."""
    random = np.random.default_rng(number)

    def drawn(dtype: type, *shape: int) -> np.ndarray:
        spread = 10.0 ** random.integers(-42, 30, shape)
        return np.asarray(random.standard_normal(shape) * spread * random.integers(-1, 2, shape), dtype)

    def arrays() -> params.Params:
        return {"w": drawn(np.float32, size), "d": drawn(np.float64, 3, 2), "s": drawn(np.float32)}

    start, deltas = arrays(), [arrays() for _ in range(number)]
    weights = [833.0, 0.1, 3.0, 100.0, 1e-3][:number]
    wanted = {name: array.copy() for name, array in start.items()}
    for delta, weight in zip(deltas, weights, strict=True):
        for name, array in delta.items():
            wanted[name][...] += array * array.dtype.type(weight)
    params.fold_all(start, list(zip(deltas, weights, strict=True)))
    assert {n: a.tobytes() for n, a in start.items()} == {n: a.tobytes() for n, a in wanted.items()}


def test_arrays_of_one_dtype_lie_in_one_vector() -> None:
    like = {"a": np.zeros((2, 3), np.float32), "b": np.float32(0) * np.zeros(()), "e": np.zeros((0, 2))}
    like = {name: array.astype(np.float32) for name, array in like.items()}
    made = params.Joined.empty_like(like)
    assert isinstance(made, params.Joined)
    params.require_like(made, like, "it")
    made.vector[:] = np.arange(7)
    assert made["a"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert made["b"] == 6
    mixed = params.Joined.empty_like({**like, "d": np.zeros(2)})
    assert not isinstance(mixed, params.Joined)
    assert params.Joined.empty_like({}) == {}


def test_a_mapped_array_is_told_from_memory(tmp_path: Path) -> None:
    (tmp_path / "numbers").write_bytes(bytes(64))
    with (tmp_path / "numbers").open("rb") as stream:
        found = mmap.mmap(stream.fileno(), 0, prot=mmap.PROT_READ)
    array = np.frombuffer(memoryview(found), np.float32)
    assert params.is_mapped(array[3:9].reshape(2, 3))
    assert not params.is_mapped(array.copy())


def test_fold_refuses_a_sum_it_cannot_write_in_place() -> None:
    with pytest.raises(ValueError, match="not contiguous"):
        params.fold({"w": np.zeros((4, 4), np.float32).T[1:]}, {"w": np.ones((3, 4), np.float32)}, 1.0)


def test_a_delta_leaves_out_integers_and_takes_the_memory_of_the_new_model() -> None:
    new = {"w": np.array([3.0], np.float32), "n": np.array([5])}
    old = {"w": np.array([1.0], np.float32), "n": np.array([4])}
    delta = params.turn_into_delta(new, old)
    assert list(delta) == ["w"]
    assert delta["w"] is new["w"]
    assert new["w"].tolist() == [2.0]


def test_a_delta_of_read_only_or_tied_arrays_has_memory_of_its_own() -> None:
    tied = np.array([3.0, 5.0], np.float32)
    fixed = np.array([7.0], np.float32)
    fixed.flags.writeable = False
    old = {"in": np.ones(2, np.float32), "out": np.ones(2, np.float32), "f": np.ones(1, np.float32)}
    delta = params.turn_into_delta({"in": tied, "out": tied[:], "f": fixed}, old)
    assert [delta[name].tolist() for name in ("in", "out", "f")] == [[2.0, 4.0], [2.0, 4.0], [6.0]]
    assert tied.tolist() == [3.0, 5.0]
    assert params.turn_into_delta({"f": fixed}, old)["f"].tolist() == [6.0]


def test_an_average_is_the_sum_of_its_lanes_by_the_weight() -> None:
    n = params.BLOCK + 1
    lanes = [{"w": np.full(n, value, np.float32)} for value in (1.0, 2.0, 6.0)]
    mean = params.average(lanes, 3.0)
    assert mean is lanes[0]
    assert np.array_equal(mean["w"], np.full(n, 3.0, np.float32))


def test_squared_norm() -> None:
    assert params.squared_norm({"a": np.array([3.0], np.float32), "b": np.array([[4.0]])}) == 25.0


def test_squared_norm_does_not_overflow_in_float32() -> None:
    assert params.squared_norm({"a": np.array([1e20], np.float32)}) == pytest.approx(1e40)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_squared_norm_shows_one_bad_element(bad: float) -> None:
    array = np.zeros(3 * params.BLOCK, np.float32)
    array[-1] = bad
    assert not math.isfinite(params.squared_norm({"a": array}))


def test_sizes() -> None:
    mixed = {"w": np.zeros((2, 3), np.float32), "n": np.zeros(4, np.int64)}
    assert params.size(mixed) == 10
    assert params.nbytes(mixed) == 24 + 32
    assert list(params.trained(mixed)) == ["w"]
