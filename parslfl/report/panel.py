"""A run's progress as a rich renderable: what the live display shows at one instant.

Pure: equal progress, width and time give an equal picture.

Does not know: events, threads, or how often it is drawn.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from textwrap import wrap

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from parslfl.messages import Client, Failure, Outcome, RoundPlan
from parslfl.report.progress import Progress, causes
from parslfl.report.text import duration, loss, megabytes, percent, plural, trend

#: Causes of failure shown; the run directory keeps every failure.
CAUSES = 3
#: Sites that get a strip of their own; of more, only the counts of all together are shown.
STRIPS = 6
_LABEL = 10


@dataclass(frozen=True)
class Marks:
    """One cell of a client strip: delivered, failed, at work."""

    done: str = "■"
    failed: str = "✗"
    pending: str = "·"


#: For terminals that cannot show the others.
ASCII = Marks("#", "x", ".")


def panel(title: str, progress: Progress, elapsed: float, now: float, width: int, marks: Marks) -> Group:
    """Everything about the run at `now`; `elapsed` seconds since the command started."""
    grid = Table.grid(padding=(0, 1))
    grid.add_column(min_width=_LABEL, style="dim", no_wrap=True)
    grid.add_column(overflow="ellipsis", no_wrap=True)
    room = max(20, width - _LABEL - 2)
    for label, cell in _lines(progress, elapsed, now, room, marks):
        grid.add_row(Text(label), cell if not isinstance(cell, str) else Text(cell))
    first, *rest = title.splitlines()
    heads = [(first, "bold"), *((line, "dim") for line in rest)]
    return Group(*(Text(text, style=style, overflow="ellipsis", no_wrap=True) for text, style in heads), grid)


def _lines(
    progress: Progress, elapsed: float, now: float, room: int, marks: Marks
) -> Iterator[tuple[str, RenderableType]]:
    yield "round", _rounds(progress, room)
    yield "time", _time(progress, elapsed, now)
    yield "accuracy", _accuracy(progress, marks)
    yield "down", _down(progress)
    yield "up", _up(progress)
    yield from _clients(progress, room, marks)
    yield from _failed(progress.failures, room)
    yield from _survived(progress, room)


def _rounds(progress: Progress, room: int) -> Table:
    closed = len(progress.rows)
    number = f"{min(closed + 1, progress.rounds)} of {progress.rounds}"
    row = Table.grid(padding=(0, 2))
    bar = ProgressBar(
        total=1.0, completed=_share(progress), width=min(48, room - len(number) - 2), complete_style="green"
    )
    row.add_row(number, bar)
    return row


def _share(progress: Progress) -> float:
    """How much of the run is done: closed rounds, and the settled share of the running one."""
    part = 0.0
    if progress.running and progress.plan and progress.plan.cohort:
        part = min(len(progress.settled) / len(progress.plan.cohort), 0.99)
    return min(1.0, (len(progress.rows) + part) / max(1, progress.rounds))


def _time(progress: Progress, elapsed: float, now: float) -> str:
    left = progress.seconds_left(now)
    gone = f"{duration(int(elapsed))} gone"
    return gone if left is None else f"{gone}, about {duration(round(left))} left"


def _accuracy(progress: Progress, marks: Marks) -> Text:
    scored = progress.evaluated
    if progress.rows and progress.rows[-1].evaluation_error:
        return Text(f"not measured: {progress.rows[-1].evaluation_error}", style="red")
    if not scored:
        return Text("not measured yet", style="dim")
    last = scored[-1]
    bars = "" if marks is ASCII else trend([row.accuracy or 0.0 for row in scored])
    return Text.assemble(
        (percent(last.accuracy), "bold green"),
        f"  loss {loss(last.test_loss)}  after round {last.round + 1}  ",
        (bars, "green"),
    )


def _down(progress: Progress) -> str:
    if not progress.rows:
        return "-"
    total = sum(row.bytes_down for row in progress.rows)
    return f"{megabytes(progress.rows[-1].bytes_down)} last round, {megabytes(total)} in all"


def _up(progress: Progress) -> str:
    now = progress.bytes_up_now
    total = sum(row.bytes_up for row in progress.rows) + now
    this = f"{megabytes(now)} this round, " if progress.running else ""
    last = f"{megabytes(progress.rows[-1].bytes_up)} last round, " if progress.rows else ""
    return f"{this}{last}{megabytes(total)} in all"


def _clients(progress: Progress, room: int, marks: Marks) -> Iterator[tuple[str, Text]]:
    if progress.plan is None:
        yield "clients", Text("starting the workers", style="dim")
        return
    settled = {outcome.client: outcome for outcome in progress.settled}
    sites = _by_site(progress.plan)
    yield "clients", Text(_counts(progress.plan, settled, progress.running))
    if len(sites) <= STRIPS:
        for site, clients in sites.items():
            yield from _strip(site, clients, settled, room, marks)
    if progress.pending:
        yield "awaited", Text(_names(progress.pending, room))


def _by_site(plan: RoundPlan) -> dict[str, list[Client]]:
    sites: dict[str, list[Client]] = {}
    for assignment in plan.cohort:
        sites.setdefault(assignment.client.site, []).append(assignment.client)
    return sites


def _counts(plan: RoundPlan, settled: dict[Client, Outcome], running: bool) -> str:
    kinds = Counter(_kind(settled.get(assignment.client)) for assignment in plan.cohort)
    failed = f", {kinds['failed']} failed" if kinds["failed"] else ""
    rest = f"{kinds['pending']} to come" if running else "round closed"
    return f"{kinds['done']} of {len(plan.cohort)} done{failed}, {rest}"


def _kind(outcome: Outcome | None) -> str:
    if outcome is None:
        return "pending"
    return "failed" if isinstance(outcome, Failure) else "done"


def _strip(
    site: str, clients: list[Client], settled: dict[Client, Outcome], room: int, marks: Marks
) -> Iterator[tuple[str, Text]]:
    """One cell a client, in cohort order, as many lines as it takes."""
    cells = {
        "done": (marks.done, "green"),
        "failed": (marks.failed, "bold red"),
        "pending": (marks.pending, "dim"),
    }
    for start in range(0, len(clients), room):
        line = clients[start : start + room]
        label = site if start == 0 else ""
        shown = label if len(label) <= _LABEL else label[: _LABEL - 1] + "…"
        yield shown, Text.assemble(*(cells[_kind(settled.get(client))] for client in line))


def _names(clients: tuple[Client, ...], room: int) -> str:
    """As many clients' names as fit in `room` columns, and how many more there are."""
    shown = ""
    for count, client in enumerate(clients):
        rest = f" and {len(clients) - count} more"
        if len(shown) + len(str(client)) + 1 + len(rest) > room:
            return (shown + rest).strip()
        shown = f"{shown} {client}".strip()
    return shown


def _failed(failures: tuple[Failure, ...], room: int) -> Iterator[tuple[str, Text]]:
    """The causes seen last, at most two lines each."""
    for cause in causes(failures)[-CAUSES:]:
        last, others = cause.failures[-1], len(cause.failures) - 1
        more = f" (and {plural(others, 'failure')} alike before)" if others else ""
        text = f"{last.client} in round {last.round + 1}{more}, {cause.kind}: {cause.reason}"
        for number, part in enumerate(wrap(text, room, max_lines=2, placeholder=" …")):
            yield "" if number else "failed", Text(part, style="red")


def _survived(progress: Progress, room: int) -> Iterator[tuple[str, Text]]:
    """The last incident, at most two lines."""
    found = [(row.round, one) for row in progress.rows for one in row.incidents]
    for round, one in found[-1:]:
        more = f" (and {plural(len(found) - 1, 'incident')} before)" if len(found) > 1 else ""
        text = f"{one.site} in round {round + 1}{more}: {one.reason}"
        for number, part in enumerate(wrap(text, room, max_lines=2, placeholder=" …")):
            yield "" if number else "survived", Text(part, style="yellow")
