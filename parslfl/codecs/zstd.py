"""Lossless compression of whatever is to be sent, as one zstd frame (RFC 8878).

Does not know: what the bytes mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from parslfl.codecs.layout import fingerprint, require_layout, stand_in
from parslfl.codecs.pieces import Dense
from parslfl.errors import PayloadError
from parslfl.params import Array, Params, nbytes

_LEVELS = 19


@dataclass(frozen=True)
class Zstd:
    """`level` 0 looks for little but unevenly frequent bytes, which is what numbers have, and takes
    the least time; 1 to 19 are zstd's own."""

    level: int = 0
    rank: ClassVar[int] = 2
    biased: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 0 <= self.level <= _LEVELS:
            raise ValueError(f"level must be from 0 to {_LEVELS}, got {self.level}")

    def encode(self, delta: Params, seed: int = 0) -> tuple[Params, dict[str, Any]]:
        joined = np.concatenate([np.empty(0, np.uint8), *(_bytes(array) for array in delta.values())])
        packed = _compressor(self.level).compress(joined)
        return {"zstd": np.frombuffer(packed, np.uint8)}, {"layout": fingerprint(delta)}

    def decode(self, arrays: Params, note: Mapping[str, Any], like: Params) -> Params:
        require_layout(note, like)
        frame = arrays.get("zstd")
        if frame is None or len(arrays) != 1 or frame.dtype != np.uint8 or frame.ndim != 1:
            raise PayloadError(f"holds the arrays {sorted(arrays)[:5]}, expected one zstd frame")
        data = np.frombuffer(_expanded(frame, nbytes(like)), np.uint8)
        made, at = {}, 0
        for name, array in like.items():
            part = data[at : at + array.nbytes]
            made[name] = part.view(array.dtype).reshape(array.shape) if array.size else np.empty_like(array)
            at += array.nbytes
        return made

    def open(self, arrays: Params, note: Mapping[str, Any], like: Params) -> Dense:
        return Dense(self.decode(arrays, note, like))

    def declared(self, note: Mapping[str, Any], like: Params) -> Params:
        raise AssertionError("nothing comes after zstd")

    def hand(self, like: Params) -> int:
        return nbytes(like)

    def most(self, like: Params) -> Params:
        return {"zstd": stand_in("u1", nbytes(like))}


def _bytes(array: Array) -> Array:
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(-1).view(np.uint8)


def _compressor(level: int) -> Any:
    import zstandard

    if level:
        return zstandard.ZstdCompressor(level=level)
    # a hash table of 64 entries and long matches: nearly nothing but the entropy coder is at work
    chosen = zstandard.ZstdCompressionParameters.from_level(
        1, strategy=zstandard.STRATEGY_FAST, hash_log=6, min_match=7, window_log=17, target_length=0
    )
    return zstandard.ZstdCompressor(compression_params=chosen)


def _expanded(frame: Array, size: int) -> bytes:
    """What is in `frame`, if it declares exactly `size` bytes: nothing is allocated before that is known.

    Raises:
        PayloadError: it declares another size, or is damaged.
    """
    import zstandard

    data = np.ascontiguousarray(frame).data
    try:
        said = zstandard.get_frame_parameters(data).content_size
        if said != size:
            raise PayloadError(f"its zstd frame declares {said} bytes, the model makes it {size}")
        return bytes(zstandard.ZstdDecompressor().decompress(data, allow_extra_data=False))
    except zstandard.ZstdError as error:
        raise PayloadError(f"its zstd frame is damaged: {error}") from None
