"""Bytes that ride in the task and its result: for small payloads, with nothing to set up.

Parsl keeps a task's result until Python's cycle collector runs, so large payloads belong in
`file`.

Does not know: what the bytes mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from parslfl.errors import PayloadError
from parslfl.messages import Ref
from parslfl.protocols import Buffer


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
