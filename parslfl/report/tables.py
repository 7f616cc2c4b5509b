"""Tables of a run that has ended or rests: its rounds, failures, incidents, sites and totals.

Does not know: the run directory, or a run that is going on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from parslfl.messages import Client, Failure, SitePartial
from parslfl.report.choices import choices_table
from parslfl.report.progress import Own, Row, causes
from parslfl.report.text import duration, first_line, loss, megabytes, percent, plural
from parslfl.reports import SiteTimes

#: Clients named for each cause of failure.
_NAMED = 6
_SITE_HEADINGS = ("blocks\nstarted", "queue\nwait", "start-\nup", "transfer", "training", "idle\n(of ready)")
#: What the sites' times are summed over.
_SUMS = "queue wait, start-up and idle are summed over blocks; transfer and training over delivered updates"
#: Two lines each, so that the table fits 80 columns.
_HEADINGS = (
    "round",
    "accuracy",
    "test\nloss",
    "train\nloss",
    "updates",
    "failed",
    "down\nMB",
    "up\nMB",
    "time",
)


def rounds_table(rows: Sequence[Row], last: int | None = None) -> Table:
    """One line a round; with `last`, only that many of the newest."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for heading in _HEADINGS:
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows[-last:] if last else rows:
        table.add_row(
            str(row.round + 1),
            percent(row.accuracy),
            loss(row.test_loss),
            loss(row.loss),
            str(row.updates),
            f"[red]{len(row.failures)}[/]" if row.failures else "0",
            megabytes(row.bytes_down).removesuffix(" MB"),
            megabytes(row.bytes_up).removesuffix(" MB"),
            duration(row.seconds),
        )
    return table


def failures_table(failures: Sequence[Failure]) -> Table:
    """Why clients gave nothing: one line a cause, with who and when."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("failures", justify="right")
    table.add_column("kind")
    table.add_column("reason", overflow="fold", ratio=3)
    table.add_column("clients (round)", overflow="fold", ratio=2)
    for cause in causes(failures):
        table.add_row(str(len(cause.failures)), cause.kind, Text(cause.reason), _who(cause.failures))
    return table


def incidents_table(rows: Sequence[Row]) -> Table:
    """What was survived: one line an incident, with whose training was done again."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("round", justify="right")
    table.add_column("survived at")
    table.add_column("cause", overflow="fold", ratio=3)
    table.add_column("trained again", overflow="fold", ratio=1)
    for row in rows:
        for one in row.incidents:
            again = ", ".join(str(client) for client in one.clients[:_NAMED])
            rest = len(one.clients) - _NAMED
            table.add_row(
                str(row.round + 1),
                Text(one.site),
                Text(first_line(one.reason)),
                Text(f"{again} and {rest} more" if rest > 0 else again or "-"),
            )
    return table


