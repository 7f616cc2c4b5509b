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
    """A site at the time `at`, seconds since the epoch.

    `free_workers`: those of `workers` without a task. `nodes`: those in service where blocks may
    go, `idle_nodes` and `idle_cores` of them. None: nobody knows, or may look.
    """

    at: float
    blocks: tuple[Block, ...]
    workers: int
    free_workers: int
    idle_nodes: int | None = None
    idle_cores: int | None = None
    nodes: int | None = None

    def waits(self) -> float | None:
        """Seconds until a pending block is expected to start; None if none is, or nobody knows."""
        known = [b.starts for b in self.blocks if b.state == "pending" and b.starts is not None]
        return max(0.0, min(known) - self.at) if known else None

    def soonest(self) -> float | None:
        """Seconds until a worker may take a task: 0 if one can now; None if nobody knows."""
        serving = self.workers or any(block.state == "running" for block in self.blocks)
        return 0.0 if serving else self.waits()

    def text(self) -> str:
        """All of it in one line."""
        said = [self._said(state) for state in ("running", "pending", "paused")]
        workers = f"workers: {self.workers}, {self.free_workers} free" if self.workers else "no workers"
        return "; ".join([", ".join(filter(None, said)) or "no blocks", workers, self._room()])

    def _said(self, state: str) -> str:
        found = [block for block in self.blocks if block.state == state]
        reasons = dict.fromkeys(block.reason for block in found if block.reason)
        lefts = [block.left for block in found if block.left is not None]
        about = list(reasons)
        if lefts and state == "running":
            about.append(f"{min(lefts):.0f} s left")
        if state == "pending" and (wait := self.waits()) is not None:
            about.append(f"first expected in {wait:.0f} s")
        if not found:
            return ""
        return f"{len(found)} {state}" + (f" ({', '.join(about)})" if about else "")

    def _room(self) -> str:
        numbers = {"nodes": self.nodes, "idle": self.idle_nodes, "idle cores": self.idle_cores}
        known = [f"{name}: {count}" for name, count in numbers.items() if count is not None]
        return ", ".join(known) or "nodes unknown"


def counted(managers: Sequence[Mapping[str, Any]]) -> tuple[int, int]:
    """Workers, and those of them without a task, in what Parsl's `connected_managers()` returns."""
    ready = [m for m in managers if m["active"] and not m["draining"]]
    workers = sum(m["worker_count"] for m in ready)
    return workers, sum(max(0, m["worker_count"] - m["tasks"]) for m in ready)
