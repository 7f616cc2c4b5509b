"""What `encode` takes of memory, beside what it is given: the driver writes a downlink's step in little."""

from __future__ import annotations

import math
import tracemalloc
from collections.abc import Mapping

import numpy as np
import pytest

from parslfl.codecs import compiled
from parslfl.codecs.lowrank import LowRank
from parslfl.codecs.randomk import RandomK, Strata
from parslfl.codecs.topk import TopK
from parslfl.params import BLOCK, Params, nbytes, size
from parslfl.protocols import Codec

Shapes = Mapping[str, tuple[int, ...]]
#: Pieces that are worked on, however large the model is.
_PIECES = 3 << 19
_WHOLE: Shapes = {"w": (2560, 2560)}
#: What convolutional networks are made of, with borders that no piece ends at.
_CNN: Shapes = {
    "stem": (64, 3, 7, 7),
    "none": (0,),
    **{f"conv{i}": (128 << i // 3, 128 << i // 3, 3, 3) for i in range(7)},
    "bias": (513,),
    "head": (1001, 512),
}


#: What share of all numbers are zeros.
_ZEROS = {"zeros": 0.95, "few": 0.9999}


def drawn(shapes: Shapes, kind: str = "normal", dtype: type = np.float32) -> Params:
    random = np.random.default_rng(1)
    made: Params = {}
    for name, shape in shapes.items():
        numbers = random.standard_normal(shape, np.float32)
        if kind == "ties":
            numbers = np.sign(numbers)
        elif kind == "steps":
            numbers = np.round(numbers)
        elif kind in _ZEROS:
            numbers[random.random(shape, np.float32) < _ZEROS[kind]] = 0
        made[name] = numbers.astype(dtype)
    return made


def peak(codec: Codec, delta: Params, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(compiled, "FIRST", math.inf)
    codec.encode({"w": np.ones((300, 300), np.float32)})  # imports are not what is measured
    tracemalloc.start()
    try:
        codec.encode(delta)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("shapes", [_WHOLE, _CNN], ids=["whole", "cnn"])
@pytest.mark.parametrize("kind", ["normal", "ties", "zeros"])
@pytest.mark.parametrize("ratio", [0.02, 0.12, 0.2, 0.4, 1.0])
def test_top_k_takes_a_model_and_a_half(
    ratio: float, kind: str, shapes: Shapes, monkeypatch: pytest.MonkeyPatch
) -> None:
    delta = drawn(shapes, kind)
    assert peak(TopK(ratio), delta, monkeypatch) < 1.5 * nbytes(delta) + _PIECES


@pytest.mark.parametrize("shapes", [_WHOLE, _CNN], ids=["whole", "cnn"])
@pytest.mark.parametrize("codec", [RandomK(0.1), RandomK(0.5, unbiased=True), RandomK(1.0)], ids=repr)
def test_random_k_takes_what_is_sent(codec: RandomK, shapes: Shapes, monkeypatch: pytest.MonkeyPatch) -> None:
    delta = drawn(shapes)
    assert peak(codec, delta, monkeypatch) < codec.ratio * nbytes(delta) + _PIECES


@pytest.mark.parametrize(("codec", "most"), [(TopK(0.12), 2.3), (TopK(1.0), 2.7), (RandomK(1.0), 2)])
def test_models_of_half_precision_take_twice_as_many_of_their_size(
    codec: Codec, most: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is sent is float32: two such models."""
    delta = drawn(_WHOLE, dtype=np.float16)
    assert peak(codec, delta, monkeypatch) < most * nbytes(delta) + _PIECES


@pytest.mark.parametrize(
    ("shapes", "ratio", "most"),
    [
        (_CNN, 0.25, 0.5),
        (_CNN, 1.0, 1.2),
        ({"w": (3, 1 << 21)}, 0.25, 1.4),
        ({"w": (1 << 21, 3)}, 1.0, 1.4),
        ({"w": (1280, 1280)}, 0.25, 1.1),
        ({"w": (1280, 1280)}, 0.7, 1.8),
        ({"w": (1280, 1280)}, 1.0, 2.5),
        ({f"w{i}": (128, 128) for i in range(99)}, 0.1, 1.2),
        ({f"w{i}": (128, 128) for i in range(99)}, 1.0, 1.6),
        ({f"w{i}": (64, 64) for i in range(400)}, 0.1, 1.2),
        ({f"w{i}": (64, 64) for i in range(400)}, 1.0, 1.6),
    ],
    ids=lambda one: f"{len(one)} of {[*one.values()][-1]}" if isinstance(one, dict) else None,
)
def test_low_rank_takes_a_model_and_a_half(
    shapes: Shapes, ratio: float, most: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is sent included; more only for one large square."""
    delta = drawn(shapes)
    assert peak(LowRank(ratio), delta, monkeypatch) < most * nbytes(delta) + _PIECES


@pytest.mark.parametrize(
    ("shapes", "most"),
    [(_CNN, 1.0), ({"w": (1 << 21, 3)}, 2.1), ({f"w{i}": (64, 64) for i in range(400)}, 1.2)],
    ids=["cnn", "long columns", "small ones"],
)
def test_low_rank_makes_one_matrix_at_a_time_of_full_precision(
    shapes: Shapes, most: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    delta = drawn(shapes, dtype=np.float16)
    assert peak(LowRank(0.25), delta, monkeypatch) < most * 2 * nbytes(delta) + _PIECES


@pytest.mark.parametrize("ratio", [1e-9, 0.002, 0.1, 0.124, 0.126, 0.199, 0.201, 0.6, 1.0])
@pytest.mark.parametrize("kind", ["normal", "ties", "steps", "zeros", "few"])
def test_top_k_is_a_stable_sort(kind: str, ratio: float) -> None:
    """Over arrays of any length and dtype, a guessed threshold or none."""
    shapes = {"a": (2 * BLOCK + 5,), "b": (), "c": (0,), "d": (BLOCK - 3,), "e": (400, 301)}
    delta = {**drawn(shapes, kind), **drawn({"f": (999,)}, kind, np.float16)}
    flat = np.concatenate([array.reshape(-1).astype(np.float32) for array in delta.values()])
    chosen = np.argsort(-np.abs(flat), kind="stable")[: max(1, round(ratio * flat.size))]
    places = np.sort(chosen[flat[chosen] != 0])
    arrays, note = TopK(ratio).encode(delta)
    assert note["kept"] == places.size
    assert np.array_equal(arrays["values"], flat[places])
    back = TopK(ratio).decode(arrays, note, delta)
    wanted = np.zeros_like(flat)
    wanted[places] = flat[places]
    assert np.array_equal(np.concatenate([array.reshape(-1) for array in back.values()]), wanted)


@pytest.mark.parametrize("unbiased", [False, True])
@pytest.mark.parametrize("ratio", [1e-9, 0.1, 0.77, 1.0])
def test_random_k_picks_what_is_drawn(ratio: float, unbiased: bool) -> None:
    delta = {**drawn(_CNN), "wide": np.array(0.1), **drawn({"half": (70,)}, dtype=np.float16)}
    flat = np.concatenate([array.reshape(-1).astype(np.float32) for array in delta.values()])
    strata = Strata(max(1, round(ratio * size(delta))), size(delta))
    wanted = flat[strata.drawn(4)]
    if unbiased:
        wanted *= np.diff(strata.edges(0, strata.number)).astype(np.float32)
    assert np.array_equal(RandomK(ratio, unbiased).encode(delta, 4)[0]["values"], wanted)


@pytest.mark.parametrize("shape", [(300, 300), (200, 500), (500, 200)])
@pytest.mark.parametrize("rank", [20, 200])
def test_low_rank_in_place_is_the_same_but_for_rounding(
    shape: tuple[int, int], rank: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with numpy's LAPACK, which has copies of all; of few components too, where the rest is noise."""
    random = np.random.default_rng(2)
    sides = [random.standard_normal(one, np.float32) for one in ((shape[0], rank), (rank, shape[1]))]
    delta = {"w": sides[0] @ sides[1]}
    made = []
    for many in (0, 1000):
        monkeypatch.setattr("parslfl.codecs.components._MANY", many)
        arrays, note = LowRank(0.6).encode(delta)
        made.append(LowRank(0.6).decode(arrays, note, delta)["w"])
    assert np.linalg.norm(made[0] - made[1]) < 3e-6 * np.linalg.norm(delta["w"])
    assert made[0].tobytes() != made[1].tobytes()
