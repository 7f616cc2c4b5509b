"""`parslfl inspect FILE`: what a model, an update or a client's state says of itself.

Does not know: which codec or model made the file.
"""

from __future__ import annotations

import json
import math
import mmap
from argparse import Namespace
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from parslfl.codecs import wire
from parslfl.errors import PayloadError, RunError
from parslfl.report.text import plural


def inspect(args: Namespace) -> int:
    """Print header, arrays, note and checksum of the file.

    Raises:
        RunError: it cannot be read.
        PayloadError: it is damaged, or no wire file; what could be read is printed first.
    """
    path = Path(args.file)
    data = _mapped(path)
    try:
        _show(wire.header(data), len(data), Console())
        wire.unpack(data)
    except PayloadError as error:
        raise PayloadError(f"{path}: {error}") from None
    print("whole: sizes and checksum are as announced")
    return 0


def _mapped(path: Path) -> memoryview:
    try:
        with path.open("rb") as stream:
            return memoryview(mmap.mmap(stream.fileno(), 0, prot=mmap.PROT_READ))
    except ValueError:  # nothing to map
        return memoryview(b"")
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror}") from None


def _show(header: wire.Header, size: int, console: Console) -> None:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("array", "dtype", "shape", "bytes"):
        table.add_column(heading, justify="right" if heading == "bytes" else "left", overflow="fold")
    total = 0
    for name, dtype, shape in header.arrays:
        count = dtype.itemsize * math.prod(shape)
        total += count
        table.add_row(Text(name), dtype.name, " x ".join(map(str, shape)) or "one number", f"{count:,}")
    console.print(table)
    agrees = "as stored" if header.found == header.stored else f"but {header.stored} is stored: damaged"
    for label, text in (
        ("file", f"{size:,} bytes, wire format 1"),
        ("header", f"{header.start:,} bytes"),
        ("arrays", f"{plural(len(header.arrays), 'array')}, {total:,} bytes"),
        ("note", json.dumps(header.note)),
        ("checksum", f"{header.found}, {agrees}"),
    ):
        console.out(f"{label:9} {text}", highlight=False)
