"""How long a Slurm site waits for its queue: a clock, and a sentence once it has run out.

Does not know: Parsl, how jobs are looked at, or what is done when the time is over.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from parslfl_executors.slurm_queue import Job

#: Seconds for jobs that wait for somebody to change something: he may be about to.
STUCK = 600.0
#: Reasons that no waiting ends. PartitionNodeLimit is not one: Slurm also gives it while nodes are down.
_STUCK = re.compile(
    r"JobHeld\w+|JobHoldMaxRequeue|DependencyNeverSatisfied|BadConstraints|PartitionTimeLimit"
    r"|ReservationDeleted|InvalidAccount|InvalidQOS|AccountNotAllowed|QOSNotAllowed|QOSMin\w+|(Assoc|QOS)Max\w+PerJob\w*"
)


def stuck(job: Job) -> bool:
    """Whether `job` waits for more than its turn: it is held, or breaks a rule that stays."""
    return job.state == "PENDING" and bool(_STUCK.fullmatch(job.reason))


@dataclass
class Patience:
    """A site's clock: it runs while tasks wait and no job runs.

    `limit`: seconds until the site is given up; `STUCK` at most where every job is stuck.
    """

    limit: float
    _since: float | None = field(default=None, init=False)
    _stuck: float | None = field(default=None, init=False)

    def over(self, jobs: Sequence[Job], refused: str, now: float) -> str:
        """Why the site is given up at `now`, in one line; "" while it is not. Then the clock starts anew.

        `jobs`: those that wait; `refused`: what sbatch said, if it could not even ask for one.
        """
        if not jobs and not refused:
            self.rest()
            return ""
        held = bool(jobs) and all(map(stuck, jobs))
        self._since = now if self._since is None else self._since
        self._stuck = (now if self._stuck is None else self._stuck) if held else None
        brief = self._stuck is not None and now - self._stuck >= STUCK
        if not brief and now - self._since < self.limit:
            return ""
        self.rest()
        what = jobs[0].why() if jobs else refused
        after = f"{STUCK:,.0f} s" if brief else f"{self.limit:,.0f} s (pending_timeout)"
        if jobs and stuck(jobs[0]):
            return f"{what}: given up after {after}, for no waiting ends this"
        return f"{what}: given up, for no job of this site ran for {after}"

    def rest(self) -> None:
        """Nothing waits, or something runs."""
        self._since = self._stuck = None
