"""What every codec promises."""

from __future__ import annotations

import numpy as np
import pytest

from parslfl.codecs import wire
from parslfl.codecs.names import CODECS
from parslfl.errors import PayloadError
from parslfl.protocols import Codec


@pytest.fixture(params=sorted(CODECS))
def codec(request: pytest.FixtureRequest) -> Codec:
    return CODECS[request.param]()


LIKE = {
    "a": np.ones((4, 3), np.float32),
    "b": np.ones((), np.float32),
    "empty": np.ones((0,), np.float32),
}
DELTA = {
    "a": np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3),
    "b": np.float32(0.25) * np.ones((), np.float32),
    "empty": np.ones((0,), np.float32),
}


def test_round_trip_over_the_wire_keeps_names_shapes_and_dtypes(codec: Codec) -> None:
    packed = wire.pack(*codec.encode(DELTA))
    arrays, note = wire.unpack(memoryview(b"".join(packed.buffers)))
    decoded = codec.decode(arrays, note, LIKE)
    assert [(k, v.dtype, v.shape) for k, v in decoded.items()] == [
        (k, v.dtype, v.shape) for k, v in DELTA.items()
    ]
    assert np.abs(decoded["a"] - DELTA["a"]).max() <= 1.0


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"a": DELTA["a"]},
        {**DELTA, "extra": np.ones(1, np.float32)},
        {**DELTA, "a": DELTA["a"].T.copy()},
        {**DELTA, "a": DELTA["a"].astype(np.float64)},
        {**DELTA, "a": np.ones((400, 300), np.float32)},
    ],
)
def test_an_update_for_another_model_is_refused(codec: Codec, wrong: dict[str, np.ndarray]) -> None:
    arrays, note = codec.encode(wrong)
    with pytest.raises(PayloadError):
        codec.decode(arrays, note, LIKE)
