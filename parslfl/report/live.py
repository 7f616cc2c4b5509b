"""Shows a run while it goes: a live panel on a terminal, one line a round elsewhere.

A display takes every event through `watch`, from any thread, and every complete report through
`told`, from the thread that runs the command.

Does not know: what is shown (`panel`, `progress`), or who makes the events.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live

from parslfl.report.choices import in_words
from parslfl.report.panel import ASCII, Marks, panel
from parslfl.report.progress import Progress, Row, advance
from parslfl.report.text import duration, first_line, loss, megabytes, percent
from parslfl.reports import Event, RoundReport, SiteWaits

#: Drawings a second: enough to look alive, too few to cost the workers a core.
REFRESH = 4


class Display(AbstractContextManager["Display"]):
    """Shows nothing (`--quiet`), and is what the others have in common."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def watch(self, event: Event) -> None:
        """Take an event, in any thread."""

    def told(self, report: RoundReport) -> None:
        """Take a complete report, in the main thread."""


class PlainLines(Display):
    """The title, then one line a finished round, for logs and pipes."""

    def __init__(self, title: str, rounds: int, write: Callable[[str], object] | None = None) -> None:
        self.title = title
        self.rounds = rounds
        self.write = write or _print

    def __enter__(self) -> Self:
        self.write(self.title)
        return self

    def watch(self, event: Event) -> None:
        """Say at once why a site does not begin."""
        if isinstance(event, SiteWaits):
            self.write(waits(event))

    def told(self, report: RoundReport) -> None:
        """Write the report's line."""
        self.write(line(Row.of(report), self.rounds))


class LivePanel(Display):
    """The panel, redrawn in place; it leaves the terminal when the run ends."""

    def __init__(
        self,
        title: str,
        progress: Progress,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.title = title
        self.console = console or Console()
        self.clock = clock
        self.started = clock()
        self.progress = progress
        self._lock = threading.Lock()
        self._live = Live(
            get_renderable=self.render, console=self.console, refresh_per_second=REFRESH, transient=True
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def watch(self, event: Event) -> None:
        """Take an event; the next drawing shows it. Why a site does not begin stays above the panel."""
        if isinstance(event, SiteWaits):
            self.console.print(waits(event), style="yellow", markup=False, highlight=False)
        with self._lock:  # two events at once must not each start from the same progress
            self.progress = advance(self.progress, event, self.clock())

    def render(self) -> Group:
        """The panel as of now."""
        now = self.clock()
        return panel(
            self.title, self.progress, now - self.started, now, self.console.width, marks(self.console)
        )


def display(title: str, progress: Progress, *, plain: bool = False, quiet: bool = False) -> Display:
    """The display that fits where standard output goes."""
    if quiet:
        return Display()
    console = Console()
    if plain or not console.is_terminal or console.is_dumb_terminal:
        return PlainLines(title, progress.rounds)
    return LivePanel(title, progress, console)


def marks(console: Console) -> Marks:
    """Cells that `console` can write."""
    return Marks() if console.encoding.lower().startswith("utf") else ASCII


def waits(event: SiteWaits) -> str:
    """Why a site does not begin, in one line."""
    return f"{event.site} waits: {first_line(event.reason)}"


def line(row: Row, rounds: int) -> str:
    """A finished round in one line."""
    parts = [f"round {row.round + 1}/{rounds}"]
    if row.accuracy is not None:
        parts.append(f"accuracy {percent(row.accuracy)}  test loss {loss(row.test_loss)}")
    parts += [
        f"train loss {loss(row.loss)}",
        f"updates {row.updates} of {row.updates + len(row.failures)}",
        f"down {megabytes(row.bytes_down)}  up {megabytes(row.bytes_up)}",
        duration(row.seconds),
    ]
    if row.choices:
        parts.append(in_words(row.choices))
    if row.failures:
        first = row.failures[0]
        parts.append(f"failed {first.client} ({first.kind}: {first_line(first.reason)})")
    if len(row.failures) > 1:
        parts.append(f"and {len(row.failures) - 1} more")
    if row.incidents:
        parts.append(f"survived at {row.incidents[0].site}: {first_line(row.incidents[0].reason)}")
    if len(row.incidents) > 1:
        parts.append(f"and {len(row.incidents) - 1} more")
    if row.evaluation_error:
        parts.append(f"not evaluated: {row.evaluation_error}")
    if row.caution:
        parts.append(f"the strategy {row.caution}")
    return "  ".join(parts)


def _print(text: str) -> None:
    print(text, file=sys.stdout, flush=True)  # a log must show a round when it ends, not when a buffer fills
