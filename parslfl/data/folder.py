"""Which folder holds the data, and what to say when a file is not in it.

Does not know: what the files contain.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from parslfl.errors import DataError

#: Ends every message about data that is not there: all of it works without a network.
CURE = (
    "copy it there from a machine that has it, name the folder that holds it "
    "(--data-dir, PARSLFL_DATA, or `data` of the site), or use --dataset digits, which needs no files"
)


def resolve_folder(data_dir: str | None) -> Path:
    """The data folder of this machine, absolute: `data_dir`, else PARSLFL_DATA, else ~/.cache/parslfl."""
    return place(Path(data_dir or os.environ.get("PARSLFL_DATA") or "~/.cache/parslfl")).absolute()


def place(folder: Path) -> Path:
    """`folder` with `~` and `$VARIABLE` as they are on the machine that reads it."""
    return Path(os.path.expandvars(folder)).expanduser()


def find(wanted: str, folders: Sequence[Path]) -> Path:
    """The file or folder named `wanted` in the first of `folders` that has one.

    Raises:
        DataError: none has.
    """
    for folder in folders:
        if os.path.exists(folder / wanted):  # noqa: PTH110  Path.exists raises in a closed folder
            return folder / wanted
    raise missing(wanted, folders)


def missing(wanted: str, looked: Sequence[Path]) -> DataError:
    """The error for `wanted`, which is in none of the folders `looked`."""
    return DataError(f"found no {wanted} in {' or '.join(map(str, looked))}: {CURE}")
