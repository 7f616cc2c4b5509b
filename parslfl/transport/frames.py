"""What crosses a connection between a worker and the driver, message by message.

    Get  worker: {"name", "size", "offset"}            driver: the bytes from offset on, in chunks
    Put  worker: {"name", "size", "checksum"}          driver: {"offset"}: what it has of them already
         worker: the bytes from there on, in chunks    driver: {"offset"}: the size, once all are stored
    Has  worker: {"name"}                              driver: {"there"}

Methods of the gRPC service `parslfl.Transfer`. The headers in braces are JSON in UTF-8 of at most
4 KiB; a chunk is plain bytes, at most 1 MiB, so no message comes near gRPC's limit of 4 MiB. Each
call carries the run's token as the metadata `parslfl-token`.

Does not know: gRPC, or where bytes are kept.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from parslfl.errors import PayloadError
from parslfl.protocols import Buffer

SERVICE = "parslfl.Transfer"
GET, PUT, HAS = (f"/{SERVICE}/{name}" for name in ("Get", "Put", "Has"))
TOKEN = "parslfl-token"  # noqa: S105  the name of the field, not its value
#: The name in the driver's certificate, whatever address it is reached at.
DRIVER_NAME = "driver.parslfl"
CHUNK = 1 << 20
_HEADER = 4096
_FIELDS = {"name": str, "checksum": str, "size": int, "offset": int, "there": bool}


def header(**fields: str | int | bool) -> bytes:
    """The message that says `fields`."""
    return json.dumps(fields, separators=(",", ":")).encode()


def read_header(message: bytes, *wanted: str) -> dict[str, Any]:
    """The fields of a header, just those `wanted`, with numbers from 0 up.

    Raises:
        PayloadError: `message` is no such header.
    """
    try:
        found = json.loads(message) if len(message) <= _HEADER else None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or found.keys() != set(wanted):
        raise PayloadError(f"expected a header with {', '.join(wanted)}, got {message[:80]!r}")
    for key, value in found.items():
        if type(value) is not _FIELDS[key] or (type(value) is int and value < 0):
            raise PayloadError(f"the header's {key} is {value!r}")
    return found


def chunks(buffers: Sequence[Buffer], offset: int) -> Iterator[bytes]:
    """The concatenated buffers from `offset` on in pieces of `CHUNK` bytes; one copy, none of the whole."""
    parts: list[memoryview] = []
    room = CHUNK
    for buffer in buffers:
        view = memoryview(buffer).cast("B")
        skipped = min(offset, len(view))
        offset, view = offset - skipped, view[skipped:]
        while len(view):
            parts.append(view[:room])
            view, room = view[room:], room - len(parts[-1])
            if not room:
                yield b"".join(parts)
                parts, room = [], CHUNK
    if parts:
        yield b"".join(parts)
