"""Shorter floats: exact where they can be, to nearest where they cannot."""

from __future__ import annotations

import numpy as np
import pytest

from parslfl.codecs.cast import Bf16, Fp16
from parslfl.errors import PayloadError
from parslfl.params import Params


def back(codec: Fp16 | Bf16, *numbers: float) -> list[float]:
    delta: Params = {"w": np.array(numbers, np.float32)}
    made: list[float] = codec.decode(*codec.encode(delta), delta)["w"].tolist()
    return made


def test_numbers_of_few_bits_are_exact_and_others_are_rounded() -> None:
    assert back(Fp16(), 1.5, -0.25, 65504.0, 1 + 2**-11, 1 + 3 * 2**-11) == [1.5, -0.25, 65504, 1, 1 + 2**-9]
    assert back(Bf16(), 1.5, -0.25, 2.0**50, 0.0) == [1.5, -0.25, 2.0**50, 0]
    assert back(Bf16(), 1 + 2**-8, 1 + 3 * 2**-8, -(1 + 2**-8 + 2**-20)) == [1, 1 + 2**-6, -(1 + 2**-7)]


def test_what_fp16_cannot_hold_is_refused_with_the_cure() -> None:
    with pytest.raises(PayloadError, match="beyond 65504.*--codec bf16"):
        back(Fp16(), 1.0, 70000.0)


@pytest.mark.parametrize("codec", [Fp16(), Bf16()])
def test_two_bytes_a_number(codec: Fp16 | Bf16) -> None:
    arrays, _ = codec.encode({"w": np.ones((3, 4), np.float32), "b": np.ones(2, np.float64)})
    assert [(array.itemsize, array.size) for array in arrays.values()] == [(2, 14)]


@pytest.mark.parametrize("bits", [0x7C00, 0xFC00, 0xFFFF])
def test_half_precision_infinity_is_refused(bits: int) -> None:
    delta = {"w": np.ones(3, np.float32)}
    arrays, note = Fp16().encode(delta)
    arrays["floats"].view(np.uint16)[1] = bits
    with pytest.raises(PayloadError, match="NaN or Inf"):
        Fp16().open(arrays, note, delta)


@pytest.mark.parametrize("bits", [0x7F80, 0xFFC0])
def test_infinite_bfloats_show_in_the_norm(bits: int) -> None:
    delta = {"w": np.ones(3, np.float32)}
    arrays, note = Bf16().encode(delta)
    arrays["floats"][1] = bits
    assert not np.isfinite(Bf16().open(arrays, note, delta).norm())


def test_every_half_precision_number_comes_back_and_every_rounding_is_numpys() -> None:
    every = np.arange(0x10000, dtype=np.uint16).view(np.float16)
    finite = every[np.isfinite(every)].astype(np.float32)
    delta = {"w": finite}
    assert Fp16().decode(*Fp16().encode(delta), delta)["w"].tobytes() == finite.tobytes()
    between = np.sort(finite)
    halfway = (between[:-1] + between[1:]) / 2
    near = np.concatenate([halfway, np.nextafter(halfway, 9e9), np.nextafter(halfway, -9e9)]).astype(
        np.float32
    )
    wanted = near.astype(np.float16)
    made = Fp16().encode({"w": near})[0]["floats"]
    assert (made == wanted).all()
