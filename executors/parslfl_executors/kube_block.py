"""One pod as a block of a Parsl executor: what is known of it, and how Parsl and others are told.

Does not know: the cluster, or what becomes of the block next.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Literal

from parsl.jobs.states import JobState, JobStatus

from parslfl_executors.kube_pod import State, Verdict
from parslfl_executors.signals import Block

#: How Parsl takes each state. Pods that were lost are no failures of the site: Parsl puts others
#: in their place, and counts those against it that no worker ever reported from.
_PARSL: dict[State, JobState] = {
    "pending": JobState.PENDING,
    "running": JobState.RUNNING,
    "succeeded": JobState.TIMEOUT,
    "failed": JobState.TIMEOUT,
    "evicted": JobState.TIMEOUT,
    "deleted": JobState.COMPLETED,
    "stuck": JobState.FAILED,
}
_ASKED = Verdict("pending")


@dataclass
class PodBlock:
    """One pod, from before it is made until after it is gone.

    `asked`, `made`, `blocked` are in `time.monotonic()`'s terms, `began` in seconds since the epoch.
    `waited`: seconds from `asked` to the last look, while it was not over.
    """

    name: str
    command: str
    asked: float = field(default_factory=time.monotonic)
    made: float | None = None
    blocked: float | None = None
    began: float | None = None
    waited: float = 0.0
    verdict: Verdict = _ASKED
    refused: str = ""
    cancelled: bool = False
    unclean: bool = False

    @property
    def over(self) -> bool:
        """Whether it has ended, or is being ended."""
        return self.cancelled or self.verdict.over

    def explain(self) -> str:
        """What became of it, and why; "" while there is nothing to say."""
        why = "scaled in" if self.cancelled else self.refused or self.verdict.why
        return f"pod {self.name}: {why}" if why else ""

    def status(self) -> JobStatus:
        """As Parsl takes it."""
        if self.cancelled:
            return JobStatus(JobState.CANCELLED, self.explain())
        return JobStatus(_PARSL[self.verdict.state], self.explain() or None, exit_code=self.verdict.code)

    def told(self, limit: float | None) -> Block:
        """As every site tells of its blocks; `limit`: seconds that it may run."""
        left = self.began + limit - time.time() if self.began and limit else None
        state: Literal["running", "pending"] = "running" if self.verdict.state == "running" else "pending"
        return Block(self.name, state, self.refused or self.verdict.why, self.began, left)
