"""What can be told of this machine, and of addresses and folders, before anything starts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from parslfl_executors import checks, local_checks
from parslfl_executors.checks import call_back, shared_folder
from parslfl_executors.local import Local
from parslfl_executors.preflight import preflight

CORES = len(os.sched_getaffinity(0))


def verdicts(site: Local, folder: Path) -> dict[str, str]:
    return {check.name: check.verdict for check in preflight(site, "here", folder)}


def test_a_sound_machine(tmp_path: Path) -> None:
    assert verdicts(Local(workers=1), tmp_path / "run") == {
        "cores": "ok", "memory": "ok", "run directory": "ok", "Python": "ok",
    }  # fmt: skip


def test_more_threads_than_cores(tmp_path: Path) -> None:
    found = next(iter(preflight(Local(workers=2, threads=CORES), "here", tmp_path)))
    assert (found.verdict, found.detail) == ("failed", f"workers x threads: 2 x {CORES}, on {CORES} cores")
    assert found.cure.endswith(f"set threads: {CORES // 2}")


def test_workers_that_do_not_fit_into_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_checks, "memory", lambda: 800_000_000)
    memory = {c.name: c for c in preflight(Local(workers=3, threads=1), "here", tmp_path)}["memory"]
    assert memory.detail == "0.8 GB free, workers: 3: each takes 0.35 GB before any data"
    assert memory.cure == "set workers: 2, or end other programs"


def test_accelerators_that_are_not_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_checks, "_DEVICES", ("/dev/no-such-device*",))
    assert verdicts(Local(accelerators=1), tmp_path)["accelerators"] == "failed"
    monkeypatch.setattr(local_checks, "_DEVICES", ("/dev/null", "/dev/zero"))
    assert verdicts(Local(accelerators=2), tmp_path)["accelerators"] == "ok"
    assert verdicts(Local(accelerators=3), tmp_path)["accelerators"] == "unknown"


ADDRESSES = [
    (None, ["10.0.0.1", "127.0.0.1"], ["10.0.0.9"], "ok", "10.0.0.1"),
    (None, ["127.0.0.1"], ["10.0.0.9"], "failed", "no address but the loopback's"),
    (None, ["127.0.0.1"], ["127.0.0.1"], "ok", "127.0.0.1"),
    ("10.0.0.1", ["10.0.0.1"], ["10.0.0.9"], "ok", "10.0.0.1"),
    ("127.0.0.1", ["10.0.0.1", "127.0.0.1"], ["10.0.0.9"], "failed", "only for itself"),
    ("127.0.0.1", ["127.0.0.1"], ["127.0.0.1"], "ok", "127.0.0.1"),
    ("127.0.0.1", ["127.0.0.1"], [], "unknown", "only what runs on this machine"),
    ("10.0.0.2", ["10.0.0.1"], ["10.0.0.9"], "failed", "is no address of this machine"),
    ("login1", ["10.0.0.1"], ["10.0.0.9"], "failed", "login1 is no address of this machine"),
]


@pytest.mark.parametrize(("address", "own", "peers", "verdict", "detail"), ADDRESSES)
def test_where_workers_call(
    address: str | None, own: list[str], peers: list[str], verdict: str, detail: str
) -> None:
    found = call_back(address, own, peers)
    assert (found.verdict, detail in found.detail) == (verdict, True)
    assert bool(found.cure) == (verdict == "failed")


def test_a_folder_tells_by_its_file_system_whether_it_is_shared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert shared_folder("run directory", tmp_path / "new").verdict == "unknown"
    monkeypatch.setattr(checks, "_file_system", lambda _: "nfs4")
    assert shared_folder("run directory", tmp_path / "new").verdict == "ok"
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert shared_folder("run directory", tmp_path / "new").cure
