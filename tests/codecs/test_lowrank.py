"""Singular components instead of numbers, with small matrices worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from parslfl.codecs.lowrank import LowRank, _Places, _worth_most
from parslfl.errors import PayloadError
from parslfl.params import Params

RNG = np.random.default_rng(0)


def matrix(rows: int, columns: int, lengths: list[float]) -> np.ndarray:
    """A matrix with these singular values."""
    left = np.linalg.qr(RNG.normal(size=(rows, rows)))[0][:, : len(lengths)]
    right = np.linalg.qr(RNG.normal(size=(columns, columns)))[0][: len(lengths)]
    return ((left * lengths) @ right).astype(np.float32)


def test_a_matrix_of_one_component_comes_whole_in_as_many_numbers_as_it_has_sides() -> None:
    delta = {"w": np.outer([1, 2, 3, 4], [5, 0, -5]).astype(np.float32)}
    codec = LowRank(ratio=7 / 12)
    arrays, note = codec.encode(delta)
    assert (arrays["values"].size, note["ranks"]) == (7, [1])
    assert abs(arrays["values"][:4]).max() == pytest.approx(abs(arrays["values"][4:]).max())
    np.testing.assert_allclose(codec.decode(arrays, note, delta)["w"], delta["w"], atol=1e-5)


def test_the_components_with_the_most_energy_a_number_are_sent() -> None:
    """9, 4 and 1 in 8 + 8 numbers; 7 in 40 + 8: by number 5.06, 1 and 0.06, and 1.02. Two and one fit."""
    delta = {"a": matrix(8, 8, [9, 4, 1]), "b": matrix(40, 8, [7]), "bias": np.ones(4, np.float32)}
    total = 64 + 320 + 4
    codec = LowRank(ratio=(4 + 2 * 16 + 48) / total)
    arrays, note = codec.encode(delta)
    assert (note["ranks"], arrays["values"].size) == ([2, 1], 84)
    back = codec.decode(arrays, note, delta)
    assert np.linalg.norm(back["a"] - delta["a"]) == pytest.approx(1, rel=1e-3)
    np.testing.assert_allclose(back["b"], delta["b"], atol=1e-5)
    np.testing.assert_array_equal(back["bias"], delta["bias"])
    assert LowRank((4 + 16 + 48) / total).encode(delta)[1]["ranks"] == [1, 1]


@pytest.mark.parametrize("budget", [-3, 0, 40, 333, 10**4])
def test_of_equal_energies_the_first_matrix_s_first_component_is_sent(budget: int) -> None:
    """As from a list that is sorted by energy a number, matrix and component, one after the other."""
    places = _Places.of({str(i): np.empty((8, 8 << i % 2)) for i in range(9)})
    energies = {i: (RNG.integers(0, 4, 8) * sum(places.matrices[i])).astype(np.float32) for i in range(9)}
    every = [(-e / sum(places.matrices[i]), i, n) for i in energies for n, e in enumerate(energies[i]) if e]
    ranks, used = [0] * 9, 0
    for _, index, number in sorted(every):
        cost = sum(places.matrices[index])
        if number == ranks[index] and (used + cost <= budget or not used):
            ranks[index], used = number + 1, used + cost
    assert list(_worth_most(energies, places, budget).values()) == ranks


def test_arrays_of_one_dimension_and_small_ones_are_sent_whole_and_one_component_always_is() -> None:
    delta: Params = {
        "bias": np.array([1, -2, 3], np.float32),
        "scale": np.array(4, np.float64),
        "pair": np.array([[1, 2], [3, 4]], np.float32),
        "kernel": matrix(6, 12, [3, 2]).reshape(6, 3, 4),
    }
    codec = LowRank(ratio=1e-9)
    arrays, note = codec.encode(delta)
    assert (note["ranks"], arrays["values"].size) == ([1], 3 + 1 + 4 + 18)
    back = codec.decode(arrays, note, delta)
    for name in ("bias", "scale", "pair"):
        assert (back[name].tolist(), back[name].dtype) == (delta[name].tolist(), delta[name].dtype)
    assert np.linalg.norm(back["kernel"] - delta["kernel"]) == pytest.approx(2, rel=1e-4)
    assert LowRank().encode({"w": np.zeros((5, 5), np.float32)})[1]["ranks"] == [0]


@pytest.mark.parametrize("shape", [(300, 500), (500, 300)])
def test_a_large_matrix_is_looked_at_through_a_sketch(shape: tuple[int, int]) -> None:
    """A tenth of the numbers is a rank of 18: five strong components in noise are found all the same."""
    noise = RNG.normal(size=shape).astype(np.float32) / 100
    delta = {"w": matrix(*shape, [50, 40, 30, 20, 10]) + noise}
    codec = LowRank(0.1)
    arrays, note = codec.encode(delta, 3)
    assert note["ranks"] == [18]
    left = codec.decode(arrays, note, delta)["w"] - delta["w"]
    assert np.linalg.norm(left) < 1.1 * np.linalg.norm(noise)
    assert codec.encode(delta, 3)[0]["values"].tobytes() == arrays["values"].tobytes()


def test_updates_are_added_without_being_made_whole() -> None:
    delta = {"w": matrix(700, 600, [5, 4, 3]), "b": np.arange(3, dtype=np.float32)}
    codec = LowRank(0.02)
    update = codec.open(*codec.encode(delta), delta)
    total = {name: np.ones_like(array) for name, array in delta.items()}
    update.add(total, 2.0)
    np.testing.assert_allclose(total["w"], 1 + 2 * delta["w"], atol=1e-4)
    assert total["b"].tolist() == [1, 3, 5]
    assert update.norm() == pytest.approx(np.sqrt(25 + 16 + 9 + 5), rel=1e-4)


@pytest.mark.parametrize("ranks", [None, 3, [], [1, 1], [-1], [13], [True], [1.0], ["1"], [3]])
def test_ranks_that_cannot_be_are_refused(ranks: object) -> None:
    delta = {"w": matrix(12, 14, [3, 2, 1])}
    codec = LowRank(0.4)  # two components of 26 numbers
    arrays, note = codec.encode(delta)
    assert note["ranks"] == [2]
    with pytest.raises(PayloadError, match="rank"):
        codec.open(arrays, {**note, "ranks": ranks}, delta)
    with pytest.raises(PayloadError, match=r"'values' is float32\[52\], expected float32\[26\]"):
        codec.open(arrays, {**note, "ranks": [1]}, delta)


@pytest.mark.parametrize("ratio", [0, -1, 1.5, float("nan")])
def test_a_ratio_is_above_zero_and_at_most_one(ratio: float) -> None:
    with pytest.raises(ValueError, match="ratio"):
        LowRank(ratio)
