"""How a Kubernetes site stands, from its pods and nodes."""

from __future__ import annotations

import time
from pathlib import Path

from kube_bed import Bed
from looking import wait_until

from parslfl.graph import submit
from parslfl.launch import kernel, waiting
from parslfl.sites import Site
from parslfl_executors.pool import signals
from parslfl_executors.signals import SiteSignals


def seen(executor: object) -> SiteSignals:
    found = signals(executor)
    assert found
    return found


def site(bed: Bed, **changes: object) -> Site:
    return Site(name="cloud", clients=1, executor=bed.settings(**changes))


def test_a_running_pod_and_one_that_finds_no_node(bed: Bed, tmp_path: Path) -> None:
    """Two pods of five cores on a node of eight: one runs, and the other is told why it waits."""
    bed.levers()
    large = site(bed, cores=5, init_blocks=2, max_blocks=2, walltime="10m", workers_per_pod=2)
    with kernel([large], "driver", tmp_path / "parsl") as running:
        executor = running.executors["cloud"]
        assert wait_until(lambda: bool(executor.connected_managers()), 30)
        submit(running, "cloud", time.sleep, 3)
        assert wait_until(lambda: seen(executor).free_workers == 1, 10)
        now = seen(executor)
        assert waiting(running, "cloud") == ""
    states = {block.state: block for block in now.blocks}
    assert set(states) == {"running", "pending"}
    assert states["pending"].reason.startswith("Unschedulable: 0/1 nodes are available")
    assert 500 < (states["running"].left or 0) <= 600
    assert (now.workers, now.nodes, now.idle_nodes, now.waits(), now.soonest()) == (2, 1, None, None, 0.0)


def test_what_keeps_a_site_waiting_is_told(bed: Bed, tmp_path: Path) -> None:
    kube = bed.levers()
    kube.hold = True
    with kernel([site(bed)], "driver", tmp_path / "parsl") as running:
        submit(running, "cloud", time.sleep, 0)
        assert wait_until(lambda: "Unschedulable: 0/1 nodes" in waiting(running, "cloud"), 10)
        now = seen(running.executors["cloud"])
        assert ([block.state for block in now.blocks], now.nodes, now.soonest()) == (["pending"], 0, None)


def test_who_may_not_list_nodes_is_asked_once(bed: Bed, tmp_path: Path) -> None:
    kube = bed.levers()
    kube.denied = frozenset({("list", "nodes")})
    with kernel([site(bed, init_blocks=0)], "driver", tmp_path / "parsl") as running:
        executor = running.executors["cloud"]
        assert [seen(executor).nodes for _ in range(3)] == [None, None, None]
    assert [call[2] for call in kube.calls if call[1] == "/api/v1/nodes"] == [403]
