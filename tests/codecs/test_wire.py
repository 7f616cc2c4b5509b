"""The wire format: exact bytes, mapping without copies, and refusal of everything else."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from parslfl.codecs import wire
from parslfl.errors import PayloadError
from parslfl.params import checksum


def joined(packed: wire.Packed) -> bytes:
    return b"".join(packed.buffers)


def test_bytes_are_as_documented() -> None:
    packed = wire.pack({"w": np.array([1.0, 2.0], np.float32)}, {"k": 1})
    data = joined(packed)
    header = b'{"arrays":[["w","<f4",[2]]],"note":{"k":1}}'
    assert data[:4] == b"PFL1"
    assert struct.unpack("<I", data[4:8]) == (48,)
    assert data[16:64] == header.ljust(48)
    assert data[64:72] == struct.pack("<ff", 1.0, 2.0)
    assert data[72:] == bytes(56)
    assert struct.unpack("<Q", data[8:16]) == (int(checksum([data[16:]]), 16),)
    assert packed.size == len(data) == 128


@given(
    npst.arrays(
        dtype=st.sampled_from(
            [np.float16, np.float32, np.float64, np.int8, np.int32, np.int64, np.uint8, np.bool_]
        ),
        shape=npst.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5),
    )
)
def test_every_shape_and_dtype_survives(array: np.ndarray) -> None:
    packed = wire.pack({"a": array, "b": np.zeros(3, np.int8)})
    arrays, note = wire.unpack(memoryview(joined(packed)), packed.checksum)
    assert note == {}
    assert arrays["a"].dtype == array.dtype
    assert arrays["a"].shape == array.shape
    assert arrays["a"].tobytes() == array.tobytes()


def test_non_contiguous_and_big_endian_arrays_keep_their_values() -> None:
    turned = np.arange(6, dtype=np.float32).reshape(2, 3).T
    big = np.arange(3, dtype=">f4")
    arrays, _ = wire.unpack(memoryview(joined(wire.pack({"t": turned, "b": big}))))
    np.testing.assert_array_equal(arrays["t"], turned)
    np.testing.assert_array_equal(arrays["b"], big)


def test_packing_and_unpacking_copy_nothing() -> None:
    array = np.arange(100, dtype=np.float32)
    packed = wire.pack({"a": array})
    assert np.shares_memory(np.frombuffer(packed.buffers[1], np.float32), array)
    data = joined(packed)
    arrays, _ = wire.unpack(memoryview(data))
    assert np.shares_memory(arrays["a"], np.frombuffer(data, np.uint8))
    with pytest.raises(ValueError, match="read-only"):
        arrays["a"][0] = 1


def test_no_arrays_at_all() -> None:
    packed = wire.pack({})
    assert wire.unpack(memoryview(joined(packed))) == ({}, {})


@given(st.data())
def test_any_flipped_bit_is_refused(data: st.DataObject) -> None:
    whole = bytearray(joined(wire.pack({"a": np.arange(5, dtype=np.float32)})))
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(PayloadError):
        wire.unpack(memoryview(bytes(whole)))


@pytest.mark.parametrize("keep", [0, 3, 15, 16, 63, 64, 100, 127])
def test_truncated_payloads_are_refused(keep: int) -> None:
    whole = joined(wire.pack({"a": np.arange(5, dtype=np.float32)}))
    with pytest.raises(PayloadError):
        wire.unpack(memoryview(whole[:keep]))


def forged(header: object) -> memoryview:
    """A payload whose checksum is right and whose header is `header`."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    text += b" " * (-(len(text) + 16) % 64)
    return memoryview(struct.pack("<4sIQ", b"PFL1", len(text), int(checksum([text]), 16)) + text)


@pytest.mark.parametrize(
    "header",
    [
        {"arrays": [["a", "<f4", [1 << 40]]], "note": {}},
        {"arrays": [["a", "<f4", [-1]]], "note": {}},
        {"arrays": [["a", "<f4", [1 << 60, 1 << 60]]], "note": {}},
        {"arrays": [["a", "<f4", [0, 1 << 47, 1 << 47]]], "note": {}},
        {"arrays": [["a", "O", [1]]], "note": {}},
        {"arrays": [["a", "<U8", [1]]], "note": {}},
        {"arrays": [["a", "<f4", [True]]], "note": {}},
        {"arrays": [["a", "<f4"]], "note": {}},
        {"arrays": [[1, "<f4", [0]]], "note": {}},
        {"arrays": [["a", "<f4", [0]], ["a", "<f4", [0]]], "note": {}},
        {"arrays": "a"},
        {"note": {}},
        [],
        b"[" * 100_000,
        b"\xff\xfe",
    ],
)
def test_forged_headers_are_refused_without_allocating(header: object) -> None:
    with pytest.raises(PayloadError):
        wire.unpack(forged(header))


def test_another_checksum_than_announced_is_refused() -> None:
    packed = wire.pack({"a": np.zeros(1, np.float32)})
    with pytest.raises(PayloadError, match="announced 0123456789abcdef"):
        wire.unpack(memoryview(joined(packed)), "0123456789abcdef")
