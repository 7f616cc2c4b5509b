"""Rounds on a real Slurm, alone and together with this machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from parslfl.experiment import Experiment
from parslfl.orchestrator import rounds
from parslfl.sites import Federation, Site

Make = Callable[..., Experiment]
Sites = Callable[..., Site]
Federate = Callable[..., Federation]


def test_a_federation_of_this_machine_and_slurm(
    site: Sites, here: Site, federation: Federate, experiment: Make, tmp_path: Path
) -> None:
    reports = list(rounds(federation(here, site()), experiment(per_round=8), tmp_path / "run"))
    assert [len(r.updates) for r in reports] == [8, 8]
    hosts = {u.client.site: u.spent.host for r in reports for u in r.updates}
    assert hosts["hpc"].startswith("node")
    assert not hosts["here"].startswith("node")
    assert all(r.accuracy and r.accuracy > 0.5 for r in reports)
