"""How a site stands, by hand and from a real queue."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from looking import wait_until

from parslfl.graph import submit
from parslfl.launch import kernel
from parslfl.sites import Site
from parslfl_executors.pool import signals
from parslfl_executors.signals import Block, SiteSignals, counted
from parslfl_executors.slurm_queue import Job


def manager(workers: int, tasks: int, *, active: bool = True, draining: bool = False) -> dict[str, object]:
    return {"worker_count": workers, "tasks": tasks, "active": active, "draining": draining}


def test_workers_are_counted() -> None:
    # the second has one task more than workers: Parsl sends ahead
    managers = [manager(4, 1), manager(2, 3), manager(8, 0, active=False), manager(8, 0, draining=True)]
    assert counted(managers) == (6, 3)


def test_the_wait_is_that_of_the_first_block_to_start() -> None:
    blocks = (
        Block("1", "running", starts=50.0, left=10.0),
        Block("2", "pending", "Resources", starts=160.0),
        Block("3", "pending", "Priority", starts=130.0),
        Block("4", "pending", "JobHeldUser"),
    )
    assert SiteSignals(100.0, blocks, 0, 0, 0, 0).waits() == 30.0
    assert SiteSignals(200.0, blocks, 0, 0, 0, 0).waits() == 0.0
    assert SiteSignals(100.0, (blocks[0], blocks[3]), 0, 0, 0, 0).waits() is None


def test_a_worker_or_a_running_block_begins_at_once() -> None:
    pending, running = Block("2", "pending", starts=160.0), Block("1", "running")
    assert SiteSignals(100.0, (pending,), 0, 0).soonest() == 60.0
    assert SiteSignals(100.0, (pending, running), 0, 0).soonest() == 0.0
    assert SiteSignals(100.0, (pending,), 1, 0).soonest() == 0.0
    assert SiteSignals(100.0, (), 0, 0).soonest() is None


def test_signals_in_words() -> None:
    blocks = (
        Block("1", "running", left=600.0),
        Block("2", "running", left=90.0),
        Block("3", "pending", "Resources", starts=160.0),
        Block("4", "pending", "Priority"),
    )
    said = "2 running (90 s left), 2 pending (Resources, Priority, first expected in 60 s)"
    assert SiteSignals(100.0, blocks, 4, 1, 0, 3, 9).text() == (
        f"{said}; workers: 4, 1 free; nodes: 9, idle: 0, idle cores: 3"
    )
    assert SiteSignals(100.0, (), 0, 0).text() == "no blocks; no workers; nodes unknown"


def test_a_job_is_told_as_a_block() -> None:
    states = {"RUNNING": "running", "CONFIGURING": "pending", "SUSPENDED": "paused"}
    assert {s: Job("1", s).block().state for s in states} == states


def test_a_real_queue_is_read(site: Callable[..., Site], tmp_path: Path) -> None:
    """Two blocks of a whole node each, on one node: one runs, and the other waits for its end."""
    crowded = site(cores_per_node=4, workers=2, init_blocks=2, scheduler_options="--nodelist=node4")
    with kernel([crowded], "driver", tmp_path / "parsl") as running:
        executor = running.executors["hpc"]
        assert wait_until(lambda: bool(executor.connected_managers()), 30)
        submit(running, "hpc", time.sleep, 5)
        assert wait_until(lambda: seen(executor).free_workers == 1, 10)
        assert wait_until(lambda: seen(executor).waits() is not None, 10)
        # nodes of earlier tests' jobs are idle only once Slurm has seen their last process end
        assert wait_until(lambda: seen(executor).idle_nodes == 3, 40)
        now = seen(executor)
    assert sorted((b.state, b.reason) for b in now.blocks) == [("pending", "Resources"), ("running", "")]
    left = next(b.left for b in now.blocks if b.state == "running")
    assert 500 < (left or 0) < 600
    assert 500 < (now.waits() or 0) < 600
    assert (now.workers, now.nodes, now.idle_nodes, now.idle_cores) == (2, 4, 3, 12)


def seen(executor: object) -> SiteSignals:
    found = signals(executor)
    assert found
    return found
