"""The entropy stage: exact bytes back, and no room for bombs."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import zstandard

from parslfl.codecs.chain import Chain
from parslfl.codecs.quantize import Quantize
from parslfl.codecs.topk import TopK
from parslfl.codecs.zstd import Zstd
from parslfl.errors import PayloadError
from parslfl.params import Params

DELTA: Params = {"w": np.linspace(-1, 1, 1000, dtype=np.float32), "b": np.zeros((), np.float64)}


def framed(data: bytes) -> np.ndarray:
    return np.frombuffer(data, np.uint8)


@pytest.mark.parametrize("level", [0, 1, 19])
def test_bytes_come_back_exactly(level: int) -> None:
    decoded = Zstd(level).decode(*Zstd(level).encode(DELTA), DELTA)
    assert {name: array.tobytes() for name, array in decoded.items()} == {
        name: array.tobytes() for name, array in DELTA.items()
    }


def test_a_frame_that_declares_more_than_the_model_is_refused_before_any_of_it_is_made() -> None:
    bomb = zstandard.ZstdCompressor().compress(bytes(1 << 30))
    assert len(bomb) < 1 << 17
    note = Zstd().encode(DELTA)[1]
    tracemalloc.start()
    with pytest.raises(PayloadError, match="declares 1073741824 bytes, the model makes it 4008"):
        Zstd().decode({"zstd": framed(bomb)}, note, DELTA)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_a_frame_that_lies_about_its_size_is_refused() -> None:
    """The frame says 4008 bytes and holds a gigabyte of zeros."""
    bomb = bytearray(zstandard.ZstdCompressor(write_content_size=True).compress(bytes(1 << 24)))
    honest = zstandard.get_frame_parameters(bytes(bomb))
    assert honest.content_size == 1 << 24
    at = bytes(bomb).index((1 << 24).to_bytes(4, "little"))
    bomb[at : at + 4] = (4008).to_bytes(4, "little")
    note = Zstd().encode(DELTA)[1]
    with pytest.raises(PayloadError, match="damaged"):
        Zstd().decode({"zstd": framed(bytes(bomb))}, note, DELTA)


def test_frames_that_are_cut_followed_by_more_or_none_are_refused() -> None:
    arrays, note = Zstd().encode(DELTA)
    whole = arrays["zstd"].tobytes()
    for wrong in (whole[:-1], whole[:5], b"", whole + b"x", whole + whole, b"junk" * 9):
        with pytest.raises(PayloadError, match="zstd frame"):
            Zstd().decode({"zstd": framed(wrong)}, note, DELTA)


def test_a_chain_names_the_frames_size_before_anything_is_allocated() -> None:
    """A note that claims more numbers than the ratio allows is refused, whatever the frame holds."""
    codec = Chain((TopK(0.01), Quantize(4, 16), Zstd()))
    arrays, note = codec.encode(DELTA)
    choose, shorten, packed = note["stages"]
    for kept in (11, 1 << 40, -1, "10", None):
        wrong = {**note, "stages": [{**choose, "kept": kept}, shorten, packed]}
        with pytest.raises(PayloadError, match="kept"):
            codec.open(arrays, wrong, DELTA)
    for size in (1 << 40, -1, None):
        wrong = {**note, "stages": [{**choose, "bytes": size}, shorten, packed]}
        with pytest.raises(PayloadError, match="bytes"):
            codec.open(arrays, wrong, DELTA)


def test_the_recommended_chain_is_small() -> None:
    rng = np.random.default_rng(0)
    delta = {"w": rng.standard_t(3, size=200_000).astype(np.float32)}
    codec = Chain((TopK(0.05), Quantize(4, 256), Zstd()))
    arrays, _ = codec.encode(delta)
    bits = 8 * sum(array.nbytes for array in arrays.values()) / 200_000
    assert bits < 0.52
    wanted = TopK(0.05).decode(*TopK(0.05).encode(delta), delta)["w"]
    error = codec.decode(*codec.encode(delta, 1), delta)["w"] - wanted
    assert np.linalg.norm(error) < 0.4 * np.linalg.norm(wanted)
