"""`parslfl doctor` on a real Slurm: what is wrong is found, and nothing is submitted."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from parslfl.cli import main
from parslfl.sites import Site
from parslfl_executors.checks import Call, Check, Folder, Needs
from parslfl_executors.pool import own_address
from parslfl_executors.preflight import preflight
from parslfl_executors.slurm_queue import ask

Sites = Callable[..., Site]


def looked(site: Site, tmp_path: Path, *folders: Folder) -> dict[str, Check]:
    found = preflight(site.executor, site.name, tmp_path / "run/parsl", Needs(folders))
    return {check.name: check for check in found}


def test_a_sound_site_passes_and_nothing_is_submitted(site: Sites, tmp_path: Path) -> None:
    found = looked(site(), tmp_path)
    assert {n: c.verdict for n, c in found.items()} == {
        "scheduler": "ok", "nodes": "ok", "job": "ok", "address": "ok",
        "run directory": "ok", "Python": "ok",
    }  # fmt: skip
    assert found["address"].detail == "workers are told to call 127.0.0.1, and are on this machine"
    assert found["nodes"].detail.startswith("4 of 4 nodes in service")
    assert found["job"].detail.startswith("sbatch takes it: would start at 20")


def test_the_job_on_trial_is_the_job_of_a_run(site: Sites, tmp_path: Path) -> None:
    made = site(cores_per_node=2, workers=2, scheduler_options="--mem=100M", walltime="7m")
    looked(made, tmp_path)
    (script,) = (tmp_path / "run/parsl/hpc/submit_scripts").iterdir()
    text = script.read_text()
    told = ("#SBATCH --mem=100M", "#SBATCH --time=7", "#SBATCH --cpus-per-task=2", "--block_id=0",
            f'#SBATCH --comment="parslfl:{tmp_path}/run/parsl"', "--max_workers_per_node=2")  # fmt: skip
    for line in told:
        assert line in text
    assert "--exclusive" not in text


FAULTS = [
    ({"partition": "nope"}, {"partition", "job"}, "Invalid partition name", "`sinfo -s`"),
    ({"cores_per_node": 99}, {"job"}, "Requested node configuration is not available", "fewer cores"),
    ({"constraint": "gpu"}, {"job"}, "Invalid feature specification", "set constraint"),
    ({"accelerators": 1}, {"job"}, "Invalid generic resource (gres)", "lower accelerators"),
    ({"nodes_per_block": 9}, {"nodes", "job"}, "Requested node configuration", "fewer cores, nodes"),
]


@pytest.mark.parametrize(("changes", "names", "said", "cure"), FAULTS)
def test_what_sbatch_refuses_has_a_cure(
    site: Sites, tmp_path: Path, changes: dict[str, object], names: set[str], said: str, cure: str
) -> None:
    found = looked(site(**changes), tmp_path)
    assert {n for n, c in found.items() if c.verdict == "failed"} == names
    assert said in found["job"].detail
    assert cure in found["job"].cure


def test_a_block_with_more_nodes_than_the_partition_has(site: Sites, tmp_path: Path) -> None:
    found = looked(site(nodes_per_block=9), tmp_path)["nodes"]
    assert found.detail.endswith("; a block needs 9")
    assert found.cure.startswith("lower nodes_per_block")


@pytest.fixture
def short(slurm: None) -> Iterator[str]:
    """A partition of one node whose jobs may take a minute."""
    assert not ask(["scontrol", "create", "partitionname=short", "nodes=node1", "maxtime=1"]).code
    yield "short"
    assert not ask(["scontrol", "delete", "partitionname=short"]).code


def test_what_sbatch_accepts_but_never_starts(site: Sites, tmp_path: Path, short: str) -> None:
    """22.05 takes both jobs, also in --test-only, and lets them wait for ever."""
    long = looked(site(partition=short), tmp_path)
    assert long["partition"].detail == "short runs no job longer than 60 s, walltime is 600 s"
    assert long["job"].verdict == "ok"
    assert "partition" not in looked(site(partition=short, walltime="1m"), tmp_path)
    assert not ask(["scontrol", "update", "partitionname=short", "state=down"]).code
    assert "is down" in looked(site(partition=short, walltime="1m"), tmp_path)["partition"].detail


@pytest.fixture
def away(slurm: None) -> Iterator[str]:
    """A partition of one node that says it is another machine; its address is set apart for examples."""
    assert not ask(["scontrol", "update", "nodename=node4", "nodeaddr=203.0.113.9"]).code
    assert not ask(["scontrol", "create", "partitionname=far", "nodes=node4"]).code
    yield "far"
    assert not ask(["scontrol", "delete", "partitionname=far"]).code
    assert not ask(["scontrol", "update", "nodename=node4", "nodeaddr=127.0.0.1"]).code


def test_nodes_that_are_other_machines(site: Sites, tmp_path: Path, away: str) -> None:
    own = own_address()
    found = looked(site(partition=away), tmp_path, Folder("data folder", str(tmp_path), "sites.hpc.data"))
    assert found["address"].detail == "127.0.0.1 is this machine only for itself: workers cannot call it"
    assert found["address"].cure == f"set address: {own}, or leave address out"
    assert found["data folder"].verdict == found["Python"].verdict == "unknown"
    calls = (Call("exchange address", "127.0.0.1", "sites.hpc.transport.address"),)
    there = preflight(
        site(partition=away, address=None).executor, "hpc", tmp_path / "parsl", Needs(calls=calls)
    )
    other = next(check for check in there if check.name == "exchange address")
    assert (other.verdict, other.cure) == ("failed", f"set sites.hpc.transport.address to {own}")
    said = looked(site(partition=away, address=None), tmp_path)["address"]
    assert said.verdict == "ok"
    assert said.detail.endswith(f"{own}, where the way from here to 203.0.113.9 begins")


def test_folders_of_a_single_machine(site: Sites, tmp_path: Path) -> None:
    there = Folder("data folder", str(tmp_path), "sites.hpc.data")
    gone = Folder("state", str(tmp_path / "x/y"), "sites.hpc.state", written=True)
    found = looked(site(), tmp_path, there, gone)
    assert found["data folder"].detail == f"{tmp_path} is on this machine, which all nodes are on"
    assert found["state"].verdict == "ok"


def test_an_address_that_is_not_ours(site: Sites, tmp_path: Path) -> None:
    found = looked(site(address="203.0.113.7"), tmp_path)["address"]
    assert found.detail == "203.0.113.7 is no address of this machine"
    assert "leave address out" in found.cure


def test_a_machine_without_slurm(site: Sites, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = looked(site(), tmp_path)
    assert list(found) == ["scheduler"]
    assert found["scheduler"].detail == "not on PATH: sbatch, squeue, scancel, sinfo"


def test_a_controller_that_is_away(site: Sites, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "squeue").write_text("#!/bin/sh\necho 'Unable to contact slurm controller' >&2; exit 1\n")
    (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    found = looked(site(), tmp_path)
    assert found["scheduler"].detail == "squeue: Unable to contact slurm controller"


def file(site: Site, folder: Path) -> None:
    executor = {**site.executor.model_dump(mode="json", exclude_defaults=True), "kind": "slurm"}
    described = {"name": site.name, "clients": site.clients, "executor": executor}
    (folder / "s.yaml").write_text(yaml.safe_dump({"name": "s", "sites": [described]}))


WORDS = ["doctor", "--site", "s.yaml", "--dataset", "digits", "--partition", "iid", "--model", "softmax"]


def test_the_command_probes_and_leaves_nothing(
    site: Sites, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    file(site(), tmp_path)
    assert main([*WORDS, "--probe", "--wait", "60s"]) == 0
    out = capsys.readouterr().out
    told = ("hpc: worker: ok: on node", "Python: ok", "data there: ok: 360 examples", "link: ok: file: ",
            "training: ok: softmax", "signals: ok: 1 running (", "nothing failed")  # fmt: skip
    for line in told:
        assert line in out
    assert not (tmp_path / "runs").exists()


def test_a_data_folder_without_the_data(
    site: Sites, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    file(site(), tmp_path)
    words = [*WORDS, "--dataset", "cifar10", "--set", f"sites.hpc.data={tmp_path}"]
    assert main(words) == 1
    out = capsys.readouterr().out
    assert f"hpc: data folder: ok: {tmp_path} is on this machine" in out
    assert f"hpc: data: failed: no cifar10 in {tmp_path} -> copy it there, or set sites.hpc.data" in out


def test_a_probe_that_stays_in_the_queue(
    site: Sites, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    file(site(scheduler_options="--hold"), tmp_path)
    assert main([*WORDS, "--probe", "--wait", "4"]) == 1
    out = capsys.readouterr().out
    assert "hpc: worker: failed: nothing heard for 4 s: slurm job " in out
    assert "PENDING (JobHeldUser) -> wait longer" in out
    assert "1 check failed, at hpc" in out


def test_a_site_with_a_fault_is_not_probed(
    site: Sites, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    file(site(constraint="gpu"), tmp_path)
    assert main([*WORDS, "--probe"]) == 1
    assert "hpc: probe: unknown: not started: mend what failed first" in capsys.readouterr().out
