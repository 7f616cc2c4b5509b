"""Rounds on a real Slurm, alone and together with this machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from parslfl.experiment import Experiment
from parslfl.orchestrator import rounds
from parslfl.outlook import kept
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


def test_blocks_of_two_nodes_and_more_of_them_as_tasks_wait(
    site: Sites, federation: Federate, experiment: Make, tmp_path: Path
) -> None:
    """Each node has a worker; the driver itself evaluates, for there is no local site."""
    wide = site(clients=8, nodes_per_block=2, max_blocks=2, workers=1, address=None)
    seen: set[str] = set()
    for report in rounds(federation(wide), experiment(per_round=8), tmp_path / "run"):
        assert len(report.updates) == 8
        assert report.accuracy
        seen |= {update.spent.host for update in report.updates}
    assert len(seen) > 1
    assert {folder.name for folder in (tmp_path / "run/parsl/hpc").glob("block-*")} == {"block-0", "block-1"}


def test_a_site_whose_queue_is_longer_than_the_deadline_is_not_asked(
    site: Sites, here: Site, federation: Federate, experiment: Make, tmp_path: Path
) -> None:
    """Its job starts in an hour; once Slurm has said so, nobody there is chosen, and it keeps its place."""
    later = site(scheduler_options="--begin=now+1hour", max_blocks=1)
    wanted = experiment(rounds=3, per_round=4, deadline=5, quorum=1)
    reports = list(rounds(federation(here, later), wanted, tmp_path / "run"))
    assert {u.client.site for u in reports[-1].updates} == {"here"}
    assert (len(reports[-1].updates), reports[-1].failures) == (4, ())
    told = kept(tmp_path / "run")
    assert list(told) == [0, 1, 2]
    (block,) = told[2]["hpc"].blocks
    assert (block.state, block.reason) == ("pending", "BeginTime")
    assert 3500 < (told[2]["hpc"].waits() or 0) <= 3600
    assert told[2]["here"].workers == 1
