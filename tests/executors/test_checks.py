"""What can be told of this machine, and of folders, before anything starts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from parslfl_executors import checks, local_checks
from parslfl_executors.checks import Folder, Needs, on_nodes, shared_folder
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


def test_a_folder_tells_by_its_file_system_whether_it_is_shared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert shared_folder("run directory", tmp_path / "new").verdict == "unknown"
    monkeypatch.setattr(checks, "file_system", lambda _: "nfs4")
    assert shared_folder("run directory", tmp_path / "new").verdict == "ok"
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert shared_folder("run directory", tmp_path / "new").cure


def test_a_folder_on_the_machine_that_all_nodes_are_on(tmp_path: Path) -> None:
    assert shared_folder("run directory", tmp_path / "new", near=True).verdict == "ok"


@pytest.mark.parametrize("written", [True, False])
def test_a_folder_for_nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: bool) -> None:
    folder = Folder("data folder", str(tmp_path), "sites.hpc.data", written)
    here = on_nodes(folder, near=False)
    assert (here.verdict, "only this machine may have" in here.detail) == ("unknown", True)
    assert on_nodes(folder, near=True).verdict == "ok"
    monkeypatch.setattr(checks, "file_system", lambda _: "lustre")
    assert on_nodes(folder, near=False).detail == f"{tmp_path} is on lustre, which machines share"


def test_a_folder_that_is_not_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCRATCH", str(tmp_path))
    gone = on_nodes(Folder("data folder", "$SCRATCH/none", "sites.hpc.data"), near=False)
    assert (gone.verdict, gone.cure) == ("unknown", "set sites.hpc.data to a folder that the nodes have")
    assert gone.detail.startswith(f"{tmp_path}/none is not seen from here")
    assert on_nodes(Folder("data folder", "$SCRATCH/none", "sites.hpc.data"), near=True).verdict == "failed"
    (tmp_path / "file").touch()
    assert on_nodes(Folder("data folder", str(tmp_path / "file"), "x"), near=True).verdict == "failed"
    new = Folder("state", str(tmp_path / "new"), "sites.hpc.state", written=True)
    assert on_nodes(new, near=True).verdict == "ok"


def test_a_state_folder_here(tmp_path: Path) -> None:
    needs = Needs((Folder("state", str(tmp_path / "new"), "sites.here.state", written=True),))
    found = {check.name: check for check in preflight(Local(workers=1), "here", tmp_path, needs)}
    assert (found["state"].verdict, str(tmp_path) in found["state"].detail) == ("ok", True)
