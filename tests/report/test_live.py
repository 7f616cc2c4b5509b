"""The displays, written to strings: what stands there, and that any thread may tell."""

from __future__ import annotations

import io
import threading
from dataclasses import replace

import pytest
from rich.console import Console

from parslfl.codecs.raw import Raw
from parslfl.learning import LocalWork
from parslfl.messages import Assignment, Client, Failure, Ref, RoundPlan, Update
from parslfl.report.live import Display, LivePanel, PlainLines, display, marks
from parslfl.report.panel import ASCII, Marks
from parslfl.report.progress import Progress
from parslfl.reports import (
    ClientSettled,
    Evaluated,
    Incident,
    RoundClosed,
    RoundReport,
    RoundStarted,
    SiteWaits,
)


def clients(count: int, site: str = "here") -> list[Client]:
    return [Client(index, site) for index in range(count)]


def plan(of: list[Client], round: int = 0) -> RoundPlan:
    return RoundPlan(round, tuple(Assignment(c, LocalWork(), Raw()) for c in of), len(of) // 2, len(of))


def update(client: Client, round: int = 0) -> Update:
    return Update(client, round, Ref(500_000, ""), 10, 5, 5, 2.0, 1.0, 500_000)


def report(round: int = 0, failures: tuple[Failure, ...] = ()) -> RoundReport:
    done = tuple(update(client, round) for client in clients(4))
    return RoundReport(round, "digest", done, failures, 1.25, 2_000_000, 1_500_000, 12.0)


def shown(panel: LivePanel) -> str:
    with panel.console.capture() as capture:
        panel.console.print(panel.render())
    return capture.get()


def panel(rounds: int = 3, width: int = 80) -> LivePanel:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    return LivePanel("a title", Progress(rounds), console, clock=lambda: 0.0)


def test_the_panel_says_who_is_done_who_failed_and_who_is_awaited() -> None:
    live, team = panel(), clients(4)
    live.watch(RoundStarted(plan(team)))
    live.watch(ClientSettled(update(team[0])))
    live.watch(ClientSettled(Failure(team[2], 0, "lost", "its worker died\nwith a long traceback")))
    text = shown(live)
    assert "1 of 3" in text
    assert "1 of 4 done, 1 failed, 2 to come" in text
    assert "here       ■·✗·" in text
    assert "here/1 here/3" in text
    assert "here/2 in round 1, lost: its worker died" in text
    assert "traceback" not in text
    assert "0.50 MB this round" in text or "0.5 MB this round" in text


def test_the_panel_shows_the_last_evaluation_and_the_totals() -> None:
    live = panel()
    for number in range(2):
        live.watch(RoundClosed(report(number)))
    live.watch(Evaluated(replace(report(0), accuracy=0.417, test_loss=1.5)))
    text = shown(live)
    assert "41.7 %  loss 1.500  after round 1" in text
    assert "2.0 MB last round, 4.0 MB in all" in text
    assert "about 12 s left" in text


def test_an_evaluation_that_failed_is_not_hidden() -> None:
    live = panel()
    live.watch(Evaluated(replace(report(0), evaluation_error="no test_batch in /data")))
    assert "not measured: no test_batch in /data" in shown(live)


@pytest.mark.parametrize("width", [40, 80, 120])
def test_two_hundred_clients_fit_any_width(width: int) -> None:
    live, team = panel(width=width), clients(100, "a-site-with-a-long-name") + clients(100, "b")
    live.watch(RoundStarted(plan(team)))
    for client in team[:50]:
        live.watch(ClientSettled(Failure(client, 0, "error", "word " * 60)))
    lines = shown(live).splitlines()
    assert max(len(line.rstrip()) for line in lines) <= width
    assert len(lines) < 24
    assert any("more" in line for line in lines)


def test_many_sites_are_summed_up() -> None:
    live = panel()
    live.watch(RoundStarted(plan([Client(index, f"site-{index}") for index in range(30)])))
    assert len(shown(live).splitlines()) < 12


def test_events_may_come_from_many_threads_at_once() -> None:
    live, team = panel(), clients(200)
    live.watch(RoundStarted(plan(team)))
    parts = [team[start::8] for start in range(8)]

    def tell(part: list[Client]) -> None:
        for client in part:
            live.watch(ClientSettled(update(client)))

    threads = [threading.Thread(target=tell, args=[part]) for part in parts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(live.progress.settled) == 200


def test_the_panel_leaves_the_terminal_as_it_was() -> None:
    live = panel()
    with live:
        live.watch(RoundStarted(plan(clients(4))))
    written = live.console.file
    assert isinstance(written, io.StringIO)
    assert written.getvalue().endswith("\x1b[2K")  # its lines are erased
    assert "\x1b[?25h" in written.getvalue()  # and the cursor is back


def test_plain_is_one_line_a_round() -> None:
    lines: list[str] = []
    lost = tuple(Failure(c, 1, "lost", "its worker died\nmore") for c in clients(2))
    with PlainLines("a title", 3, lines.append) as plain:
        plain.watch(RoundStarted(plan(clients(4))))
        plain.told(replace(report(0), accuracy=0.25, test_loss=2.0))
        plain.told(report(1, failures=lost))
    assert lines == [
        "a title",
        (
            "round 1/3  accuracy 25.0 %  test loss 2.000  train loss 1.250  updates 4 of 4  "
            "down 2.0 MB  up 1.5 MB  12 s"
        ),
        (
            "round 2/3  train loss 1.250  updates 4 of 6  down 2.0 MB  up 1.5 MB  12 s  "
            "failed here/0 (lost: its worker died)  and 1 more"
        ),
    ]


def test_what_was_survived_is_on_the_rounds_line_and_in_the_panel() -> None:
    told = (Incident("hpc", 1.0, "job 7: scancel", tuple(clients(1))), Incident("cloud", 2.0, "HTTP 500"))
    lines: list[str] = []
    with PlainLines("a title", 3, lines.append) as plain:
        plain.told(replace(report(0), incidents=told))
    assert lines[1].endswith("12 s  survived at hpc: job 7: scancel  and 1 more")
    live = panel()
    live.watch(RoundClosed(replace(report(0), incidents=told)))
    assert "survived   cloud in round 1 (and 1 incident before): HTTP 500" in shown(live)


def test_the_display_fits_where_it_goes() -> None:
    assert type(display("t", Progress(1), quiet=True)) is Display
    assert type(display("t", Progress(1), plain=True)) is PlainLines
    assert type(display("t", Progress(1))) is PlainLines  # pytest's standard output is no terminal


def test_a_terminal_without_unicode_gets_ascii() -> None:
    latin = Console(file=io.TextIOWrapper(io.BytesIO(), encoding="latin-1"))
    assert marks(latin) is ASCII
    assert marks(Console(file=io.TextIOWrapper(io.BytesIO(), encoding="utf-8"))) == Marks()


def test_a_site_that_waits_says_why_at_once() -> None:
    waits = SiteWaits("hpc", "slurm job 7 PENDING (JobHeldUser)\nmore")
    written: list[str] = []
    PlainLines("a run", 3, written.append).watch(waits)
    assert written == ["hpc waits: slurm job 7 PENDING (JobHeldUser)"]
    console = Console(width=80, record=True, file=io.StringIO())
    with LivePanel("a run", Progress(rounds=3), console) as live:
        live.watch(waits)
    assert "hpc waits: slurm job 7 PENDING" in console.export_text()
