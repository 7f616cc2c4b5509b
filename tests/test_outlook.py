"""How sites stand is asked within a bound, kept, and read again after a kill."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from parslfl import outlook
from parslfl.cli import main
from parslfl.outlook import Outlook, kept, look
from parslfl.rundir.journal import RunDir
from parslfl_executors.signals import Block, SiteSignals

QUEUED = SiteSignals(100.0, (Block("7", "pending", "Resources", 160.0),), 0, 0, 1, 4, 2)
SERVING = SiteSignals(100.0, (Block("8", "running", left=50.0),), 2, 1)


def executor(tell: Any) -> Any:
    return SimpleNamespace(provider=SimpleNamespace(signals=tell), connected_managers=list)


def kernel(**sites: Any) -> Any:
    return SimpleNamespace(executors={name: executor(tell) for name, tell in sites.items()})


def test_what_sites_said_becomes_waits_and_is_kept(tmp_path: Path) -> None:
    found = kernel(hpc=lambda _: QUEUED, here=lambda _: SERVING, new=lambda _: SiteSignals(1.0, (), 0, 0))
    waits = Outlook.of(tmp_path, found, ["hpc", "here", "new"]).waits(3)
    assert waits == {"hpc": 60.0, "here": 0.0}
    assert kept(tmp_path) == {3: {"hpc": QUEUED, "here": SERVING, "new": SiteSignals(1.0, (), 0, 0)}}


def test_a_resumed_run_plans_its_round_as_it_was(tmp_path: Path) -> None:
    Outlook.of(tmp_path, kernel(hpc=lambda _: QUEUED), ["hpc"]).waits(3)
    again = Outlook.of(tmp_path, kernel(hpc=lambda _: SERVING), ["hpc"])
    assert again.waits(3) == {"hpc": 60.0}
    assert again.waits(4) == {"hpc": 0.0}
    assert list(kept(tmp_path)) == [3, 4]


def test_a_line_that_a_kill_cut_short_is_skipped(tmp_path: Path) -> None:
    Outlook.of(tmp_path, kernel(hpc=lambda _: QUEUED), ["hpc"]).waits(3)
    with (tmp_path / "signals.jsonl").open("a") as stream:
        stream.write(
            '{"round": 4, "signals": {"hpc": {"at": 1.0, "blocks"\n[]\n{"round": 5, "signals": {"hpc": {}}}\n'
        )
    assert list(kept(tmp_path)) == [3]
    assert kept(tmp_path / "none") == {}


def test_a_site_that_hangs_or_fails_costs_its_news_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outlook, "_PATIENCE", 0.2)
    free = threading.Event()

    def broken(_: object) -> SiteSignals:
        raise RuntimeError("no answer")

    def silent(_: object) -> SiteSignals:
        free.wait(10)
        return SERVING

    found = look(kernel(broken=broken, silent=silent, hpc=lambda _: QUEUED), ["broken", "silent", "hpc"])
    free.set()
    assert found == {"hpc": QUEUED}


def test_the_report_ends_with_how_the_sites_stood(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    RunDir.create(tmp_path, {"federation": {"sites": []}, "experiment": {"name": "x"}}).close()
    outlook = Outlook.of(tmp_path, kernel(hpc=lambda _: QUEUED), ["hpc"])
    assert [outlook.waits(round) for round in (0, 1)] == [{"hpc": 60.0}] * 2
    assert main(["report", str(tmp_path)]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == (
        "hpc before round 2: 1 pending (Resources, first expected in 60 s); no workers; "
        "nodes: 2, idle: 1, idle cores: 4"
    )


def test_who_waits_is_told_once_a_reason() -> None:
    said, answers = list[tuple[str, str]](), iter(["", "held", "held", "", "held", "no nodes"])
    done = threading.Event()

    def waiting() -> str:
        try:
            return next(answers)
        except StopIteration:
            done.set()
            return "no nodes"

    places = {"hpc": SimpleNamespace(provider=SimpleNamespace(waiting=waiting)), "here": SimpleNamespace()}
    running: Any = SimpleNamespace(executors=places)
    with outlook.vigil(running, ["hpc", "here"], lambda site, why: said.append((site, why)), period=0.01):
        assert done.wait(10)
    assert said == [("hpc", "held"), ("hpc", "held"), ("hpc", "no nodes")]


def test_who_cannot_say_why_it_waits_is_asked_again() -> None:
    said, asked = list[str](), threading.Event()

    def waiting() -> str:
        if not asked.is_set():
            asked.set()
            raise RuntimeError("no answer")
        return "held"

    running: Any = SimpleNamespace(
        executors={"hpc": SimpleNamespace(provider=SimpleNamespace(waiting=waiting))}
    )
    told = threading.Event()
    with outlook.vigil(running, ["hpc"], lambda _, why: (said.append(why), told.set()), period=0.01):
        assert told.wait(10)
    assert said == ["held"]
