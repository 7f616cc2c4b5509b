"""Bytes as files in a folder that driver and workers share; large ones are mapped, not copied.

A file appears under its name only when it is whole (written beside it, then renamed), so a
reader never sees half of one and a repeated `put` replaces it. Files of dropped updates are kept
and written over: memory that the system already has for a file costs a fifth of new memory.
A reference holds a path inside the folder; one that points out of it is refused, since it may come
from a worker. One that has its bytes with it, as small ones over gRPC have, is read from there.

Does not know: what the bytes mean.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from parslfl.errors import PayloadError, unwritable
from parslfl.messages import Ref
from parslfl.protocols import Buffer
from parslfl.transport.buffers import POOL
from parslfl.transport.inline import Inline

#: Folder of updates on their way to the driver.
UPDATES = "updates"
#: Bytes from which a file is kept for another update.
_WORTH_KEEPING = 1 << 20
#: Bytes up to which a file is copied: it takes no longer, and whoever may write to the folder cannot change,
#: or take away, what has been checked.
COPIED = 1 << 20
#: Linux can fill the page table at once instead of a fault per page; elsewhere it is 0.
_POPULATE = getattr(mmap, "MAP_POPULATE", 0)


@dataclass(frozen=True)
class File:
    """A shared folder: `root` is its absolute path, the same for driver and workers."""

    root: str

    def put(self, name: str, buffers: Sequence[Buffer], checksum: str) -> Ref:
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{os.getpid()}")
        self.take_spare(part)
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT, 0o644)
        try:
            size = sum(_write(descriptor, buffer) for buffer in buffers)
            os.ftruncate(descriptor, size)
        except OSError:
            part.unlink(missing_ok=True)  # half a payload on a full disk is room for nobody
            raise
        finally:
            os.close(descriptor)
        part.replace(path)
        return Ref(size=size, checksum=checksum, path=name)

    def get(self, ref: Ref) -> memoryview:
        if ref.data and not ref.path:
            return Inline().get(ref)
        path = self._within(ref.path)
        try:
            descriptor = os.open(path, os.O_RDONLY)
            try:
                found = os.fstat(descriptor).st_size
                if found != ref.size:
                    raise PayloadError(f"{path} has {found} bytes, announced {ref.size}")
                if found <= COPIED:
                    return _read(descriptor, path, found)
                flags = mmap.MAP_SHARED | _POPULATE
                return memoryview(mmap.mmap(descriptor, found, flags=flags, prot=mmap.PROT_READ))
            finally:
                os.close(descriptor)
        except OSError as error:
            raise PayloadError(
                f"cannot read {path}: {error.strerror}. "
                f"Is {self.root} the same folder for driver and workers?"
            ) from None

    def drop(self, ref: Ref) -> None:
        """Forget `ref`. Its file may be written over from now on: no view of it may be in use."""
        if ref.data and not ref.path:
            return
        path = self.path(ref.path)
        try:
            if ref.size < _WORTH_KEEPING or path.parent.name != UPDATES:
                path.unlink()
            else:
                path.rename(self._spares() / f"{path.name}.{time.monotonic_ns()}")
        except FileNotFoundError:
            return

    def has(self, name: str) -> bool:
        return self.path(name).exists()

    def take_spare(self, path: Path) -> None:
        """Give a dropped file the name `path`, if there is one: two takers cannot get the same."""
        for spare in list(self._spares().iterdir()):
            with contextlib.suppress(FileNotFoundError):
                spare.rename(path)
                return

    def _spares(self) -> Path:
        folder = Path(self.root, "spare")
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def path(self, name: str) -> Path:
        """Where `name` is kept.

        Raises:
            PayloadError: it leads out of the folder.
        """
        return Path(self._within(name))

    def _within(self, name: str) -> str:
        """As `path`, for who wants it quickly."""
        if not name or name.startswith("/") or ".." in name.split("/"):
            raise PayloadError(f"the path {name!r} leads out of the shared folder {self.root}")
        return f"{self.root}/{name}"


def no_room(root: str, error: OSError | None) -> str:
    """Why the driver could not write an update into `root`."""
    return unwritable(f"store updates in {root}", error)


def _read(descriptor: int, path: str, size: int) -> memoryview:
    """The first `size` bytes of the file."""
    found, done = POOL.take(size), 0
    while done < size:
        came = os.readv(descriptor, [found[done:]])
        if not came:
            raise PayloadError(f"{path} has {done} bytes by now, announced {size}")
        done += came
    return found.toreadonly()


def _write(descriptor: int, buffer: Buffer) -> int:
    """Write all of `buffer`: one system call moves at most 2 GiB."""
    view, done = memoryview(buffer), 0
    while done < len(view):
        done += os.write(descriptor, view[done : done + (1 << 30)])
    return done


def write_at(descriptor: int, chunk: bytes, offset: int) -> int:
    """Write all of `chunk` from `offset` on; how much that is."""
    view, done = memoryview(chunk), 0
    while done < len(view):
        done += os.pwrite(descriptor, view[done:], offset + done)
    return done
