"""Blocks of workers as Slurm jobs: Parsl's SlurmProvider, with its status put right.

Parsl's own takes a job that accounting does not know yet for completed, overwrites a final state
at the next poll, and without accounting cannot tell a cancelled job from a completed one.

Does not know: which settings a site has, or what the workers do.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from parsl.executors.status_handling import BlockProviderExecutor
from parsl.jobs.states import JobState, JobStatus
from parsl.launchers import SingleNodeLauncher, SrunLauncher
from parsl.launchers.base import Launcher
from parsl.providers import SlurmProvider
from parsl.providers.errors import SubmitException

from parslfl_executors import slurm_queue
from parslfl_executors.htex import Pool
from parslfl_executors.ledger import Event, bursts
from parslfl_executors.signals import SiteSignals, counted
from parslfl_executors.slurm_patience import Patience
from parslfl_executors.slurm_queue import Job

#: Seconds in which a new job may be missing from the queue's answers.
_NEW = 30.0
#: Blocks in a row that end before a worker connected: then the site is given up.
_PATIENCE = 3
#: Seconds without new blocks after one was refused while others live: a limit is reached.
_PAUSE = 30.0
#: Seconds that a job may take to end before it counts as over: only then Slurm tells why it ended.
_ENDING = 15.0
#: What sbatch says when its controller is away, not when it refuses.
_AWAY = ("Unable to contact slurm controller", "Socket timed out", "Connection refused", "no answer within")


class RefusedError(Exception):
    """sbatch did not take a job; says why, in its words."""


class NoBlocksError(Exception):
    """The last blocks of a site all ended before their workers connected."""


class SlurmBlocks(SlurmProvider):
    """Parsl's SlurmProvider for jobs that carry `comment`, looked at every `poll` seconds.

    `pending_timeout`: seconds that tasks wait while no job runs. Other keywords are SlurmProvider's.
    """

    def __init__(self, comment: str, poll: int, pending_timeout: float, **settings: Any) -> None:
        self.comment, self.poll = comment, poll
        self.patience = Patience(pending_timeout)
        self.jobs: dict[str, Job] = {}
        self._submitted: dict[str, float] = {}
        self._ending: dict[str, float] = {}
        self._full_until = 0.0
        self._refused: set[str] = set()
        self._unanswered: list[tuple[float, str]] = []
        self._flags = ""
        super().__init__(**settings)
        self._accounting = self._cmd.startswith("sacct")
        # a requeued block would come back as one more than Parsl knows of
        self.scheduler_options += f'#SBATCH --comment="{comment}"\n#SBATCH --no-requeue\n'

    @property
    def status_polling_interval(self) -> int:
        """Seconds between two looks; a job that is about to end is looked at again soon."""
        ends = (self.resources[job]["status"].state == JobState.RUNNING for job in list(self._ending))
        return 1 if any(ends) else self.poll

    @property
    def max_blocks(self) -> int:
        """As configured; for a while after a refusal no more than there are."""
        alive = sum(not entry["status"].terminal for entry in list(self.resources.values()))
        return min(self._most, alive) if alive and time.monotonic() < self._full_until else self._most

    @max_blocks.setter
    def max_blocks(self, count: int) -> None:
        self._most = count

    def execute_wait(self, cmd: str, timeout: float | None = None) -> tuple[int, str, str]:
        flagged = cmd.replace("sbatch ", f"sbatch {self._flags}", 1) if cmd.startswith("sbatch ") else cmd
        answer = slurm_queue.ask(flagged, timeout or self.cmd_timeout)
        return answer.code, answer.out, answer.err

    def submit(self, command: str, tasks_per_node: int, job_name: str = "parsl.slurm") -> str:
        try:
            job: str = super().submit(command, tasks_per_node, job_name.replace("parsl.", "parslfl.", 1))
        except SubmitException as error:
            said = " ".join((error.stderr or error.stdout or f"exit code {error.retcode}").split())
            raise RefusedError(f"sbatch: {said}") from None
        self._submitted[job] = time.monotonic()
        return job

    def trial(self, command: str, job_name: str) -> tuple[bool, str]:
        """Whether sbatch would take the job that `submit` makes, and what it says; none is submitted."""
        self._flags = "--test-only "
        try:
            super().submit(command, 1, job_name.replace("parsl.", "parslfl.", 1))
        except SubmitException as error:  # always: there is no job to tell the number of
            said = " ".join((error.stderr or error.stdout or f"exit code {error.retcode}").split())
            return error.retcode == 0, said
        finally:
            self._flags = ""
        return True, ""

    def cancel(self, job_ids: Sequence[object]) -> list[bool]:
        done = not job_ids or slurm_queue.cancel(
            [str(job) for job in job_ids], self.clusters or "", self.cmd_timeout
        )
        for job in job_ids if done else ():
            self.resources[job]["status"] = JobStatus(JobState.CANCELLED)
        return [done for _ in job_ids]

    def explain(self, job_id: str) -> str:
        """What has become of a job, in one line."""
        known = self.jobs.get(job_id)
        if known is None or known.alive or known.state == "COMPLETING":
            known = (self._ask([job_id]) or {}).get(job_id, known)
        return known.why() if known else f"slurm job {job_id}: Slurm knows it no longer"

    def began(self, job_id: str) -> float | None:
        """When a job started; None until it has."""
        job = self.jobs.get(job_id)
        return job.starts if job is not None and job.state not in slurm_queue.PENDING else None

    def troubles(self) -> tuple[Event, ...]:
        """Looks at the queue that Slurm did not answer, since this was asked last."""
        found, self._unanswered = self._unanswered, []
        return bursts(found)

    def waiting(self) -> str:
        """Why nothing runs yet, as of the last look; "" if something does."""
        alive = [job for job, entry in list(self.resources.items()) if not entry["status"].terminal]
        known = [self.jobs[job] for job in alive if job in self.jobs]
        return "" if any(job.state in slurm_queue.RUNNING for job in known) or not known else known[0].why()

    def outwaited(self, refused: str) -> str:
        """Why tasks should wait no longer, as of the last look; "" while they may.

        `refused`: what sbatch said, if it could not be asked for the last job.
        """
        states = {str(job): entry["status"].state for job, entry in list(self.resources.items())}
        pending = [job for job, state in states.items() if state == JobState.PENDING]
        waits = [self.jobs.get(job, Job(job, "PENDING")) for job in pending]
        if JobState.RUNNING in states.values() or any(job.state == "CONFIGURING" for job in waits):
            self.patience.rest()  # the nodes of one that is CONFIGURING are booting
            return ""
        return self.patience.over(waits, refused, time.monotonic())

    def signals(self, managers: Sequence[Mapping[str, Any]]) -> SiteSignals:
        """How this site stands now; `managers` is what the executor's `connected_managers()` returns."""
        alive = [str(job) for job, entry in list(self.resources.items()) if not entry["status"].terminal]
        found = (self._ask(alive) if alive else {}) or {}
        nodes = slurm_queue.nodes(self.partition, self.clusters or "", self.cmd_timeout)
        workers, free = counted(managers)
        return SiteSignals(
            at=time.time(),
            blocks=tuple(job.block() for job in found.values() if job.alive),
            workers=workers,
            free_workers=free,
            idle_nodes=sum(n.count for n in nodes if n.state == "idle") if nodes else None,
            idle_cores=sum(n.idle_cores for n in nodes) if nodes else None,
            nodes=sum(n.count for n in nodes if n.serving) if nodes else None,
        )

    def sweep(self) -> None:
        """Cancel what is left of this run, also what Parsl lost sight of."""
        slurm_queue.cancel_labelled(self.comment, self.clusters or "", self.cmd_timeout)

    def pause(self, block: str) -> None:
        """Hold back new blocks for a while, once for each `block` that did not start."""
        if block not in self._refused:
            self._refused.add(block)
            self._full_until = time.monotonic() + _PAUSE

    def _status(self) -> None:
        alive = [str(job) for job, entry in list(self.resources.items()) if not entry["status"].terminal]
        found = self._ask(alive) if alive else {}
        if found is None:  # the controller is away: all stays as it was last seen
            self._unanswered.append((time.time(), "squeue did not answer"))
            return
        for job in alive:
            new = time.monotonic() - self._submitted[job] < _NEW
            if job in found or not new:
                self._see(job, found.get(job, Job(job, "COMPLETED", "Slurm knows it no longer")))

    def _ask(self, jobs: Sequence[str]) -> dict[str, Job] | None:
        clusters = self.clusters or ""
        found = slurm_queue.jobs(jobs, clusters, self.cmd_timeout)
        if found is None:
            return None
        missing = [job for job in jobs if job not in found]
        if missing and self._accounting:
            found |= slurm_queue.finished(missing, clusters, self.cmd_timeout)
        return found

    def _see(self, known_as: str, job: Job) -> None:
        entry = self.resources[known_as]
        self.jobs[known_as] = job
        state = JobState.RUNNING if self._is_ending(known_as, job) else _state(job)
        entry["status"] = JobStatus(
            state,
            None if job.state in slurm_queue.RUNNING else job.why(),
            stdout_path=entry["job_stdout_path"],
            stderr_path=entry["job_stderr_path"],
        )

    def _is_ending(self, known_as: str, job: Job) -> bool:
        now = time.monotonic()
        return job.state == "COMPLETING" and now - self._ending.setdefault(known_as, now) < _ENDING


