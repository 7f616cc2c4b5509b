"""Top-k, random-k and the coding of places, with small numbers worked by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parslfl.codecs import indices
from parslfl.codecs.pieces import Blocks
from parslfl.codecs.randomk import RandomK, Strata
from parslfl.codecs.sparse import Sparse
from parslfl.codecs.topk import TopK
from parslfl.errors import PayloadError
from parslfl.params import BLOCK, Params

DELTA: Params = {
    "a": np.array([[0.5, -3, 0], [0.1, 2, -0.2]], np.float32),
    "b": np.array(-2.5, np.float64),
    "c": np.array([0, 0, 1, 2], np.float32),
}


def back(codec: TopK | RandomK, delta: Params = DELTA, seed: int = 5) -> Params:
    return codec.decode(*codec.encode(delta, seed), delta)


def test_the_largest_of_the_whole_model_are_sent_and_of_equals_the_first() -> None:
    made = back(TopK(ratio=3 / 11))
    assert made["a"].tolist() == [[0, -3, 0], [0, 2, 0]]
    assert (float(made["b"]), made["b"].dtype.str) == (-2.5, "<f8")
    assert made["c"].tolist() == [0, 0, 0, 0]
    arrays, note = TopK(ratio=3 / 11).encode(DELTA)
    assert arrays["values"].tolist() == [-3, 2, -2.5]
    assert note["kept"] == 3


def test_zeros_are_never_sent_and_one_number_always_is() -> None:
    arrays, note = TopK(ratio=1).encode({"w": np.array([0, 1, 0, -1], np.float32)})
    assert (arrays["values"].tolist(), note["kept"]) == ([1, -1], 2)
    assert TopK(1e-9).encode(DELTA)[0]["values"].tolist() == [-3]
    assert TopK(1e-9).encode({"w": np.zeros(9, np.float32)})[0]["values"].tolist() == []
    assert back(TopK(), {}) == {}


def test_sparse_updates_are_added_where_they_belong() -> None:
    codec = TopK(ratio=3 / 11)
    total = {name: np.ones_like(array) for name, array in DELTA.items()}
    codec.open(*codec.encode(DELTA), DELTA).add(total, 2.0)
    assert total["a"].tolist() == [[1, -5, 1], [1, 5, 1]]
    assert float(total["b"]) == -4
    assert total["c"].tolist() == [1, 1, 1, 1]


def test_random_places_follow_from_the_seed_alone() -> None:
    codec = RandomK(ratio=0.3)
    arrays, note = codec.encode(DELTA, seed=5)
    assert set(arrays) == {"values"}
    assert (arrays["values"].size, note["seed"]) == (3, 5)
    again, other = back(codec, seed=5), back(codec, seed=6)
    assert [a.tobytes() for a in back(codec).values()] == [a.tobytes() for a in again.values()]
    assert [a.tobytes() for a in other.values()] != [a.tobytes() for a in again.values()]
    for name, array in again.items():
        assert ((array == 0) | (array == DELTA[name])).all()


def test_each_place_is_as_likely_as_any_other() -> None:
    """11 places in 3 strata of 3, 4 and 4: a place is drawn with the chance 1/3 or 1/4."""
    hits = np.zeros(11)
    for seed in range(3000):
        strata = Strata(3, 11)
        places, widths = strata.drawn(seed), np.diff(strata.edges(0, 3))
        assert widths.tolist() == [3, 4, 4]
        assert (np.diff(places) > 0).all()
        hits[places] += 1
    assert (np.abs(hits / 3000 - np.repeat([1 / 3, 1 / 4, 1 / 4], [3, 4, 4])) < 0.04).all()


def test_unbiased_numbers_have_the_right_mean() -> None:
    delta = {"w": np.arange(1, 12, dtype=np.float32)}
    mean = np.mean([back(RandomK(0.3, unbiased=True), delta, seed)["w"] for seed in range(4000)], axis=0)
    np.testing.assert_allclose(mean, delta["w"], rtol=0.12)


@settings(deadline=None)  # loops for large models are compiled first
@given(st.sets(st.integers(0, 5000), max_size=300), st.integers(5001, 10**7))
def test_places_come_back(places: set[int], size: int) -> None:
    wanted = np.array(sorted(places), np.int64)
    data, note = indices.write(wanted, size)
    assert len(data) <= size // 8 + 1
    assert indices.read(data, note, size).tolist() == wanted.tolist()


@pytest.mark.parametrize(("kept", "most_bits"), [(0.2, 5.1), (0.05, 8.5), (0.01, 9.2), (0.001, 12.5)])
def test_places_take_few_bits_before_any_entropy_coder(kept: float, most_bits: float) -> None:
    rng = np.random.default_rng(0)
    places = np.flatnonzero(rng.random(1_000_000) < kept)
    data, note = indices.write(places, 1_000_000)
    assert 8 * len(data) / len(places) < most_bits
    assert ("shift" in note) == (kept < 0.125)
    assert np.array_equal(indices.read(data, note, 1_000_000), places)


@pytest.mark.parametrize("first", [0, 1, 7, BLOCK - 3, BLOCK, 2 * BLOCK + 77])
def test_marked_places_of_a_range(first: int) -> None:
    size = 3 * BLOCK + 1001
    places = np.flatnonzero(np.random.default_rng(0).random(size) < 0.3)
    bits = indices.marked(*indices.write(places, size), size)
    for last in (first, first + 1, first + 9, first + BLOCK, size):
        found, before = bits.within(first, last)
        assert before == np.count_nonzero(places < first)
        assert np.array_equal(found, places[(places >= first) & (places < last)] - first)


@pytest.mark.parametrize("bit", [1, 7])
def test_marks_beyond_the_model_are_refused(bit: int) -> None:
    data, note = indices.write(np.arange(0, 1001, 2), 1001)
    data[-1] |= 1 << bit  # those within are as many as before
    with pytest.raises(PayloadError, match="increasing numbers below 1001"):
        indices.marked(data, note, 1001)


@pytest.mark.parametrize("ratio", [0.13, 0.3, 0.8, 1.0])
@pytest.mark.parametrize("kind", [TopK, RandomK])
def test_updates_of_many_numbers_are_added_as_those_of_few(kind: type[TopK | RandomK], ratio: float) -> None:
    """Bit for bit, though in another way: arrays of any length, sums of any dtype."""
    rng = np.random.default_rng(1)
    sizes = {"a": 2 * BLOCK + 5, "b": 1, "c": 0, "d": BLOCK - 3, "e": 40_001}
    delta: Params = {name: rng.standard_normal(size, np.float32) for name, size in sizes.items()}
    codec, total = kind(ratio), sum(sizes.values())
    arrays, note = codec.encode(delta, 7)
    places = (
        indices.read(arrays["places"], note, total)
        if "places" in arrays
        else Strata(arrays["values"].size, total).drawn(7)
    )
    opened, wanted = codec.open(arrays, note, delta), Sparse(places, arrays["values"])
    assert isinstance(opened, Blocks)
    assert opened.norm() == wanted.norm()
    for dtype in (np.float32, np.float64):
        sums = [{name: np.ones(size, dtype) for name, size in sizes.items()} for _ in range(2)]
        opened.add(sums[0], 0.3)
        wanted.add(sums[1], 0.3)
        assert [a.tobytes() for a in sums[0].values()] == [a.tobytes() for a in sums[1].values()]


def test_gaps_are_written_as_documented() -> None:
    """Places 0, 300 and 301 of 10,000: gaps 0, 299 and 0; with no low bits 299 is 255 and 44."""
    data, note = indices.write(np.array([0, 300, 301]), 10_000)
    low = note["shift"]
    highs = [0, 299 >> low, 0]
    planes = [2, 2, 0, 2]  # 299 & 15 is 1011 in binary, and it is the second gap
    assert note == {"kept": 3, "shift": 4, "bytes": 7}
    assert data.tolist() == [*highs, *planes]
    assert indices.read(
        np.array([0, 255, 44, 0], np.uint8), {"kept": 3, "shift": 0, "bytes": 4}, 500
    ).tolist() == [
        0,
        300,
        301,
    ]


@pytest.mark.parametrize(
    ("data", "note"),
    [
        ([1, 2, 3], {"kept": 2, "shift": 0, "bytes": 3}),
        ([1, 2], {"kept": 3, "shift": 0, "bytes": 2}),
        ([1, 2, 255], {"kept": 2, "shift": 0, "bytes": 3}),
        ([255, 255, 255, 255, 9], {"kept": 1, "shift": 0, "bytes": 5}),
        ([200, 0, 0], {"kept": 1, "shift": 16, "bytes": 3}),
        ([], {"kept": 1, "shift": 0, "bytes": 0}),
        ([1], {"kept": 0, "shift": 0, "bytes": 1}),
        ([1], {"kept": 1, "shift": 17, "bytes": 1}),
        ([1], {"kept": 1, "shift": -1, "bytes": 1}),
        ([1], {"kept": 1, "shift": 0.0, "bytes": 1}),
        ([1], {"kept": -1, "shift": 0, "bytes": 1}),
        ([1], {"kept": True, "shift": 0, "bytes": 1}),
        ([1], {"shift": 0, "bytes": 1}),
        ([3] + [0] * 124, {"kept": 1}),
        ([0] * 124 + [255], {"kept": 8}),
    ],
)
def test_bytes_that_are_not_so_many_increasing_places_are_refused(
    data: list[int], note: dict[str, Any]
) -> None:
    with pytest.raises(PayloadError):
        indices.read(np.array(data, np.uint8), note, 996)


def test_more_than_the_ratio_allows_is_refused() -> None:
    arrays, note = TopK(0.5).encode(DELTA)
    with pytest.raises(PayloadError, match="kept '6', expected 0 to 3"):
        TopK(0.3).open(arrays, note, DELTA)
    arrays, note = RandomK(0.5).encode(DELTA)
    for wrong in ({**note, "seed": -1}, {**note, "seed": "5"}, {**note, "seed": 2**63}):
        with pytest.raises(PayloadError, match="seed"):
            RandomK(0.5).open(arrays, wrong, DELTA)
