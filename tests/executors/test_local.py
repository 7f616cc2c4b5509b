"""A local site's Parsl executor: what the fields and the raw `parsl` block become."""

from __future__ import annotations

import sys
from pathlib import Path

from parslfl_executors.local import Local


def test_fields_reach_the_executor_and_its_provider(tmp_path: Path) -> None:
    made = Local(workers=3, threads=2, worker_init="export A=1").build("here", tmp_path)
    assert (made.label, made.max_workers_per_node, made.encrypted) == ("here", 3, True)
    lines = made.provider.worker_init.splitlines()
    assert lines[0].startswith(f"export PATH={Path(sys.executable).parent}")
    assert "export OMP_NUM_THREADS=2" in lines
    assert lines[-1] == "export A=1"


def test_accelerators_are_dealt_one_to_a_worker(tmp_path: Path) -> None:
    made = Local(accelerators=["0", "2"]).build("here", tmp_path)
    assert (made.available_accelerators, made.max_workers_per_node) == (["0", "2"], 2)


def test_the_raw_block_wins(tmp_path: Path) -> None:
    raw = {"heartbeat_period": 7, "encrypted": False, "provider": {"max_blocks": 2, "worker_init": "true"}}
    made = Local(workers=1, parsl=raw).build("here", tmp_path)
    assert (made.heartbeat_period, made.encrypted) == (7, False)
    assert (made.provider.max_blocks, made.provider.worker_init) == (2, "true")
    assert made.most_workers == 2 * made.workers_per_node
    assert made.heartbeat_threshold == 20


def test_each_build_is_a_new_executor(tmp_path: Path) -> None:
    """Parsl refuses to start one twice."""
    site = Local(workers=1)
    assert site.build("here", tmp_path) is not site.build("here", tmp_path)
