"""Models and strategy states as files: written whole or not at all, read by mapping.

Does not know: which round a file belongs to.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from pathlib import Path

from parslfl.codecs import wire
from parslfl.errors import PayloadError, RunError
from parslfl.params import Params, is_mapped


def write(path: Path, params: Params, spare: Path | None = None) -> str:
    """Write `params` to `path`, which appears only when whole; returns the checksum.

    `spare`: a file that nobody needs any more; its memory is written over, which takes less time
    than new memory does. Not forced to the disk: a driver that dies loses nothing, and after a
    power failure the checksum tells.
    """
    packed = wire.pack(params)
    part = path.with_name(f".{path.name}.part")
    if spare is not None:
        with contextlib.suppress(FileNotFoundError):
            spare.rename(part)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT, 0o644), "wb") as stream:
        stream.writelines(packed.buffers)
        stream.truncate()
    part.replace(path)
    return packed.checksum


def read(path: Path, expect: str) -> Params:
    """The arrays in `path`, mapped read-only, once their checksum is found to be `expect`.

    Raises:
        RunError: the file is gone or damaged.
    """
    try:
        with path.open("rb") as stream:
            view = memoryview(mmap.mmap(stream.fileno(), 0, prot=mmap.PROT_READ))
        return wire.unpack(view, expect)[0]
    except (OSError, ValueError, PayloadError) as error:
        raise RunError(f"cannot use the checkpoint {path}: {error}") from None


def mapped(params: Params, place: Path | None) -> Params:
    """`params` as they are if they are mapped already, or if there is no place; else through a file at
    `place` that is gone from its folder at once, and from the disk when nobody uses the arrays."""
    if place is None or all(map(is_mapped, params.values())):
        return params
    found = read(place, write(place, params))
    place.unlink()
    return found
