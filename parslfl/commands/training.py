"""Run an experiment in front of a person: the display, the last table, what to do if it stops.

Does not know: how a round is made, or where the request came from.
"""

from __future__ import annotations

import shlex
import shutil
import sys
from contextlib import closing
from pathlib import Path

from rich.console import Console

from parslfl.commands.request import Request
from parslfl.document import shown
from parslfl.errors import RunError
from parslfl.fitting import remarks
from parslfl.report import tables
from parslfl.report.live import Display, display
from parslfl.report.progress import Row, resumed
from parslfl.report.text import percent, plural
from parslfl.reports import Event
from parslfl.rundir import journal

#: Rounds in the table at the end; `parslfl report` shows all.
_LAST = 20


def train(request: Request, path: Path, *, resume: bool, plain: bool, quiet: bool) -> None:
    """Run what is left of the request in the run directory `path`, showing it.

    Raises:
        ParslflError: it cannot be done; like a Ctrl-C, with a note on how to go on.
    """
    before = journal.reports(path) if resume else []
    progress = resumed(request.experiment.rounds, before)
    try:
        with display(_title(request, path), progress, plain=plain, quiet=quiet) as screen:
            told = _told(request, path, resume, screen)
    except (Exception, KeyboardInterrupt) as error:
        _note(error, path)
        raise
    after = {row.round: row for row in (*progress.rows, *told)}
    _close(list(after.values()), path, request.experiment.rounds, new=bool(told), quiet=quiet)


def command(name: str, path: Path) -> str:
    """The line that runs `parslfl name` on the run in `path`."""
    found = shutil.which("parslfl")
    words = ["parslfl"] if found else [sys.executable, "-m", "parslfl"]
    return shlex.join([*words, name, shown(path)])


def _told(request: Request, path: Path, resume: bool, screen: Display) -> list[Row]:
    """Rows of the rounds that were completed, after telling `screen` all about them."""
    from parslfl.orchestrator import rounds  # takes a second: the display is up by then

    heard: list[Event] = []

    def watch(event: Event) -> None:
        heard[:] = [event]
        screen.watch(event)

    reports = rounds(request.federation, request.experiment, path, resume=resume, watch=watch)
    rows = []
    try:
        with closing(reports):
            for report in reports:
                screen.told(report)
                rows.append(Row.of(report))
    except OSError as error:
        if heard and not (path / "run.yaml").exists():
            raise RunError(f"{path} is gone: it was removed while the run went on; start it anew") from error
        raise
    return rows


def _title(request: Request, path: Path) -> str:
    """Two lines: what is learnt, and where; more where the strategy asks for a remark."""
    what = request.experiment.resolved()
    clients = sum(site.clients for site in request.federation.sites)
    sites = ", ".join(site.name for site in request.federation.sites)
    lines = (
        f"{what['name']}: {what['dataset']} by {what['partition']}, {what['model']}, {what['strategy']}",
        f"{plural(clients, 'client')} at {sites}, {what['per_round']} a round; {shown(path)}",
        *remarks(request.federation, request.experiment),
    )
    return "\n".join(lines)


def _note(error: BaseException, path: Path) -> None:
    """Add to `error` how to go on, where a round has finished."""
    if isinstance(error, RunError):
        return
    try:
        finished = journal.reports(path)
    except RunError:  # what is damaged is not kept
        return
    if not finished:
        return
    error.add_note(f"finished rounds are kept in {shown(path)}; resume with: {command('resume', path)}")


def _close(rows: list[Row], path: Path, rounds: int, *, new: bool, quiet: bool) -> None:
    """Say how it ended and where everything is."""
    console = Console()
    if quiet:
        console.out(f"{_outcome(rows)}; {shown(path)}", highlight=False)
        return
    tables.show(rows, console, last=_LAST)
    if not new:
        more = f"nothing was left to do: all {rounds} rounds are done; more with --rounds N"
        console.out(more, highlight=False)
    console.out(f"run directory: {shown(path)}\nshow again: {command('report', path)}", highlight=False)


def _outcome(rows: list[Row]) -> str:
    scored = [row for row in rows if row.accuracy is not None]
    last = scored[-1] if scored else None
    return f"accuracy {percent(last.accuracy)} after round {last.round + 1}" if last else "not evaluated"
