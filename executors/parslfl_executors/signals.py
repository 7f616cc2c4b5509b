"""How a site stands: its blocks and their queue, the time they have left, its free workers and nodes.

Values only; each resource manager fills them from what it knows.

Does not know: any resource manager, or what is decided from this.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Block:
    """A block that runs or waits. `job`: the scheduler's name for it; `reason`: its word for why.

    `starts`: seconds since the epoch; expected, while it waits; None if nobody knows. `left`:
    seconds until it is ended; None without a limit.
    """

    job: str
    state: Literal["running", "pending", "paused"]
    reason: str = ""
    starts: float | None = None
    left: float | None = None


@dataclass(frozen=True)
class SiteSignals:
    """A site at the time `at`, seconds since the epoch. Idle nodes and cores: of its whole partition."""

    at: float
    blocks: tuple[Block, ...]
    workers: int
    free_workers: int
    idle_nodes: int
    idle_cores: int

    def waits(self) -> float | None:
        """Seconds until a pending block is expected to start; None if none is, or nobody knows."""
        known = [b.starts for b in self.blocks if b.state == "pending" and b.starts is not None]
        return max(0.0, min(known) - self.at) if known else None


def counted(managers: Sequence[Mapping[str, Any]]) -> tuple[int, int]:
    """Workers, and those of them without a task, in what Parsl's `connected_managers()` returns."""
    ready = [m for m in managers if m["active"] and not m["draining"]]
    workers = sum(m["worker_count"] for m in ready)
    return workers, sum(max(0, m["worker_count"] - m["tasks"]) for m in ready)