def sites_table(rows: Sequence[Row]) -> Table:
    """Where each site's time went, over all rounds."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("site")
    for heading in _SITE_HEADINGS:
        table.add_column(heading, justify="right", no_wrap=True)
    for site in dict.fromkeys(times.site for row in rows for times in row.sites):
        one = summed(site, rows)
        idle = f"{duration(one.idle)} ({one.idle / one.ready:.0%})" if one.ready else "-"
        times = (one.queued, one.starting, one.transfer, one.training)
        table.add_row(Text(site), str(one.blocks), *map(duration, times), idle)
    return table


def summed(site: str, rows: Sequence[Row]) -> SiteTimes:
    """The times of `site` over all `rows`."""
    found = [times for row in rows for times in row.sites if times.site == site]
    return SiteTimes(site, *(sum(getattr(one, f.name) for one in found) for f in fields(SiteTimes)[1:]))


def totals(rows: Sequence[Row]) -> list[str]:
    """The run in a few lines: rounds, best and last accuracy, bytes, time."""
    if not rows:
        return ["no round has finished"]
    scored = [row for row in rows if row.accuracy is not None]
    lines = [f"{plural(len(rows), 'round')} took {duration(sum(row.seconds for row in rows))}"]
    if scored:
        best = max(scored, key=lambda row: row.accuracy or 0.0)
        last = scored[-1]
        lines.append(
            f"accuracy {percent(last.accuracy)} after round {last.round + 1}, "
            f"best {percent(best.accuracy)} after round {best.round + 1}"
        )
    lines += [_own(row, row.own) for row in rows if row.own][-1:]
    failed = sum(len(row.failures) for row in rows)
    lines.append(f"{plural(sum(row.updates for row in rows), 'update')}, {plural(failed, 'failure')}")
    sums = {k: sum(getattr(row, k) for row in rows) for k in ("bytes_down", "raw_down", "bytes_up", "raw_up")}
    down = _fewer(sums["bytes_down"], sums["raw_down"], "the whole models'")
    up = _fewer(sums["bytes_up"], sums["raw_up"], "their")
    lines.append(
        f"{megabytes(sums['bytes_down'])} down to clients{down}, "
        f"{megabytes(sums['bytes_up'])} up from them{up}"
    )
    return [*lines, *_sums([partial for row in rows for partial in row.partials])]


def _fewer(crossed: int, raw: int, whose: str) -> str:
    """How many times fewer bytes crossed than the `raw` ones, where that says something."""
    return (
        f", {raw / crossed:.1f} times fewer than {whose} {megabytes(raw)}" if raw > 1.05 * crossed > 0 else ""
    )


def _sums(partials: Sequence[SitePartial]) -> list[str]:
    """A line for each site that sent sums in place of its updates."""
    found: dict[str, list[SitePartial]] = {}
    for partial in partials:
        found.setdefault(partial.site, []).append(partial)
    return [
        f"{site} sent {plural(len(sent), 'sum')} of {plural(sum(p.updates for p in sent), 'update')}: "
        f"{megabytes(sum(p.bytes_up for p in sent))} up instead of "
        f"{megabytes(sum(p.bytes_there for p in sent))}"
        for site, sent in found.items()
    ]


def _own(row: Row, own: Own) -> str:
    """How the clients' own models did on what they had held out."""
    return (
        f"own models of {plural(own.clients, 'client')} in round {row.round + 1}: accuracy "
        f"{percent(own.mean)} on average, {percent(own.worst)} at worst; "
        f"the global one there {percent(own.global_mean)} and {percent(own.global_worst)}"
    )


def show(rows: Sequence[Row], console: Console, last: int | None = None) -> None:
    """Print rounds, failures, incidents, the planner's last choices, sites and totals."""
    if last and len(rows) > last:
        console.print(f"the last {last} of {len(rows)} rounds:", style="dim")
    if rows:
        console.print(rounds_table(rows, last))
    for table in _details(rows):
        console.print(table)
    for row in rows:
        if row.evaluation_error:
            console.print(
                Text(f"round {row.round + 1} was not evaluated: {row.evaluation_error}", style="red")
            )
    for text, numbers in _cautions(rows).items():
        console.print(Text(f"the strategy {text} (in {_rounds(numbers)})", style="yellow"))
    for text, clients in _noted(rows).items():
        console.print(Text(f"{_named(clients)}: {text}", style="yellow"))
    if any(row.sites for row in rows):
        console.print(sites_table(rows))
        console.print(_SUMS, style="dim", highlight=False)
    for text in totals(rows):
        console.print(text, highlight=False, markup=False)


def _details(rows: Sequence[Row]) -> Iterator[Table]:
    """What failed, what was survived, what the planner chose last."""
    failures = [failure for row in rows for failure in row.failures]
    if failures:
        yield failures_table(failures)
    if any(row.incidents for row in rows):
        yield incidents_table(rows)
    for row in [row for row in rows if row.choices][-1:]:
        yield choices_table(row.round, row.choices)


def _cautions(rows: Sequence[Row]) -> dict[str, list[int]]:
    """What the strategy did not hold, and in which rounds."""
    found: dict[str, list[int]] = {}
    for row in rows:
        if row.caution:
            found.setdefault(row.caution, []).append(row.round)
    return found


def _rounds(numbers: Sequence[int]) -> str:
    named = ", ".join(str(number + 1) for number in numbers[:_NAMED])
    more = f" and {len(numbers) - _NAMED} more" if len(numbers) > _NAMED else ""
    return f"round{'s' * (len(numbers) > 1)} {named}{more}"


def _noted(rows: Sequence[Row]) -> dict[str, list[tuple[Client, int]]]:
    """What updates had to say, and which clients' of which rounds."""
    found: dict[str, list[tuple[Client, int]]] = {}
    for row in rows:
        for client, note in row.notes:
            found.setdefault(note, []).append((client, row.round))
    return found


def _who(failures: Sequence[Failure]) -> Text:
    return Text(_named([(f.client, f.round) for f in failures]))


def _named(clients: Sequence[tuple[Client, int]]) -> str:
    text = ", ".join(f"{client} ({round + 1})" for client, round in clients[:_NAMED])
    rest = len(clients) - _NAMED
    return f"{text} and {rest} more" if rest > 0 else text
