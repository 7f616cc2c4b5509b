"""One federation of Slurm workers, Kubernetes pods and the ranks of an MPI job in an allocation."""

from __future__ import annotations

import os
from pathlib import Path

import hybrid_bed
import numpy as np
import pytest
from kube_bed import IMPORTS, Bed
from looking import guarded_by, wait_until

from parslfl.experiment import Experiment
from parslfl.folding import checkpoints
from parslfl.orchestrator import rounds
from parslfl.sites import Federation, Site, load_federation
from parslfl_executors.local import Local


def test_workers_pods_and_ranks_train_in_the_same_rounds(bed: Bed, tmp_path: Path) -> None:
    """Ten clients: three on Slurm workers, three in pods, four on four ranks of two nodes."""
    pytest.importorskip("mpi4py")
    both = load_federation("hybrid.yaml", hybrid_bed.settings(bed)).with_clients(6)
    block = {
        "partition": "debug",
        "walltime": "10m",
        "nodes_per_block": 2,
        "cores_per_node": 2,
        "address": "127.0.0.1",
        "poll": 2,
        "worker_init": f"export PYTHONPATH={IMPORTS}",
    }
    ranks = Site.model_validate(
        {"name": "ranks", "clients": 4, "executor": {"kind": "mpi", "ranks_per_node": 2, "slurm": block}}
    )
    experiment = Experiment.model_validate(
        {
            "dataset": "digits",
            "model": "softmax",
            "partition": "iid",
            "per_round": 10,
            "rounds": 2,
            "epochs": 1,
        }
    )
    run = tmp_path / "run"
    reports = list(rounds(Federation(sites=(*both.sites, ranks)), experiment, run))
    for report in reports:
        assert report.failures == ()
        delivered = [update.client.site for update in report.updates]
        assert {site: delivered.count(site) for site in delivered} == {"hpc": 3, "cloud": 3, "ranks": 4}
        assert [(partial.site, partial.updates) for partial in report.partials] == [("ranks", 4)]
        nodes = {(u.spent.host, u.spent.pid) for u in report.updates if u.client.site == "ranks"}
        assert (len(nodes), len({host for host, _ in nodes})) == (4, 2)
    here = Site(name="here", clients=10, executor=Local(workers=1, threads=1))
    *_, alone = rounds(Federation(sites=(here,)), experiment, tmp_path / "alone")
    ours, theirs = (
        checkpoints.read(folder / "models/round-0002.plm", digest)
        for folder, digest in ((run, reports[-1].model), (tmp_path / "alone", alone.model))
    )
    assert all(np.allclose(ours[name], theirs[name], rtol=1e-4, atol=1e-6) for name in ours)
    assert hybrid_bed.emptied(bed, run / "parsl") == []
    assert wait_until(lambda: guarded_by(os.getpid()) == [], 10)
