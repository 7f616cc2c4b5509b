"""Who holds what: clients and classes, as a picture in the terminal, as numbers, as a PNG.

Does not know: how the examples were divided.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from parslfl.errors import ConfigError, Problem

Counts = npt.NDArray[np.integer]

#: From nothing to the greatest count of the picture.
_SHADES = "·░▒▓█"
_SHADES_ASCII = ".-+*#"


def picture(counts: Counts, width: int, ascii_only: bool = False) -> Iterator[Text]:
    """`counts` (clients, classes) as shaded cells: a column a client, a row a class.

    As many clients side by side as `width` columns hold, the others in bands below.
    """
    shades = _SHADES_ASCII if ascii_only else _SHADES
    clients, classes = counts.shape
    band = max(10, (width - 12) // 10 * 10)
    top = max(1, int(counts.max(initial=0)))
    for start in range(0, clients, band):
        part = counts[start : start + band]
        yield Text(f"clients    {_ruler(start, len(part))}", style="dim")
        for label in range(classes):
            cells = "".join(shades[level(int(n), top)] for n in part[:, label])
            yield Text.assemble((f"class {label:<4} ", "dim"), (cells, "cyan"))
    yield Text(f"{shades[0]} none   {shades[1]} few   {shades[4]} {top:,} examples", style="dim")


def level(count: int, top: int) -> int:
    """Shade 0 (none) to 4 (all of `top`); whoever holds one example is never shown as none."""
    return min(4, -(-4 * count // top))


def numbers(counts: Counts) -> Table:
    """`counts` (clients, classes) as a table, with each client's and each class's total."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_footer=True)
    table.add_column("client", footer="all", justify="right")
    for label in range(counts.shape[1]):
        table.add_column(str(label), footer=str(counts[:, label].sum()), justify="right")
    table.add_column("examples", footer=str(counts.sum()), justify="right")
    for client, row in enumerate(counts):
        table.add_row(str(client), *(str(n) if n else "-" for n in row), str(row.sum()))
    return table


def spread(counts: Counts) -> list[str]:
    """Least, median and greatest number of examples and of classes that a client holds."""
    examples, classes = counts.sum(axis=1), (counts > 0).sum(axis=1)
    return [
        f"{what} a client: least {a.min():,}, median {np.median(a):,.0f}, greatest {a.max():,}"
        for what, a in (("examples", examples), ("classes", classes))
    ]


def plot(counts: Counts, title: str, file: Path) -> None:
    """Write `counts` (clients, classes) as a picture to `file` (.png, .pdf or .svg).

    Raises:
        ConfigError: matplotlib is not installed, or `file` cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise _refuse(file, "needs matplotlib, which is not installed: pip install matplotlib") from None
    figure = Figure(figsize=(min(24.0, 2 + len(counts) / 6), 1.5 + counts.shape[1] / 4), layout="constrained")
    axes = figure.subplots()
    drawn = axes.imshow(counts.T, aspect="auto", cmap="Blues", interpolation="nearest")
    axes.set(title=title, xlabel="client", ylabel="class", yticks=range(counts.shape[1]))
    figure.colorbar(drawn, label="examples")
    try:
        figure.savefig(file, dpi=150)
    except (OSError, ValueError) as error:
        raise _refuse(file, f"cannot be written: {error}") from None


def _ruler(start: int, count: int) -> str:
    """The number of every tenth client, above its column."""
    marks = (f"{number:<10}" for number in range(start, start + count, 10))
    return "".join(marks).rstrip()


def _refuse(file: Path, message: str) -> ConfigError:
    return ConfigError([Problem("--plot", str(file), message)])
