"""A second reader of updates, written from docs/wire-format.md alone, sees what the codecs see."""

from __future__ import annotations

import json
import math
import struct
from typing import Any

import numpy as np
import pytest
import xxhash
import zstandard

from parslfl import specs
from parslfl.codecs import wire
from parslfl.codecs.chain import Chain
from parslfl.codecs.names import CODECS
from parslfl.params import Params

RNG = np.random.default_rng(0)
DELTA: Params = {
    "a": RNG.standard_t(3, size=(30, 40)).astype(np.float32),
    "none": np.zeros((0, 2), np.float32),
    "b": RNG.normal(size=70).astype(np.float32),
}
#: Long gaps, so that some take more than a byte.
SPARSE: Params = {"w": np.zeros(40_000, np.float32)}
SPARSE["w"][[0, 300, 301, 7000, 39_999]] = [1, -2, 3, -4, 5]


def framed(data: bytes) -> tuple[dict[str, tuple[str, list[int], bytes]], dict[str, Any]]:
    magic, length, checksum = struct.unpack("<4sIQ", data[:16])
    assert (magic, (16 + length) % 64) == (b"PFL1", 0)
    assert xxhash.xxh3_64_intdigest(data[16:]) == checksum
    header = json.loads(data[16 : 16 + length])
    at, found = 16 + length, {}
    for name, dtype, shape in header["arrays"]:
        size = int(dtype[2:]) * math.prod(shape)
        found[name] = (dtype, shape, data[at : at + size])
        at += -(-size // 64) * 64
    assert at == len(data)
    return found, header["note"]


def layout(delta: Params) -> str:
    text = json.dumps([[n, a.dtype.str[1:], list(a.shape)] for n, a in delta.items()], separators=(",", ":"))
    return format(xxhash.xxh3_64_intdigest(text.encode()), "016x")


def places(data: bytes, note: dict[str, Any], n: int) -> list[int]:
    if "shift" not in note:
        found = [i for i in range(n) if data[i // 8] >> (i % 8) & 1]
        assert len(found) == note["kept"]
        return found
    kept, shift, plane = note["kept"], note["shift"], -(-note["kept"] // 8)
    assert len(data) == note["bytes"]
    low = data[len(data) - shift * plane :]
    made, at, place = [], 0, -1
    for i in range(kept):
        high = 0
        while data[at] == 255:
            high, at = high + 255, at + 1
        high, at = high + data[at], at + 1
        gap = high << shift
        for bit in range(shift):
            gap |= (low[bit * plane + i // 8] >> (i % 8) & 1) << bit
        place += gap + 1
        made.append(place)
    assert at == len(data) - shift * plane
    return made


def dequantised(codes: bytes, steps: list[float], sizes: list[int], bits: int, block: int) -> list[float]:
    made, begin, first = [], 0, 0
    for size in sizes:
        for i in range(size):
            if bits == 8:
                code = struct.unpack_from("<b", codes, begin + i)[0]
            else:
                byte = codes[begin + i * bits // 8]
                code = (byte >> (i * bits % 8) & (2**bits - 1)) - (2 ** (bits - 1) - 1)
            made.append(code * steps[first + (i // block if block else 0)])
        begin += -(-size * bits // 8)
        first += -(-size // block) if block else min(size, 1)
    assert (begin, first) == (len(codes), len(steps))
    return made


def sent(text: str, delta: Params) -> tuple[dict[str, Any], dict[str, Any], np.ndarray]:
    """Arrays and note as the second reader sees them; and what the codec decodes, as one vector."""
    codec: Any = specs.parse_chain(text, CODECS, "codec", Chain)  # type: ignore[arg-type]
    arrays, note = codec.encode(delta, 3)
    found, told = framed(b"".join(wire.pack(arrays, note).buffers))
    assert told["layout"] == layout(delta)
    decoded = codec.decode(arrays, note, delta)
    return found, told, np.concatenate([array.reshape(-1) for array in decoded.values()])


@pytest.mark.parametrize("ratio", [0.02, 0.5])
@pytest.mark.parametrize("delta", [DELTA, SPARSE])
def test_topk(ratio: float, delta: Params) -> None:
    found, note, wanted = sent(f"topk:ratio={ratio}", delta)
    n = sum(array.size for array in delta.values())
    made = np.zeros(n, np.float32)
    made[places(found["places"][2], note, n)] = np.frombuffer(found["values"][2], "<f4")
    np.testing.assert_array_equal(made, wanted)
    assert np.count_nonzero(made) == note["kept"]


@pytest.mark.parametrize(("bits", "block"), [(8, 0), (8, 16), (4, 0), (4, 64), (2, 0), (2, 32)])
def test_quantize(bits: int, block: int) -> None:
    found, _, wanted = sent(f"quantize:bits={bits},block={block}", DELTA)
    steps = np.frombuffer(found["steps"][2], "<f4").astype(float).tolist()
    made = dequantised(found["codes"][2], steps, [1200, 0, 70], bits, block)
    np.testing.assert_allclose(made, wanted, rtol=1e-6)


def test_shorter_floats() -> None:
    found, _, wanted = sent("fp16", DELTA)
    made = [number for (number,) in struct.iter_unpack("<e", found["floats"][2])]
    np.testing.assert_array_equal(made, wanted)
    found, _, wanted = sent("bf16", DELTA)
    made = [
        struct.unpack("<f", b"\0\0" + pair)[0] for (pair,) in struct.iter_unpack("2s", found["floats"][2])
    ]
    np.testing.assert_array_equal(made, wanted)


def test_randomk() -> None:
    found, note, wanted = sent("randomk:ratio=0.1,unbiased=true", DELTA)
    n, k = 1270, 127
    edges = [j * n // k for j in range(k + 1)]
    words = np.random.SFC64(note["seed"]).random_raw(k).tolist()
    at = [edges[j] + (words[j] >> 11) % (edges[j + 1] - edges[j]) for j in range(k)]
    np.testing.assert_array_equal(wanted[at], np.frombuffer(found["values"][2], "<f4"))
    assert np.count_nonzero(wanted) == k


def test_the_recommended_chain() -> None:
    found, note, wanted = sent("topk:ratio=0.05+quantize:bits=4+zstd", DELTA)
    assert set(found) == {"zstd"}
    choose, shorten, packed = note["stages"]
    assert (shorten, packed) == ({}, {})
    content = zstandard.ZstdDecompressor().decompress(found["zstd"][2])
    kept, n = choose["kept"], 1270
    codes, steps = -(-kept * 4 // 8), -(-kept // 256)
    coded = places(content[codes + 4 * steps :], choose, n)
    factors = [step for (step,) in struct.iter_unpack("<f", content[codes : codes + 4 * steps])]
    made = np.zeros(n)
    made[coded] = dequantised(content[:codes], factors, [kept], 4, 256)
    np.testing.assert_allclose(made, wanted, rtol=1e-6)


def test_lowrank() -> None:
    found, note, wanted = sent("lowrank:ratio=0.4", DELTA)
    values = np.frombuffer(found["values"][2], "<f4")
    (rank,) = note["ranks"]  # of "a"; "none" has no numbers, "b" one dimension
    components = values[: rank * 70].reshape(rank, 70)
    made = sum(np.outer(one[:30], one[30:]) for one in components)
    assert 0 < rank * 70 <= 0.4 * 1270 - 70
    np.testing.assert_allclose(made.reshape(-1), wanted[:1200], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(values[rank * 70 :], wanted[1200:])
