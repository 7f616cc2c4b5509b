"""Quantisation: steps, codes and packed bits worked by hand, and a mean that is right."""

from __future__ import annotations

import math

import numpy as np
import pytest

from parslfl.codecs.packing import pack, pack_low, unpack, unpack_low
from parslfl.codecs.quantize import Quantize
from parslfl.errors import PayloadError
from parslfl.params import BLOCK, Params


def back(codec: Quantize, delta: Params, seed: int = 0) -> Params:
    return codec.decode(*codec.encode(delta, seed), delta)


def test_numbers_on_the_grid_are_exact_whatever_the_dither() -> None:
    """4 bits: L = 7, so 7 at most means a step of 1 (and a millionth): whole numbers keep their code."""
    delta = {"w": np.array([7, -7, 0, 0, 0], np.float32)}
    for seed in range(20):
        arrays, _ = Quantize(bits=4, nearest=True).encode(delta, seed)
        assert arrays["steps"].tolist() == pytest.approx([1], rel=2e-6)
        assert arrays["codes"].tolist() == [14 + (0 << 4), 7 + (7 << 4), 7]  # codes 14, 0, 7, 7, 7
    arrays, _ = Quantize(bits=8, nearest=True).encode({"w": np.array([127, -127, 5], np.float32)})
    assert arrays["codes"].view(np.int8).tolist() == [127, -127, 5]
    arrays, _ = Quantize(bits=2, nearest=True).encode({"w": np.array([3, -3, 1, 2, 3], np.float32)})
    assert arrays["codes"].tolist() == [2 + (0 << 2) + (1 << 4) + (2 << 6), 2]


@pytest.mark.parametrize("bits", [8, 4, 2])
@pytest.mark.parametrize("block", [0, 16])
def test_the_mean_of_many_roundings_is_the_number(bits: int, block: int) -> None:
    rng = np.random.default_rng(0)
    delta = {"w": rng.normal(size=50).astype(np.float32)}
    codec = Quantize(bits, block)
    many = np.array([back(codec, delta, seed)["w"] for seed in range(4000)], np.float64)
    step = codec.encode(delta)[0]["steps"].repeat(16)[:50] if block else codec.encode(delta)[0]["steps"]
    assert (np.abs(many - delta["w"]) <= step * 1.0001).all()
    assert (np.abs(many.mean(axis=0) - delta["w"]) < 4.5 * 0.5 * step / math.sqrt(4000)).all()
    assert many.std() > 0


def test_rounding_to_the_nearest_errs_by_half_a_step_at_most() -> None:
    delta = {"w": np.linspace(-1, 1, 1001, dtype=np.float32)}
    error = back(Quantize(4, nearest=True), delta)["w"] - delta["w"]
    assert np.abs(error).max() <= 0.5 / 7 * 1.0001


def test_each_block_has_a_step_of_its_own() -> None:
    delta = {"w": np.repeat([1000, 1e-3, 0], [16, 16, 5]).astype(np.float32)}
    codec = Quantize(bits=2, block=16)
    arrays, _ = codec.encode(delta)
    assert arrays["steps"].tolist() == pytest.approx([1000, 1e-3, 0], rel=2e-6)
    np.testing.assert_allclose(back(codec, delta)["w"], delta["w"], rtol=1e-5)
    assert back(codec, delta)["w"][-5:].tolist() == [0] * 5


@pytest.mark.parametrize("size", [BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 37])
@pytest.mark.parametrize("bits", [8, 4, 2])
def test_arrays_longer_than_a_cache_block(size: int, bits: int) -> None:
    rng = np.random.default_rng(size)
    delta = {"v": np.ones(3, np.float32), "w": rng.normal(size=size).astype(np.float32)}
    for block in (0, 256):
        codec = Quantize(bits, block)
        arrays, note = codec.encode(delta, 3)
        decoded = codec.decode(arrays, note, delta)
        assert np.abs(decoded["w"] - delta["w"]).max() <= arrays["steps"].max() * 1.0001
        total = {name: np.zeros_like(array) for name, array in delta.items()}
        codec.open(arrays, note, delta).add(total, 2.0)
        np.testing.assert_array_equal(total["w"], 2 * decoded["w"])


def test_the_dither_differs_from_seed_to_seed_and_place_to_place() -> None:
    delta = {"w": np.full(1000, 0.5, np.float32)}
    delta["w"][0] = 1
    codes = [Quantize(2, 0).encode(delta, seed)[0]["codes"].tobytes() for seed in (1, 1, 2)]
    assert codes[0] == codes[1] != codes[2]
    up = (back(Quantize(2, 0), delta)["w"][1:] > 0.25).mean()
    assert 0.4 < up < 0.6


@pytest.mark.parametrize("step", [np.nan, np.inf, -1.0])
def test_a_step_that_cannot_be_is_refused(step: float) -> None:
    delta = {"w": np.ones(3, np.float32)}
    arrays, note = Quantize().encode(delta)
    with pytest.raises(PayloadError, match="a step that is not finite or is negative"):
        Quantize().open({**arrays, "steps": np.array([step], np.float32)}, note, delta)


def test_a_huge_step_shows_in_the_norm() -> None:
    delta = {"w": np.array([1, 1, -1, 1], np.float32)}
    arrays, note = Quantize().encode(delta)
    huge = Quantize().open({**arrays, "steps": np.array([1e30], np.float32)}, note, delta)
    assert huge.norm() == pytest.approx(2 * 127 * 1e30)


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_the_norm_is_that_of_what_is_decoded(bits: int) -> None:
    delta = {"w": np.random.default_rng(0).normal(size=3000).astype(np.float32)}
    arrays, note = Quantize(bits).encode(delta)
    wanted = np.linalg.norm(Quantize(bits).decode(arrays, note, delta)["w"].astype(np.float64))
    assert Quantize(bits).open(arrays, note, delta).norm() == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("bits", [4, 2])
@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 5, 8, 13])
def test_packed_codes_come_back(bits: int, size: int) -> None:
    codes = (np.arange(size) * 7 % 2**bits).astype(np.uint8)
    packed = pack(codes, bits)
    assert packed.size == -(-size * bits // 8)
    out = np.full(size, np.nan, np.float32)
    unpack(packed, bits, out)
    assert out.tolist() == (codes.astype(int) - (2 ** (bits - 1) - 1)).tolist()


@pytest.mark.parametrize("bits", [0, 1, 3, 7, 16])
def test_low_bits_come_back(bits: int) -> None:
    numbers = np.arange(0, 100_000, 997)
    packed = pack_low(numbers, bits)
    assert packed.size == bits * -(-numbers.size // 8)
    assert unpack_low(packed, bits, 0, numbers.size).tolist() == (numbers % 2**bits).tolist()
    assert unpack_low(packed, bits, 16, 90).tolist() == (numbers % 2**bits)[16:90].tolist()
