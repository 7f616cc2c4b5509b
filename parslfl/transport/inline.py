"""Bytes that ride in the task and its result: for small models, with nothing to set up.

Each task carries the whole model through Parsl's messages, so there is a largest one that may. Updates
are written out by the driver as they come (`landing`).

Does not know: what the bytes mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from parslfl.errors import PayloadError
from parslfl.messages import Ref
from parslfl.protocols import Buffer

#: Bytes of the largest model that may ride in every task of a round.
LARGEST = 8 << 20


@dataclass(frozen=True)
class Inline:
    """The reference is the data."""

    def put(self, name: str, buffers: Sequence[Buffer], checksum: str) -> Ref:
        data = b"".join(buffers)
        return Ref(size=len(data), checksum=checksum, data=data)

    def get(self, ref: Ref) -> memoryview:
        if len(ref.data) != ref.size:
            raise PayloadError(f"an inline payload has {len(ref.data)} bytes, announced {ref.size}")
        return memoryview(ref.data)

    def drop(self, ref: Ref) -> None:
        """Nothing is stored, so there is nothing to forget."""

    def has(self, name: str) -> bool:
        return False
