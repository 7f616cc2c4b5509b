"""Which blocks of a site have had nothing to do for long enough to end while others work.

Does not know: Parsl, or how a block is ended.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def spare(
    managers: Sequence[Mapping[str, Any]], tasks: int, nodes: int, at_least: int, longest: float
) -> list[str]:
    """Blocks that have been idle for more than `longest` seconds and are not needed, longest idle first.

    `managers`: what Parsl's `connected_managers()` returns; a block has one on each of its `nodes`.
    The others have a worker for each of the site's `tasks`, and are `at_least` so many. One that was
    held before (not `active`) is idle as soon as it has no task.
    """
    blocks: dict[str, list[Mapping[str, Any]]] = {}
    for manager in managers:
        blocks.setdefault(str(manager["block_id"]), []).append(manager)
    workers = {b: sum(m["worker_count"] for m in ours if m["active"]) for b, ours in blocks.items()}
    ages = {
        b: min(m["idle_duration"] if m["active"] else float("inf") for m in ours)
        for b, ours in blocks.items()
        if len(ours) >= nodes and not any(m["tasks"] for m in ours)  # late nodes may yet be sent tasks
    }
    found: list[str] = []
    for block in sorted(ages, key=lambda b: -ages[b]):
        held = workers[block] == 0
        left = sum(workers.values()) - workers[block]
        if ages[block] > longest and (held or (left >= tasks and len(blocks) - len(found) > at_least)):
            found.append(block)
            workers[block] = 0
    return found
