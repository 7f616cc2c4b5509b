"""Arrays to bytes and back: the one format of models, updates and checkpoints.

    bytes 0-3    b"PFL1"
    bytes 4-7    length of the header, uint32 little-endian
    bytes 8-15   xxh3-64 of everything from byte 16 on, uint64 little-endian
    bytes 16-    header, JSON in UTF-8, padded with spaces to a multiple of 64
    then         the arrays, C order, little-endian, each starting at a multiple of 64

The header is {"arrays": [[name, dtype, shape], ...], "note": {...}}; offsets follow from it, so
a reader computes the exact size before it touches the payload, and maps instead of copying.
Equal arrays give equal bytes. Nothing is ever unpickled. docs/wire-format.md has all of it.

Does not know: what the arrays mean, or where the bytes go.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from parslfl.errors import PayloadError
from parslfl.params import Array, Params, checksum
from parslfl.protocols import Buffer

MAGIC = b"PFL1"
_FIXED = struct.Struct("<4sIQ")
_ALIGN = 64
#: A header describes arrays, about 60 bytes each: 16 MiB is a quarter of a million of them.
MAX_HEADER = 1 << 24
_DTYPES = frozenset(
    np.dtype(kind).str for kind in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?")
)


@dataclass(frozen=True)
class Packed:
    """Bytes ready to be written one after the other, their total `size` and their checksum."""

    buffers: tuple[Buffer, ...]
    size: int
    checksum: str


def pack(arrays: Mapping[str, Array], note: Mapping[str, Any] | None = None) -> Packed:
    """Frame `arrays` and a JSON-able `note`; contiguous arrays are not copied."""
    entries, buffers, size = [], list[Buffer](), 0
    for name, array in arrays.items():
        flat = _little_endian(array)
        entries.append([name, flat.dtype.str, list(array.shape)])
        buffers += [flat.reshape(-1).view(np.uint8).data, bytes(-flat.nbytes % _ALIGN)]
        size += flat.nbytes + len(buffers[-1])
    text = json.dumps({"arrays": entries, "note": dict(note or {})}, separators=(",", ":")).encode()
    text += b" " * (-(len(text) + _FIXED.size) % _ALIGN)
    digest = checksum([text, *buffers])
    fixed = _FIXED.pack(MAGIC, len(text), int(digest, 16))
    return Packed((fixed + text, *buffers), _FIXED.size + len(text) + size, digest)


def unpack(data: memoryview, expect: str = "") -> tuple[Params, dict[str, Any]]:
    """The arrays, as read-only views of `data`, and the note.

    `expect` is the checksum that the sender announced, where there is one.

    Raises:
        PayloadError: anything about `data` is not as this module writes it.
    """
    data = data.cast("B").toreadonly()
    entries, note, start = _header(data, expect)
    ends: list[int] = []
    for _, dtype, shape in entries:
        begin = ends[-1] + -ends[-1] % _ALIGN if ends else start
        ends.append(begin + dtype.itemsize * math.prod(shape))
    size = ends[-1] + -ends[-1] % _ALIGN if ends else start
    if size != len(data):
        raise PayloadError(f"the header declares {size} bytes, but {len(data)} came")
    arrays: Params = {}
    for (name, dtype, shape), end in zip(entries, ends, strict=True):
        count = math.prod(shape)
        offset = end - dtype.itemsize * count
        # frombuffer refuses an empty buffer even for zero elements
        try:
            flat = np.frombuffer(data, dtype, count, offset) if count else np.empty(0, dtype)
            arrays[name] = flat.reshape(shape)
        except ValueError as error:
            raise PayloadError(f"array {name!r} has the impossible shape {shape}: {error}") from None
    if len(arrays) != len(entries):
        raise PayloadError("the header names an array twice")
    return arrays, note


@dataclass(frozen=True)
class Header:
    """What a payload says of itself: arrays as (name, dtype, shape), note, where the arrays start, the
    checksum that is `stored` and the one `found`. Nothing but the header's own form has been checked."""

    arrays: tuple[tuple[str, np.dtype[Any], list[int]], ...]
    note: dict[str, Any]
    start: int
    stored: str
    found: str


def header(data: memoryview) -> Header:
    """The header of `data`, also where what follows it is damaged: for people who look into a file.

    Raises:
        PayloadError: there is no readable header.
    """
    data = data.cast("B").toreadonly()
    start, stored = _start(data)
    entries, note = _parsed(data[_FIXED.size : start])
    return Header(tuple(entries), note, start, stored, checksum([data[_FIXED.size :]]))


def _header(
    data: memoryview, expect: str
) -> tuple[list[tuple[str, np.dtype[Any], list[int]]], dict[str, Any], int]:
    """Entries, note and the offset of the first array; checks magic, lengths and checksum."""
    start, stored = _start(data)
    found = checksum([data[_FIXED.size :]])
    if found != stored or (expect and found != expect):
        raise PayloadError(f"checksum {found}, announced {expect or stored}: damaged on the way")
    return *_parsed(data[_FIXED.size : start]), start


def _start(data: memoryview) -> tuple[int, str]:
    """Where the arrays start, and the stored checksum."""
    if len(data) < _FIXED.size:
        raise PayloadError(f"{len(data)} bytes are too few for a parslfl payload")
    magic, length, stored = _FIXED.unpack(data[: _FIXED.size])
    if magic != MAGIC:
        raise PayloadError(f"starts with {bytes(magic)!r}, not with {MAGIC!r}: not a parslfl payload")
    start = _FIXED.size + length
    if length > MAX_HEADER or start > len(data) or start % _ALIGN:
        raise PayloadError(f"declares a header of {length} bytes in a payload of {len(data)}")
    return start, format(stored, "016x")


def _parsed(text: memoryview) -> tuple[list[tuple[str, np.dtype[Any], list[int]]], dict[str, Any]]:
    try:
        found = json.loads(bytes(text))
        return [_entry(*entry) for entry in found["arrays"]], dict(found["note"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise PayloadError(f"unreadable header: {error}") from None


def _entry(name: object, dtype: object, shape: object) -> tuple[str, np.dtype[Any], list[int]]:
    if not isinstance(name, str) or dtype not in _DTYPES or not isinstance(shape, list):
        raise ValueError(f"array {name!r} of dtype {dtype!r} and shape {shape!r}")
    if not all(type(n) is int and 0 <= n < 1 << 48 for n in shape) or len(shape) > 32:
        raise ValueError(f"array {name!r} has the impossible shape {shape!r}")
    return name, np.dtype(str(dtype)), shape


def _little_endian(array: Array) -> Array:
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).reshape(array.shape)
