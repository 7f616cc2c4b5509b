"""The codec that changes nothing: every trained array as it is.

Does not know: bytes; `wire` frames whatever a codec returns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from parslfl.errors import PayloadError
from parslfl.params import Params, trained


@dataclass(frozen=True)
class Raw:
    """Sends the delta's arrays unchanged."""

    def encode(self, delta: Params) -> tuple[Params, dict[str, Any]]:
        return delta, {}

    def decode(self, arrays: Params, note: Mapping[str, Any], like: Params) -> Params:
        wanted = trained(like)
        if arrays.keys() != wanted.keys():
            raise PayloadError(
                f"holds the arrays {sorted(arrays)[:5]}..., the model has {sorted(wanted)[:5]}..."
            )
        for name, array in arrays.items():
            if array.shape != wanted[name].shape or array.dtype != wanted[name].dtype:
                raise PayloadError(
                    f"array {name!r} is {array.dtype}{list(array.shape)}, "
                    f"the model's is {wanted[name].dtype}{list(wanted[name].shape)}"
                )
        return {name: arrays[name] for name in wanted}
