"""The settings of an MPI site, and the file that ships with them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from parslfl.sites import load_federation
from parslfl_executors import local_checks
from parslfl_executors.checks import Check, Needs
from parslfl_executors.mpi import Mpi
from parslfl_executors.mpi_checks import checks
from parslfl_executors.preflight import preflight


def mpi(**changes: object) -> Mpi:
    return Mpi.model_validate({"ranks_per_node": 4, **changes})


def test_the_shipped_file_is_a_site_also_with_its_comments_taken_off(
    repository: Path, tmp_path: Path
) -> None:
    text = (repository / "site_configs/mpi.yaml").read_text()
    assert text.startswith("# python workflows/cifar_round.py --site mpi.yaml\n")
    (site,) = load_federation(repository / "site_configs/mpi.yaml").sites
    assert (site.executor.kind, site.executor.ranks()) == ("mpi", 4)
    own = "      # worker_init: module load mpi\n"  # the block has one of its own
    lines = text.replace(own, "").partition("executor:")[2].splitlines()
    opened = "\n".join(line.replace("# ", "", 1) if line.startswith("      # ") else line for line in lines)
    (tmp_path / "all.yaml").write_text(text.partition("executor:")[0] + "executor:" + opened)
    (full,) = load_federation(tmp_path / "all.yaml").sites
    assert isinstance(full.executor, Mpi)
    assert full.executor.slurm is not None
    assert (full.executor.ranks(), full.executor.split) == (8, "batches")
    assert full.executor.devices() == ("0", "1", "2", "3")


def test_the_command_of_each_launcher() -> None:
    assert mpi().command() == "mpiexec -n 4"
    assert mpi(slurm={}).command() == mpi(slurm={}, launcher="srun").command() == "$PARSL_MPI_PREFIX"
    wide = mpi(slurm={"nodes_per_block": 2}, launcher="mpirun -np {ranks} -N {ranks_per_node} {nodes}")
    assert wide.command() == "mpirun -np 8 -N 4 2"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"ranks_per_node": 0}, "ranks_per_node"),
        ({"launcher": "mpirun -np {cores}"}, "expected .ranks., .ranks_per_node. or .nodes. in braces"),
        ({"launcher": "mpirun {"}, "launcher\n.*in braces"),
        ({"launcher": "mpirun -np {ranks.x}"}, "launcher\n.*in braces, got 'mpirun -np {ranks.x}'"),
        ({"launcher": "mpirun -np {ranks[0]}"}, "in braces"),
        ({"launcher": "mpirun -np {ranks:99999999999}"}, "in braces"),
        ({"launcher": "mpirun -np {}"}, "in braces"),
        ({"launcher": 'mpirun "-np {ranks}'}, "launcher\n.*no closing quotation in 'mpirun"),
        ({"launcher": "mpirun -np {ranks} \\"}, "no escaped character in 'mpirun"),
        ({"launcher": ""}, "launcher\n.*expected mpiexec, srun, aprun or a command, got ''"),
        ({"launcher": "  "}, "or a command, got '  '"),
        ({"launcher": "'' -n {ranks}"}, "or a command, got"),
        ({"slurm": {}, "worker_init": "module load mpi"}, "belongs into slurm: executor.slurm.worker_init"),
        ({"slurm": {"max_blocks": 2}}, "a round is one job, in one block"),
        ({"split": "layers"}, "split"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        mpi(**changes)


def told(site: Mpi, folder: Path) -> dict[str, Check]:
    return {check.name: check for check in preflight(site, "ranks", folder)}


def test_doctor_is_told_of_a_launcher_that_is_missing(tmp_path: Path) -> None:
    found = told(mpi(launcher="mpirun.nowhere -n {ranks}"), tmp_path)["launcher"]
    assert (found.verdict, found.detail) == ("failed", "mpirun.nowhere is not on PATH")
    assert told(mpi(launcher="sh -c"), tmp_path)["launcher"].verdict == "ok"


def test_doctor_sees_every_rank_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the one worker that starts them."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(4))
    monkeypatch.setattr(local_checks, "memory", lambda: 1_500_000_000)
    monkeypatch.setattr(local_checks, "_DEVICES", ("/dev/no-such-device*",))
    found = told(mpi(ranks_per_node=64, threads=2, accelerators=1), tmp_path)
    assert [found[name].verdict for name in ("cores", "memory", "accelerators")] == ["failed"] * 3
    assert found["cores"].detail == "ranks_per_node x threads: 64 x 2, on 4 cores"
    assert found["cores"].cure == "set ranks_per_node: 2 and threads: 2"
    assert found["memory"].detail == "1.5 GB free, ranks_per_node: 64: each takes 0.35 GB before any data"
    assert found["memory"].cure == "set ranks_per_node: 4, or end other programs"
    found = told(mpi(ranks_per_node=4), tmp_path)
    assert [found[name].verdict for name in ("cores", "memory", "run directory", "Python")] == ["ok"] * 4


def test_ranks_of_an_allocation_are_not_looked_for_here(tmp_path: Path) -> None:
    assert list(checks(mpi(slurm={}), tmp_path, Needs())) == []
