"""Room for a download: a temporary folder, bounded waiting, and one clear error.

Does not know: what is downloaded, from where, or by what.
"""

from __future__ import annotations

import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path

from parslfl.data.folder import CURE
from parslfl.errors import DataError

#: Seconds a connection may stay silent. A firewall that drops packets would else hang for minutes.
SILENCE = 15.0

#: The limit on silence is the whole process's: two downloads that overlap would restore it wrongly.
_one_at_a_time = threading.Lock()


@contextmanager
def staging(folder: Path, wanted: str) -> Iterator[Path]:
    """A fresh folder inside `folder`, to download `wanted` into and rename it out of; then gone.

    Renaming makes the download appear whole or not at all, whoever else looks or downloads too.

    Raises:
        DataError: anything that can go wrong on the way, with its reason and the offline cure.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (
            tempfile.TemporaryDirectory(".part", ".download-", folder, ignore_cleanup_errors=True) as room,
            _impatient(),
        ):
            yield Path(room)
    except (OSError, RuntimeError, ImportError, HTTPException) as error:
        raise DataError(f"found no {wanted} in {folder} and cannot download it ({error}): {CURE}") from error


@contextmanager
def _impatient() -> Iterator[None]:
    with _one_at_a_time:
        before = socket.getdefaulttimeout()
        socket.setdefaulttimeout(SILENCE)
        try:
            yield
        finally:
            socket.setdefaulttimeout(before)
