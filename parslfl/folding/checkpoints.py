"""What a round starts from: models and states as files, written whole or not at all, read by mapping.

Does not know: how a round is made.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parslfl.codecs import wire
from parslfl.errors import PayloadError, RunError, unwritable
from parslfl.params import Params, is_mapped


@dataclass(frozen=True)
class Checkpoint:
    """What round `round` starts from: the model's file and checksum, those of the strategy's state, and
    those of what a downlink codec left out ("": there is none). `difference`: checksum of what made the
    model of the one before, where that is at hand.
    """

    round: int
    path: Path
    model: str
    state_path: Path
    state: str
    residual_path: Path = Path()
    residual: str = ""
    difference: str = ""

    def load(self) -> tuple[Params, Params, Params]:
        """The model, the state and the residual, mapped and verified.

        Raises:
            RunError: a file is gone or damaged; it says how to go back a round, where that can be.
        """
        files = ((self.path, self.model), (self.state_path, self.state), (self.residual_path, self.residual))
        try:
            model, state, residual = (read(path, digest) if digest else {} for path, digest in files)
        except RunError as error:
            earlier = self.path.with_name(model_name(self.round - 1))
            if not earlier.exists():
                raise
            journal = self.path.parent.with_name("journal.jsonl")
            raise RunError(
                f"{error}. {earlier.name} is still there: to train round {self.round} again from it, delete "
                f'the last line with "event": "finished" from {journal}, and every line after it'
            ) from None
        return model, state, residual


def model_name(round: int) -> str:
    """The file name of the model that `round` starts from."""
    return f"round-{round:04d}.plm"


def write(
    path: Path, params: Params, spare: Path | None = None, note: Mapping[str, Any] | None = None
) -> str:
    """Write `params` and `note` to `path`, which appears only when whole; returns the checksum.

    `spare`: a file that nobody needs any more; its memory is written over, which takes less time
    than new memory does. Not forced to the disk: a driver that dies loses nothing, and after a
    power failure the checksum tells.

    Raises:
        RunError: it cannot be written.
    """
    packed = wire.pack(params, note)
    part = path.with_name(f".{path.name}.part")
    try:
        if spare is not None:
            with contextlib.suppress(FileNotFoundError):
                spare.rename(part)
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT, 0o644), "wb") as stream:
            stream.writelines(packed.buffers)
            stream.truncate()
        part.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        raise RunError(unwritable(f"write {path}", error)) from None
    return packed.checksum


def view(path: Path) -> memoryview:
    """The bytes in `path`, mapped read-only."""
    with path.open("rb") as stream:
        return memoryview(mmap.mmap(stream.fileno(), 0, prot=mmap.PROT_READ))


def read(path: Path, expect: str) -> Params:
    """The arrays in `path`, mapped read-only, once their checksum is found to be `expect`.

    Raises:
        RunError: the file is gone or damaged.
    """
    try:
        return wire.unpack(view(path), expect)[0]
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
