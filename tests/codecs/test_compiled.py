"""With numba or without: the same bits, the same refusals."""

from __future__ import annotations

import importlib.util
import math
import re
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parslfl.codecs import compiled as module
from parslfl.codecs import indices, pieces, sparse
from parslfl.codecs.chain import Chain
from parslfl.codecs.compiled import Compiled, compiled
from parslfl.codecs.gap_loops import Bytes, Floats
from parslfl.codecs.pieces import opened
from parslfl.codecs.quantize import Quantize
from parslfl.codecs.randomk import RandomK
from parslfl.codecs.sparse import Gapped, Sparse
from parslfl.codecs.topk import TopK
from parslfl.errors import PayloadError
from parslfl.params import SPAN, Joined, Params, average, clear, zeros_like
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
def afresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that has left enough to numpy."""
    monkeypatch.setattr(module, "FIRST", 0)


@pytest.fixture
def unknown() -> Iterator[None]:
    """A process that has not looked for numba yet."""
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


def loops() -> Compiled:
    found = compiled(0)
    assert found is not None
    return found


class Adding:
    """One update, added to pieces of a sum as they come."""

    def __init__(self, gaps: indices.Gaps, values: Floats, weight: float) -> None:
        self.told = sparse._told([(Gapped(gaps, values, loops()), weight)], 1024)

    def to(self, piece: Floats, start: int) -> None:
        data, values, weights, updates, rooms = self.told
        loops().add_gaps(piece, start, data, values, weights[0], updates[0], rooms[0])


def added(data: Bytes, note: dict[str, Any], size: int, pieces: int) -> Floats:
    """A sum of `size` numbers in so many pieces, after an update of 1, 2, 3... at the places of the gaps."""
    gaps = indices.checked(data, note, size, loops())
    total, start = np.zeros(size, np.float32), 0
    adding = Adding(gaps, np.arange(1, gaps.kept + 1, dtype=np.float32), 2)
    for piece in np.array_split(total, pieces):
        adding.to(piece, start)
        start += piece.size
    return total


@pytest.mark.parametrize("pieces", [1, 2, 7])
@pytest.mark.parametrize("gap", [12, 300, 40_000])
def test_the_same_places(gap: int, pieces: int) -> None:
    """More places than are read at once, some of them far apart."""
    places = np.cumsum(np.random.default_rng(gap).integers(1, 2 * gap, 2500))
    size = int(places[-1]) + 9
    data, note = indices.write(places, size)
    wanted = np.zeros(size, np.float32)
    wanted[places] = np.arange(2, 5002, 2)
    assert added(data, note, size, pieces).tobytes() == wanted.tobytes()


@settings(deadline=None, max_examples=300)
@given(
    st.lists(st.sampled_from([0, 1, 2, 100, 254, 255]), max_size=12),
    st.integers(0, 6),
    st.integers(0, 3),
    st.integers(1, 3000),
)
def test_the_same_bytes_are_refused(data: list[int], kept: int, shift: int, size: int) -> None:
    array, note = np.array(data, np.uint8), {"kept": kept, "shift": shift, "bytes": len(data)}
    try:
        places = indices.read(array, note, size)
    except PayloadError as error:
        with pytest.raises(PayloadError, match=re.escape(str(error))):
            indices.checked(array, note, size, loops())
    else:
        assert np.flatnonzero(added(array, note, size, 3)).tolist() == places.tolist()


def test_bytes_that_change_after_they_were_checked_reach_nothing_outside_the_sum() -> None:
    """They lie in a file that another process may write."""
    data = np.full(3000, 9, np.uint8)
    gaps = indices.checked(data, {"kept": 3000, "shift": 0, "bytes": 3000}, 30_000, loops())
    room, values = np.zeros(90_000, np.float32), np.ones(3000, np.float32)
    for changed in (254, 255, 0, 9):
        data[:] = changed
        adding = Adding(gaps, values, 1)
        for start in (0, 10_000, 20_000):
            adding.to(room[30_000 + start :][:10_000], start)
    assert room.sum() == 30_000 // 255 + 0 + 3000 + 3000
    adding = Adding(gaps, values, 1)
    for start, changed in ((0, 9), (10_000, 9), (20_000, 0)):  # read in the middle of a piece
        data[:] = changed
        adding.to(room[30_000 + start :][:10_003], start)
    assert not room[:30_000].any()
    assert not room[60_003:].any()


@pytest.mark.parametrize("step", [12, 300, 5000])
@pytest.mark.parametrize("start", [1, 2000, 2999])
def test_of_a_piece_that_is_left_out_nothing_is_added(start: int, step: int) -> None:
    """Gaps of one byte and of several, with low bits and without, up to and across the edge."""
    places = np.arange(0, 3000 * step, step)
    data, note = indices.write(places, 3000 * step)
    gaps = indices.checked(data, note, 3000 * step, loops())
    edge, room = start * step - step // 2, np.zeros(1000 * step, np.float32)
    adding = Adding(gaps, np.arange(1, 3001, dtype=np.float32), 1)
    adding.to(room, edge)
    wanted = places[(places >= edge) & (places < edge + room.size)]
    assert (np.flatnonzero(room) + edge).tolist() == wanted.tolist()
    assert room[wanted - edge].tolist() == (wanted // step + 1).tolist()


def test_wherever_a_piece_begins_the_place_there_is_found() -> None:
    """Also where it is the last of those that are passed over together."""
    data, note = indices.write(np.arange(11, 12_000, 12), 12_000)
    gaps = indices.checked(data, note, 12_000, loops())
    values = np.ones(gaps.kept, np.float32)
    for start in range(12_000):
        room = np.zeros(12, np.float32)
        Adding(gaps, values, 1).to(room, start)
        assert np.flatnonzero(room).tolist() == [11 - start % 12]


def test_a_mean_does_not_wait_for_another_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of another federation in the process: the one thread that helps is at that."""
    update: Params = {"w": np.ones(1000, np.float32)}
    delta = opened(TopK(0.01), *TopK(0.01).encode(update, 5), update)
    assert isinstance(delta, Gapped)
    with ThreadPoolExecutor(1) as helper:
        monkeypatch.setattr(sparse, "_another_thread", lambda _: helper)
        go = threading.Event()
        helper.submit(go.wait)
        mean = Joined.empty_like(update)
        sparse.mean_gapped([None], [[(delta, 3.0)]], 2.0, mean)
        assert mean["w"].tolist() == [1.5] * 10 + [0] * 990
        go.set()


