"""Bytes as files in a folder that driver and workers share; read by mapping, not by copying.

A file appears under its name only when it is whole (written beside it, then renamed), so a
reader never sees half of one and a repeated `put` replaces it. A reference holds a path inside
the folder; one that points out of it is refused, since it may come from a worker.

Does not know: what the bytes mean.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from parslfl.errors import PayloadError
from parslfl.messages import Ref
from parslfl.protocols import Buffer

#: Linux can fill the page table at once instead of a fault per page; elsewhere it is 0.
_POPULATE = getattr(mmap, "MAP_POPULATE", 0)


@dataclass(frozen=True)
class File:
    """A shared folder: `root` is its absolute path, the same for driver and workers."""

    root: str

    def put(self, name: str, buffers: Sequence[Buffer], checksum: str) -> Ref:
        path = self._path(name)
        part = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            stream = part.open("wb", buffering=0)
        except FileNotFoundError:
            path.parent.mkdir(parents=True, exist_ok=True)
            stream = part.open("wb", buffering=0)
        with stream:
            size = sum(_write(stream.fileno(), buffer) for buffer in buffers)
        part.replace(path)
        return Ref(size=size, checksum=checksum, path=name)

    def get(self, ref: Ref) -> memoryview:
        path = self._path(ref.path)
        try:
            with path.open("rb") as stream:
                found = os.fstat(stream.fileno()).st_size
                if found != ref.size:
                    raise PayloadError(f"{path} has {found} bytes, announced {ref.size}")
                if found == 0:
                    return memoryview(b"")
                flags = mmap.MAP_SHARED | _POPULATE
                return memoryview(mmap.mmap(stream.fileno(), found, flags=flags, prot=mmap.PROT_READ))
        except OSError as error:
            raise PayloadError(
                f"cannot read {path}: {error.strerror}. Is {self.root} the same folder for driver and workers?"
            ) from None

    def drop(self, ref: Ref) -> None:
        self._path(ref.path).unlink(missing_ok=True)

    def has(self, name: str) -> bool:
        return self._path(name).exists()

    def _path(self, name: str) -> Path:
        if not name or PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise PayloadError(f"the path {name!r} leads out of the shared folder {self.root}")
        return Path(self.root, name)


def _write(descriptor: int, buffer: Buffer) -> int:
    """Write all of `buffer`: one system call moves at most 2 GiB."""
    view, done = memoryview(buffer), 0
    while done < len(view):
        done += os.write(descriptor, view[done : done + (1 << 30)])
    return done
