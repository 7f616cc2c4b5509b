"""Which blocks can be spared, worked by hand."""

from __future__ import annotations

from typing import Any

from parslfl_executors.idle import spare


def manager(block: str, idle: float, tasks: int = 0, workers: int = 1, active: bool = True) -> dict[str, Any]:
    return {
        "block_id": block,
        "idle_duration": idle,
        "tasks": tasks,
        "worker_count": workers,
        "active": active,
    }


def test_the_longest_idle_goes_first_and_the_tasks_keep_their_workers() -> None:
    three = [manager("0", 70), manager("1", 0, tasks=1), manager("2", 90)]
    assert spare(three, 1, 1, 0, 60.0) == ["2", "0"]
    assert spare(three, 2, 1, 0, 60.0) == ["2"]  # the second task may be on its way
    assert spare(three, 3, 1, 0, 60.0) == []
    assert spare(three, 1, 1, 2, 60.0) == ["2"]  # min_blocks
    assert spare(three, 1, 1, 0, 80.0) == ["2"]


def test_a_block_of_several_nodes_is_idle_once_all_are_there_and_idle() -> None:
    busy = manager("0", 0, tasks=1)
    assert spare([busy, manager("1", 70)], 1, 2, 0, 60.0) == []  # its other node may come yet
    assert spare([busy, manager("1", 70), manager("1", 10)], 1, 2, 0, 60.0) == []
    assert spare([busy, manager("1", 70), manager("1", 65)], 1, 2, 0, 60.0) == ["1"]


def test_a_block_that_was_held_ends_with_its_last_task() -> None:
    assert spare([manager("0", 0, tasks=1, active=False)], 5, 1, 1, 60.0) == []
    assert spare([manager("0", 0, active=False)], 5, 1, 1, 60.0) == ["0"]
