"""What holds for every codec and every chain of codecs, over arrays of every shape and kind."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from parslfl import specs
from parslfl.codecs import wire
from parslfl.codecs.chain import Chain
from parslfl.codecs.names import CODECS
from parslfl.codecs.pieces import opened
from parslfl.errors import PayloadError
from parslfl.params import Params, squared_norm, zeros_like

CHOOSE = ["", "topk:ratio=0.3", "randomk:ratio=0.4", "lowrank:ratio=0.5"]
SHORTEN = [
    "", "fp16", "bf16", "quantize", "quantize:bits=4,block=0", "quantize:bits=2,block=16",
    "quantize:bits=8,block=32,nearest=true", "quantize:bits=4,block=64",
]  # fmt: skip
PACK = ["", "zstd"]
SPECS = [
    *("+".join(filter(None, parts)) or "raw" for parts in itertools.product(CHOOSE, SHORTEN, PACK)),
    "topk:ratio=1", "topk:ratio=1e-9", "lowrank:ratio=1", "lowrank:ratio=1e-9",
    "randomk:ratio=1", "randomk:ratio=0.2,unbiased=true", "zstd:level=3",
]  # fmt: skip

#: Zeros, denormals, and what a float16 times six can be.
NUMBERS = st.one_of(
    st.just(0.0), st.sampled_from([1e-45, -1e-40, 1e-38, -0.0, 6e-8]), st.floats(-8192, 8192, width=16)
)


def named(text: str) -> Any:
    codec: Any = specs.parse_chain(text, CODECS, "codec", Chain)  # type: ignore[arg-type]
    return codec


@st.composite
def deltas(draw: st.DrawFn) -> Params:
    """A few floating arrays: some empty, zero-dimensional, transposed, all zeros, of one element."""
    made = {}
    for number in range(draw(st.integers(1, 3))):
        dtype = draw(st.sampled_from([np.float32, np.float32, np.float64, np.float16]))
        shape = draw(npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=7))
        flat = draw(st.lists(NUMBERS, min_size=1, max_size=6))
        with np.errstate(under="ignore"):
            array = np.resize(np.array(flat), shape).astype(dtype)
        made[f"a{number}"] = array.T if draw(st.booleans()) else array
    return made


def over_the_wire(codec: Any, delta: Params, seed: int = 7) -> tuple[Params, dict[str, Any], int]:
    packed = wire.pack(*codec.encode(delta, seed))
    data = b"".join(packed.buffers)
    return (*wire.unpack(memoryview(data), packed.checksum), len(data))


@pytest.mark.parametrize("text", SPECS)
@settings(max_examples=12, deadline=None)
@given(delta=deltas())
@example(delta={"a": np.array(1792, np.float32), "b": np.full((3, 3), 75, np.float16)})
def test_whatever_goes_in_comes_out_in_the_same_form(text: str, delta: Params) -> None:
    codec = named(text)
    before = {name: array.copy() for name, array in delta.items()}
    arrays, note, _ = over_the_wire(codec, delta)
    decoded = codec.decode(arrays, note, delta)
    assert [(k, v.dtype, v.shape) for k, v in decoded.items()] == [
        (k, v.dtype, v.shape) for k, v in delta.items()
    ]
    if not all(np.isfinite(array).all() for array in decoded.values()):
        # few bits of large factors can be more than float16 holds; such an update is refused by its norm
        assert any(array.dtype == np.float16 for array in delta.values())
        assert math.isnan(squared_norm(decoded)) or math.isinf(squared_norm(decoded))
        return
    assert {k: v.tobytes() for k, v in delta.items()} == {k: v.tobytes() for k, v in before.items()}

    update = opened(codec, arrays, note, delta)
    total = zeros_like(
        {name: np.ascontiguousarray(array).reshape(array.shape) for name, array in delta.items()}
    )
    update.add(total, 1.0)
    for name, array in decoded.items():
        np.testing.assert_allclose(total[name], array, rtol=1e-3, atol=1e-7)
    flat = {k: np.ascontiguousarray(v) for k, v in decoded.items()}
    assert update.norm() == pytest.approx(math.sqrt(squared_norm(flat)), rel=2e-3, abs=1e-6)

    again = wire.pack(*codec.encode(delta, 7))
    assert b"".join(again.buffers) == b"".join(wire.pack(arrays, note).buffers)


@pytest.mark.parametrize("text", SPECS)
def test_what_is_not_finite_is_not_sent(text: str) -> None:
    if text.startswith(("raw", "zstd")):
        return  # lossless: the driver refuses it
    for bad in (np.nan, np.inf, -np.inf, 1e30):
        delta = {"w": np.array([1, bad, 2], np.float32)}
        with pytest.raises(PayloadError, match="training diverged"):
            named(text).encode(delta, 0)


@pytest.mark.parametrize("text", SPECS)
def test_an_update_for_another_model_is_refused(text: str) -> None:
    codec, delta = named(text), {"w": np.ones((4, 3), np.float32), "b": np.ones(3, np.float32)}
    arrays, note, _ = over_the_wire(codec, delta)
    for like in (
        {"w": delta["w"]},
        {**delta, "c": np.ones(1, np.float32)},
        {**delta, "w": np.ones((3, 4), np.float32)},
        {**delta, "w": np.ones((4, 3), np.float64)},
        {"b": delta["w"], "w": delta["b"]},
        {"w": delta["w"], "c": delta["b"]},
    ):
        for read in (codec.decode, lambda *args: opened(codec, *args)):
            with pytest.raises(PayloadError):
                read(arrays, note, like)


@pytest.mark.parametrize("text", SPECS)
def test_missing_extra_and_misshapen_arrays_are_refused(text: str) -> None:
    codec, delta = named(text), {"w": np.linspace(-1, 1, 40, dtype=np.float32)}
    arrays, note, _ = over_the_wire(codec, delta)
    for name, array in arrays.items():
        for wrong in (
            {k: v for k, v in arrays.items() if k != name},
            {**arrays, "extra": array},
            {**arrays, name: array[:-1]},
            {**arrays, name: array.reshape(1, -1)},
            {**arrays, name: array.astype(np.float64)},
        ):
            with pytest.raises(PayloadError):
                opened(codec, wrong, note, delta).norm()
    if text != "raw":
        with pytest.raises(PayloadError):
            opened(codec, arrays, {}, delta)


@pytest.mark.parametrize("text", [text for text in SPECS if "+" in text])
@pytest.mark.parametrize("stages", [None, 3, [], [1, 2], [{}], [{}, {}, {}, {}], {"0": {}}])
def test_a_chains_note_describes_each_of_its_codecs(text: str, stages: object) -> None:
    codec, delta = named(text), {"w": np.linspace(-1, 1, 40, dtype=np.float32)}
    arrays, note, _ = over_the_wire(codec, delta)
    with pytest.raises(PayloadError, match="does not describe"):
        opened(codec, arrays, {**note, "stages": stages}, delta)