@pytest.mark.parametrize("data", [[], [3, 4], [3, 4, 5, 6], [3, 4, 255]])
def test_bytes_of_more_or_fewer_places_are_refused(data: list[int]) -> None:
    with pytest.raises(PayloadError, match="not 3 increasing numbers"):
        indices.checked(np.array(data, np.uint8), {"kept": 3, "shift": 0, "bytes": len(data)}, 100, loops())


def test_no_place_at_all() -> None:
    none = np.empty(0, np.uint8)
    assert not added(none, {"kept": 0, "shift": 0, "bytes": 0}, 100, 1).any()


@pytest.mark.parametrize("joined", [True, False])
def test_several_are_added_a_piece_at_a_time(joined: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces that end between and on places, and updates with gaps longer than a piece."""
    monkeypatch.setattr(sparse, "_SMALL_PIECE", 1 << 12)
    update = drawn(3)
    update["b"][5000:200_000] = 0
    codecs: list[Codec] = [TopK(0.01), TopK(0.05), TopK(0.0001), Chain((TopK(0.02), Quantize(8)))]
    codecs += 30 * [TopK(0.001)]
    deltas = [opened(codec, *codec.encode(update, 5), update) for codec in codecs]
    assert all(isinstance(delta, Gapped) for delta in deltas)
    together, alone = (Joined.empty_like(update) if joined else drawn(4) for _ in range(2))
    for name, array in drawn(4).items():
        together[name][...] = alone[name][...] = array
    pieces.add_all(together, [(delta, 0.3 + n) for n, delta in enumerate(deltas)])
    for number, delta in enumerate(deltas):
        delta.add(alone, 0.3 + number)
    assert all(together[name].tobytes() == alone[name].tobytes() for name in SIZES)
    for number in (1, len(deltas)):
        terms, zeros = [(delta, 0.3) for delta in deltas[:number]], zeros_like(update)
        together["b"].fill(np.nan)
        pieces.add_all(zeros, terms)
        pieces.add_all(together, terms, afresh=True)
        assert all(together[name].tobytes() == zeros[name].tobytes() for name in SIZES)


@pytest.mark.parametrize("share", [10_300, sparse._SHARE])
@pytest.mark.parametrize("begun", [(), (0,), (1,), (0, 1)])
@pytest.mark.parametrize("numbers", [(1,), (4,), (1, 1), (0, 2), (2, 0), (29, 3)])
def test_a_mean_has_the_bits_of_sums_that_are_averaged(
    numbers: tuple[int, ...], begun: tuple[int, ...], share: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Places that are packed with low bits and without, updates with none in one half of the model, lanes
    that have a sum already, and threads that make every second of 26 shares, or one that makes all."""
    monkeypatch.setattr(sparse, "_MEAN_PIECE", 1 << 12)
    monkeypatch.setattr(sparse, "_SHARE", share)
    takers, met, real = list[int](), threading.Barrier(2), loops().mean_of_gaps

    def mean_of_gaps(*told: Any) -> None:
        if share == 10_300:
            met.wait(10)
        takers.append(threading.get_ident())
        real(*told)

    mean, waiting, sums = Joined.empty_like(drawn(0)), [], list[Params | None]()
    assert isinstance(mean, Joined)
    mean.vector.fill(np.nan)
    wanted = [Joined.empty_like(drawn(0)) for _ in numbers]
    for lane, number in enumerate(numbers):
        clear(wanted[lane])
        sums.append(None)
        if lane in begun:
            sums[lane] = Joined.empty_like(drawn(0)) if lane else mean
            for name, array in drawn(50 + lane).items():
                wanted[lane][name][...] = array
                sums[lane][name][...] = array  # type: ignore[index]
        terms = []
        for one in range(number):
            update, codec = drawn(10 * lane + one), TopK((0.01, 0.0005, 0.1)[one % 3])
            half = slice(None, SPAN // 2) if one % 2 else slice(SPAN // 2, None)
            update["b"][half] = 0
            delta = opened(codec, *codec.encode(update, 5), update)
            assert isinstance(delta, Gapped)
            delta = replace(delta, loops=delta.loops._replace(mean_of_gaps=mean_of_gaps))
            terms.append((delta, 0.3 + one))
        pieces.add_all(wanted[lane], terms)
        waiting.append(terms)
    sparse.mean_gapped(sums, waiting, 7.3, mean)
    assert sorted(map(takers.count, set(takers))) == ([13, 13] if share == 10_300 else [1])
    averaged = average(wanted, 7.3)
    assert all(mean[name].tobytes() == averaged[name].tobytes() for name in SIZES)
    if len(sums) > 1 and sums[1] is not None:
        assert all(sums[1][name].tobytes() == array.tobytes() for name, array in drawn(51).items())


@pytest.mark.parametrize("size", [1, 5, 8, 31, 4099])
def test_a_mean_of_any_size_at_any_address(size: int) -> None:
    """Numbers before and after those that are written together."""
    update: Params = {"w": np.linspace(1, 2, size, dtype=np.float32)}
    delta = opened(TopK(1.0), *TopK(1.0).encode(update, 5), update)
    for first in range(9) if isinstance(delta, Gapped) else ():
        memory = np.full(size + 16, 7, np.float32)
        mean = Joined()
        mean.vector = memory[first : first + size]
        sparse.mean_gapped([None], [[(delta, 3.0)]], 1.7, mean)
        assert mean.vector.tobytes() == (update["w"] * np.float32(3) / np.float32(1.7)).tobytes()
        assert memory.sum() - mean.vector.sum() == pytest.approx(7 * 16)


def test_updates_that_lie_anywhere_in_memory() -> None:
    """Values at an odd address, as in a message of which they are a part, and places that lie apart."""
    update = drawn(3)
    arrays, note = TopK(0.01).encode(update, 5)
    odd = np.empty(arrays["values"].nbytes + 1, np.uint8)[1:].view(np.float32)
    odd[:] = arrays["values"]
    apart = np.repeat(arrays["places"], 2)[::2]
    plain = opened(TopK(0.01), arrays, note, update)
    moved = opened(TopK(0.01), {"values": odd, "places": apart}, note, update)
    assert isinstance(moved, Gapped)
    sums = [zeros_like(update) for _ in range(2)]
    plain.add(sums[0], 3.0)
    moved.add(sums[1], 3.0)
    assert all(sums[0][name].tobytes() == sums[1][name].tobytes() for name in SIZES)
    empty = np.empty(1, np.uint8)[1:].view(np.float32)
    none = Gapped(indices.Gaps(np.empty(0, np.uint8), 0, 0, 0), empty, moved.loops)
    total = Joined.empty_like(update)
    sparse.add_gapped(total, [(none, 1.0), (moved, 3.0)], afresh=True)
    assert all(total[name].tobytes() == sums[0][name].tobytes() for name in SIZES)


@pytest.mark.parametrize("number", [1, 2, 33])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_nothing_of_an_earlier_sum_remains(dtype: type, number: int) -> None:
    """Whatever the model's numbers are: the loops are for float32 alone."""
    update: Params = {"w": np.ones(1000, dtype)}
    deltas = [opened(TopK(0.01), *TopK(0.01).encode(update, 0), update) for _ in range(number)]
    assert all(isinstance(delta, Gapped) for delta in deltas)
    total = Joined.empty_like(update)
    total["w"].fill(7)
    pieces.add_all(total, [(delta, 1.0) for delta in deltas], afresh=True)
    assert total["w"].tolist() == 10 * [number] + 990 * [0]


@pytest.mark.parametrize("places", [[1, 5], [-1, 2], [2, 2**62], [0, 1, 2]])
def test_a_place_outside_the_sum_is_an_error(places: list[int]) -> None:
    """Whoever wrote the codec that gave it: without a check it would be written to."""
    total = Joined.empty_like({"w": np.zeros(5, np.float32)})
    total["w"][...] = 7
    with pytest.raises(IndexError, match="outside its model"):
        Sparse(np.array(places), np.ones(2, np.float32)).add(total, 1.0)
    assert total["w"].tolist() == [7] * 5


@pytest.mark.usefixtures("unknown")
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
    monkeypatch.setattr(sparse, "_PIECE", 1 << 10)
    update = drawn(3)
    total, codec = Joined.empty_like(update), TopK(0.01)
    total.vector.fill(0)
    packed = codec.encode(update, 5)
    count = packed[0]["values"].size
    pieces.add_all(total, [(opened(codec, *packed, update), 1.0) for _ in range(3)])
    assert left == [6 * count]


@pytest.mark.usefixtures("unknown")
def test_without_numba_numpy_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "numba" else found(name, *rest)
    )
    assert compiled(1 << 20) is None


@pytest.mark.usefixtures("unknown")
def test_where_numba_is_told_to_compile_nothing_numpy_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("numba.config.DISABLE_JIT", 1)
    assert compiled(1 << 20) is None


@pytest.mark.usefixtures("unknown")
def test_a_numba_that_is_damaged_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "numba.py").write_text("raise OSError('Could not load libllvmlite.so')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "numba", raising=False)
    with pytest.warns(UserWarning, match="not used, numpy does its work: Could not load libllvmlite"):
        assert compiled(1 << 20) is None


@pytest.mark.usefixtures("unknown")
def test_a_numba_in_which_the_loops_cannot_be_made_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its interface to LLVM, say, is another one."""
    monkeypatch.setattr("llvmlite.ir.VectorType.as_pointer", None)
    with pytest.warns(UserWarning, match="numba is installed but not used, numpy does its work"):
        assert compiled(1 << 20) is None


@pytest.mark.usefixtures("unknown")
def test_lanes_that_begin_together_get_the_same_loops() -> None:
    with ThreadPoolExecutor(4) as lanes:
        assert len({id(found) for found in lanes.map(compiled, [1 << 20] * 4)}) == 1


@pytest.mark.usefixtures("unknown")
def test_a_numba_that_does_not_fit_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda *_: object())
    monkeypatch.setitem(sys.modules, "numba", None)  # importing it is an ImportError then
    with pytest.warns(UserWarning, match="numba is installed but not used, numpy does its work"):
        assert compiled(1 << 20) is None
    assert compiled(1 << 20) is None
