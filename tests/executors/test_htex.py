"""A real executor: it is told of a loss, and keeps its ledger."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from looking import wait_until
from parsl.executors.high_throughput.errors import ManagerLost

from parslfl.graph import submit
from parslfl.launch import kernel
from parslfl_executors import interchange
from parslfl_executors.local import Local


@dataclass(frozen=True)
class Place:
    name: str
    retries: int
    executor: Local


def test_the_tasks_of_a_block_that_is_said_to_be_lost_end_at_once(tmp_path: Path) -> None:
    """Its pool still runs and beats: only what was said counts. Heartbeats would take 20 s."""
    with kernel([Place("here", 0, Local(workers=1))], "driver", tmp_path / "parsl") as running:
        executor: Any = running.executors["here"]
        submit(running, "here", time.sleep, 0).result(60)
        task = submit(running, "here", time.sleep, 600)
        time.sleep(1)
        began = time.monotonic()
        interchange.tell(Path(executor.logdir), "0")
        with pytest.raises(ManagerLost) as caught:
            task.result(10)
        assert time.monotonic() - began < 5
        assert executor.block_of(caught.value) == "0"
        assert wait_until(lambda: executor.connected_managers() == [], 5)


def test_a_busy_and_an_idle_while_are_told_apart(tmp_path: Path) -> None:
    with kernel([Place("here", 1, Local(workers=1))], "driver", tmp_path / "parsl") as running:
        ledger = running.executors["here"].ledger
        submit(running, "here", time.sleep, 0).result(60)
        before = ledger.account(time.time())
        submit(running, "here", time.sleep, 3).result(60)
        busy = ledger.account(time.time())
        time.sleep(3)
        idle = ledger.account(time.time())
    assert before.blocks == 1
    assert before.queued == 0
    assert before.starting > 0.3
    working, resting = busy.since(before), idle.since(busy)
    assert min(working.ready, resting.ready) > 2.9
    assert working.idle < working.ready / 2  # it looks twice a second
    assert resting.ready / 2 < resting.idle <= resting.ready
