"""The codec that changes nothing: every trained array as it is.

Does not know: bytes; `wire` frames whatever a codec returns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from parslfl.codecs.layout import require_arrays
from parslfl.params import Params, trained


@dataclass(frozen=True)
class Raw:
    """Sends the delta's arrays unchanged."""

    def encode(self, delta: Params, seed: int = 0) -> tuple[Params, dict[str, Any]]:
        return delta, {}

    def decode(self, arrays: Params, note: Mapping[str, Any], like: Params) -> Params:
        wanted = trained(like)
        require_arrays(arrays, wanted)
        return {name: arrays[name] for name in wanted}

    def hand(self, like: Params) -> int:
        return 0