def _state(job: Job) -> JobState:
    if job.alive:
        waits = JobState.PENDING if job.state in slurm_queue.PENDING else JobState.HELD
        return JobState.RUNNING if job.state in slurm_queue.RUNNING else waits
    ends = {
        "CANCELLED": JobState.CANCELLED,
        "COMPLETED": JobState.COMPLETED,
        "COMPLETING": JobState.COMPLETED,
    }
    timeouts = dict.fromkeys(("TIMEOUT", "DEADLINE", "PREEMPTED"), JobState.TIMEOUT)
    return {**ends, **timeouts}.get(job.state, JobState.FAILED)


def launcher(kind: str, cores: int | None) -> Launcher:
    """`single` starts the workers where the job's script runs, `srun` on every node of the job.

    Since Slurm 22.05 srun does not take over the job's --cpus-per-task.
    """
    if kind == "single":
        return SingleNodeLauncher(debug=False)
    share = f"--cpus-per-task={cores} " if cores else ""
    return SrunLauncher(debug=False, overrides=f"{share}--cpu-bind=none")


def give_up(executor: BlockProviderExecutor, status: dict[str, JobStatus]) -> None:
    """Parsl's block error handler: lost blocks are replaced; if none ever starts, all tasks fail.

    Parsl's default gives a site with one block up at its first node failure.
    """
    provider = executor.provider
    assert isinstance(executor, Pool)
    assert isinstance(provider, SlurmBlocks)
    if executor.bad_state_is_set:
        return
    blocks = [(block, status[block]) for block in sorted(status, key=int)]
    refused = _said(blocks[-1][1]) if blocks and _away(blocks[-1][1]) else ""
    if not executor.outstanding():
        provider.patience.rest()
    elif why := provider.outwaited(refused):
        executor.give_up(why, final=True)
        executor.scale_in_facade(len(blocks))
        return
    counted = [(b, s) for b, s in blocks if s.state != JobState.SCALED_IN and not _away(s)]
    last = counted[-_PATIENCE:]
    failed = [b for b, s in last if s.state == JobState.MISSING or b not in executor.blocks_to_job_id]
    if failed and failed[-1] == last[-1][0]:
        provider.pause(failed[-1])
    if len(failed) == _PATIENCE and all(s.terminal for _, s in blocks):
        executor.set_bad_state_and_fail_all(NoBlocksError(_no_blocks(last[-1][1])))


def _away(status: JobStatus) -> bool:
    return any(text in (status.message or "") for text in _AWAY)


def _said(status: JobStatus) -> str:
    """A block's message in one line, without what Parsl adds."""
    return " ".join((status.message or "").partition("Job is marked as MISSING")[0].split())


def _no_blocks(status: JobStatus) -> str:
    """The last failure, with the end of what its script said."""
    said = " ".join((status.stderr_summary or "").split())[-400:]
    return (
        f"the last {_PATIENCE} blocks ended before a worker connected. The last one: "
        f"{_said(status) or 'its job ended'}"
        f"{f'; its script said: {said}' if said else '; its script said nothing'}. "
        "Check account, partition, worker_init and address"
    )
