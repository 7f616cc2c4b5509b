"""With numba or without: the same bits, the same refusals."""

from __future__ import annotations

import importlib.util
import math
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from parslfl.codecs import compiled as module
from parslfl.codecs import indices, pieces
from parslfl.codecs.compiled import compiled
from parslfl.codecs.pieces import Sparse, opened
from parslfl.codecs.quantize import Quantize
from parslfl.codecs.randomk import RandomK
from parslfl.codecs.topk import TopK
from parslfl.errors import PayloadError
from parslfl.params import SPAN, Joined, Params
from parslfl.protocols import Codec

#: Sizes around the edges of blocks and pieces.
SIZES = {"a": 7, "b": SPAN + 300, "c": 1, "d": 4096}
CODECS: list[Codec] = [
    TopK(0.01),
    TopK(0.004),
    RandomK(0.02),
    Quantize(8),
    Quantize(8, block=16),
    Quantize(8, block=1 << 16),
    Quantize(8, block=0),
]


def drawn(seed: int) -> Params:
    random = np.random.default_rng(seed)
    return {name: random.standard_normal(size).astype(np.float32) for name, size in SIZES.items()}


@pytest.fixture(autouse=True)
def afresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process that has left enough to numpy."""
    monkeypatch.setattr(module, "FIRST", 0)
    module._compiled.cache_clear()
    yield
    module._compiled.cache_clear()


def folded(codec: Codec, dtype: type, joined: bool) -> tuple[float, dict[str, bytes]]:
    """The norm of an update, and the sum that it is added to."""
    update, model = drawn(3), {name: array.astype(dtype) for name, array in drawn(4).items()}
    total = Joined.empty_like(model) if joined else {name: array.copy() for name, array in model.items()}
    for name, array in model.items():
        total[name][...] = array
    delta = opened(codec, *codec.encode(update, 5), update)
    delta.add(total, 833.7)
    return delta.norm(), {name: array.tobytes() for name, array in total.items()}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("joined", [True, False])
@pytest.mark.parametrize("codec", CODECS, ids=repr)
def test_the_same_bits_as_numpy(
    codec: Codec, joined: bool, dtype: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(module, "FIRST", math.inf)
        plain = folded(codec, dtype, joined)
    assert compiled(0) is not None
    assert folded(codec, dtype, joined) == plain


@pytest.mark.parametrize("gap", [1, 12, 300, 40_000])
def test_the_same_places(gap: int) -> None:
    places = np.cumsum(np.random.default_rng(gap).integers(1, 2 * gap, 500))
    size = int(places[-1]) + 9
    data, note = indices.write(places, size)
    assert indices.read(data, note, size).tolist() == places.tolist()


@pytest.mark.parametrize("data", [[], [3, 4], [3, 4, 5, 6], [3, 4, 255]])
def test_bytes_of_more_or_fewer_places_are_refused(data: list[int]) -> None:
    with pytest.raises(PayloadError, match="not 3 increasing numbers"):
        indices.read(np.array(data, np.uint8), {"kept": 3, "shift": 0, "bytes": len(data)}, 100)


def test_no_place_at_all() -> None:
    none = np.empty(0, np.uint8)
    assert indices.read(none, {"kept": 0, "shift": 0, "bytes": 0}, 100).tolist() == []
    with pytest.raises(PayloadError, match="not 0 increasing numbers"):
        indices.read(np.array([3], np.uint8), {"kept": 0, "shift": 0, "bytes": 1}, 100)


@pytest.mark.parametrize("places", [[1, 5], [-1, 2], [2, 2**62], [0, 1, 2]])
def test_a_place_outside_the_sum_is_an_error(places: list[int]) -> None:
    """Whoever wrote the codec that gave it: without a check it would be written to."""
    total = Joined.empty_like({"w": np.zeros(5, np.float32)})
    total["w"][...] = 7
    with pytest.raises(IndexError, match="outside its model"):
        Sparse(np.array(places), np.ones(2, np.float32)).add(total, 1.0)
    assert total["w"].tolist() == [7] * 5


def test_nothing_is_compiled_until_there_has_been_enough_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST", 100)
    monkeypatch.setattr(module, "_left_to_numpy", [0])
    assert compiled(60) is None
    assert compiled(60) is None
    assert compiled(1) is not None


def test_what_counts_is_what_is_gone_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sparse update counts for its places, read once and added once, however many pieces the sum has."""
    monkeypatch.setattr(module, "FIRST", math.inf)
    monkeypatch.setattr(module, "_left_to_numpy", left := [0])
    monkeypatch.setattr(pieces, "_PIECE", 1 << 10)
    update = drawn(3)
    total, codec = Joined.empty_like(update), TopK(0.01)
    total.vector.fill(0)
    packed = codec.encode(update, 5)
    count = packed[0]["values"].size
    pieces.add_all(total, [(opened(codec, *packed, update), 1.0) for _ in range(3)])
    assert left == [6 * count]


def test_without_numba_numpy_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "numba" else found(name, *rest)
    )
    assert compiled(1 << 20) is None


def test_where_numba_is_told_to_compile_nothing_numpy_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("numba.config.DISABLE_JIT", 1)
    assert compiled(1 << 20) is None


def test_a_numba_that_is_damaged_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "numba.py").write_text("raise OSError('Could not load libllvmlite.so')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "numba", raising=False)
    with pytest.warns(UserWarning, match="not used, numpy does its work: Could not load libllvmlite"):
        assert compiled(1 << 20) is None


def test_lanes_that_begin_together_get_the_same_loops() -> None:
    with ThreadPoolExecutor(4) as lanes:
        assert len({id(found) for found in lanes.map(compiled, [1 << 20] * 4)}) == 1


def test_a_numba_that_does_not_fit_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda *_: object())
    monkeypatch.setitem(sys.modules, "numba", None)  # importing it is an ImportError then
    with pytest.warns(UserWarning, match="numba is installed but not used, numpy does its work"):
        assert compiled(1 << 20) is None
    assert compiled(1 << 20) is None
