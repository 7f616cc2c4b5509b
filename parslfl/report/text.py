"""How numbers are written for people: megabytes, durations, shares, trends.

Does not know: where a number came from, or where its text goes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

_BARS = "▁▂▃▄▅▆▇█"


def megabytes(count: int) -> str:
    """`count` bytes in MB of 1e6 bytes, to about three digits: `0.0042 MB`, `2.5 MB`, `1,240 MB`."""
    value = count / 1e6
    if value == 0 or value >= 100:
        return f"{value:,.0f} MB"
    return f"{value:.1f} MB" if value >= 1 else f"{value:.2g} MB"


def duration(seconds: float) -> str:
    """`4.2 s` (an integer 4: `4 s`), `58 s`, `3 min 20 s`, `2 h 5 min`."""
    if seconds < 9.95 and not isinstance(seconds, int):
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def percent(share: float | None) -> str:
    """A share in [0, 1] as `41.7 %`; `-` for None."""
    return "-" if share is None else f"{100 * share:.1f} %"


def loss(value: float | None) -> str:
    """A mean loss: `1.235`, or `1.6e+30` once it runs away; `-` for None or not a number."""
    if value is None or math.isnan(value):
        return "-"
    return f"{value:.3f}" if abs(value) < 1000 else f"{value:.1e}"


def trend(values: Sequence[float], width: int = 24) -> str:
    """The last `width` values as bars, between the least and the greatest of all."""
    low, high = min(values, default=0.0), max(values, default=0.0)
    span = (high - low) or 1.0
    return "".join(_BARS[min(7, int(8 * (value - low) / span))] for value in values[-width:])


def plural(count: int, word: str) -> str:
    """`1 client`, `2 clients`, `1,200 clients`."""
    return f"{count:,} {word}" if count == 1 else f"{count:,} {word}s"


def first_line(text: str) -> str:
    """The first line of `text` that says anything, for a cell that has room for one."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "no reason given")
