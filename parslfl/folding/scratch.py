"""Memory for what a process cannot hold beside all else: arrays in a file that has no name.

As with mapped updates, the system writes them to the disk where memory is short, and has what they took for
others (not on a RAM disk); they are gone when nobody uses them, whatever becomes of the process.

Does not know: what lies in them.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from parslfl.errors import RunError
from parslfl.params import Array, Joined, Params

#: Where a file cannot be given its blocks beforehand, a full disk kills who writes to the memory.
_reserve = getattr(os, "posix_fallocate", lambda descriptor, _, size: os.ftruncate(descriptor, size))


def empty_like(params: Mapping[str, Array], folder: Path | None) -> Params:
    """As `Joined.empty_like`; in a file on the disk of `folder`, unless that is None.

    Raises:
        RunError: there is no room.
    """
    if folder is None:
        return Joined.empty_like(params)
    return Joined.empty_like(params, lambda size, dtype: _empty(folder, size, dtype))


def copied(params: Mapping[str, Array], folder: Path | None) -> Params:
    """Copies of `params` in such memory.

    Raises:
        RunError: there is no room.
    """
    made = empty_like(params, folder)
    for name, array in params.items():
        np.copyto(made[name], array)
    return made


def _empty(folder: Path, size: int, dtype: np.dtype[Any]) -> Array:
    needed = size * dtype.itemsize
    if not needed:
        return np.empty(size, dtype)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            _reserve(file.fileno(), 0, needed)
            return np.frombuffer(memoryview(mmap.mmap(file.fileno(), needed)), dtype)
    except OSError as error:
        much = f"{needed / 1e6:.0f} MB that would take too much memory"
        raise RunError(f"cannot put {much} into a file in {folder}: {error.strerror}") from None
