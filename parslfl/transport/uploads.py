"""Updates on their way in: chunks go straight into files, and a broken upload goes on where it ended.

A name has one upload at a time. Whoever began it last writes it; an earlier writer, such as a
worker that was taken for dead, is turned away at its next chunk. A part is kept for ten minutes.

Does not know: who sends, or which names are allowed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from parslfl.errors import PayloadError
from parslfl.transport.file import File, no_room, write_at

#: Seconds that a part is kept for its sender to come back.
PATIENCE = 600.0


@dataclass
class _Part:
    """A file with its first `done` of `size` bytes. `writer`: who may add to it."""

    path: Path
    descriptor: int
    size: int
    checksum: str
    done: int = 0
    writer: object = None
    touched: float = field(default_factory=time.monotonic)
    lock: threading.Lock = field(default_factory=threading.Lock)


class Uploads:
    """The unfinished uploads into `home`; a finished one is a file there under its name."""

    def __init__(self, home: File) -> None:
        self._home = home
        self._parts: dict[str, _Part] = {}
        self._lock = threading.Lock()

    def begin(self, name: str, size: int, checksum: str, writer: object) -> int:
        """Let `writer` upload `name`; how many of its bytes are here already.

        Raises:
            PayloadError: the disk has no room for them.
        """
        self._expire()
        with self._lock:
            part = self._parts.get(name)
            if part is None or (part.size, part.checksum) != (size, checksum):
                self._discard(name)
                part = self._parts[name] = self._new(name, size, checksum)
        with part.lock:
            part.writer, part.touched = writer, time.monotonic()
            return part.done

    def write(self, name: str, writer: object, chunk: bytes) -> None:
        """Append `chunk`.

        Raises:
            PayloadError: more than was announced, another writer's upload, or a full disk.
        """
        part = self._parts.get(name)
        if part is None:
            raise _taken_over(name)
        try:
            with part.lock:
                if part.writer is not writer:
                    raise _taken_over(name)
                if part.done + len(chunk) > part.size:
                    raise PayloadError(f"{name} has more than the {part.size} bytes that were announced")
                part.done += write_at(part.descriptor, chunk, part.done)
                part.touched = time.monotonic()
        except OSError as error:
            self.discard(name)
            raise PayloadError(no_room(self._home.root, error)) from None

    def finish(self, name: str, writer: object) -> int:
        """Give the file its name; its size.

        Raises:
            PayloadError: bytes are missing, or it is another writer's upload.
        """
        with self._lock:
            part = self._parts.get(name)
            if part is None or part.writer is not writer:
                raise _taken_over(name)
            if part.done != part.size:
                raise PayloadError(f"{name} ended after {part.done} of {part.size} bytes")
            del self._parts[name]
        with part.lock:
            os.ftruncate(part.descriptor, part.size)  # a spare file may have been longer
            os.close(part.descriptor)
            part.writer = None
            part.path.replace(self._home.path(name))
        return part.size

    def discard(self, name: str) -> None:
        """Forget what there is of `name`."""
        with self._lock:
            self._discard(name)

    def clear(self) -> None:
        """Forget every part."""
        for name in list(self._parts):
            self.discard(name)

    def _expire(self) -> None:
        old = time.monotonic() - PATIENCE
        for name in [name for name, part in list(self._parts.items()) if part.touched < old]:
            self.discard(name)

    def _discard(self, name: str) -> None:
        part = self._parts.pop(name, None)
        if part is None:
            return
        with part.lock, contextlib.suppress(OSError):
            part.writer = None
            os.close(part.descriptor)
            part.path.unlink()

    def _new(self, name: str, size: int, checksum: str) -> _Part:
        final = self._home.path(name)
        try:
            final.parent.mkdir(parents=True, exist_ok=True)
            if shutil.disk_usage(final.parent).free < size:
                raise PayloadError(no_room(self._home.root, None))
            path = final.with_name(f".{final.name}.part")
            self._home.take_spare(path)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
        except OSError as error:
            raise PayloadError(no_room(self._home.root, error)) from None
        return _Part(path, descriptor, size, checksum)


def _taken_over(name: str) -> PayloadError:
    return PayloadError(f"the upload of {name} was taken over by another worker, or given up")
