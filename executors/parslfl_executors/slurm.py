"""A Slurm cluster: blocks of workers as batch jobs, asked for when there is work.

Does not know: what its workers are asked to do.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import AfterValidator, AliasChoices, Field, model_validator

from parslfl_executors.fields import (
    Count,
    Devices,
    Duration,
    FieldError,
    Keywords,
    Settings,
    Unusable,
    Whole,
)

if TYPE_CHECKING:
    from parsl.executors.base import ParslExecutor


def _options(text: str) -> str:
    """One sbatch option a line, with or without `#SBATCH`."""
    lines = [line.strip().removeprefix("#SBATCH").strip() for line in text.splitlines()]
    for line in lines:
        if line and not line.startswith("-"):
            raise FieldError(f"expected options of sbatch, one a line, such as --mem=32G, got {line!r}")
    return "\n".join(f"#SBATCH {line}" for line in lines if line)


class Slurm(Settings):
    """Worker processes in jobs of a Slurm cluster that this machine can submit to.

    A *block* is one job of `nodes_per_block` nodes for `walltime`. There are `init_blocks` at the
    start, more while tasks wait, up to `max_blocks`, and `min_blocks` once the site is idle.

    `account`, `partition`, `qos`, `constraint`: as for sbatch; `scheduler_options`: any others, one
    a line. `cores_per_node`: cores that a block takes on each node; without it, or if `exclusive`,
    it takes whole nodes. `workers_per_node`: by default one an accelerator, else one a core.
    `threads`: CPU threads of each worker; by default `cores_per_node` is shared out.
    `accelerators`: GPUs on each node, how many or their names: each worker gets one of its own.

    `worker_init`: shell lines that run on the node before the workers start. `python`: the command
    that starts Python there; by default the driver's own interpreter where the node sees it under
    the same path, unless `worker_init` puts another python3 first on PATH. `launcher`: `single`, or
    `srun` where a block has several nodes. `address`: of this machine, as the nodes reach it; by
    default they try all that it has. `pending_timeout`: how long tasks wait for the queue while none of
    the site's jobs runs (at most ten minutes for jobs that are held, or that break a limit).
    `max_idle`: how long a job may have no task while others of the site work. `poll`:
    how often squeue is asked, and `cmd_timeout` how long it may take.

    `parsl`: any keyword of HighThroughputExecutor; of SlurmProvider under the key `provider`.
    """

    kind: Literal["slurm"] = "slurm"
    account: str | None = None
    partition: str | None = None
    qos: str | None = None
    constraint: str | None = None
    scheduler_options: Annotated[str, AfterValidator(_options)] = ""
    walltime: Duration = 3600.0
    nodes_per_block: Count = 1
    min_blocks: Whole = 0
    init_blocks: Whole | None = None
    max_blocks: Count = 1
    workers: Count | None = Field(default=None, validation_alias=AliasChoices("workers_per_node", "workers"))
    cores_per_node: Count | None = None
    threads: Count | None = None
    accelerators: Devices = 0
    exclusive: bool | None = None
    worker_init: str = ""
    python: str | None = None
    launcher: Literal["single", "srun"] | None = None
    address: str | None = None
    pending_timeout: Duration = 86400.0
    max_idle: Duration | None = None
    poll: Duration = 10.0
    cmd_timeout: Duration = 30.0
    parsl: Keywords = Field(default_factory=dict)

    @model_validator(mode="after")
    def _fitting(self) -> Self:
        first = self.min_blocks if self.init_blocks is None else self.init_blocks
        for name, count in (("min_blocks", self.min_blocks), ("init_blocks", first)):
            if count > self.max_blocks:
                raise FieldError(f"{count} is more than max_blocks ({self.max_blocks})", name)
        devices = self._devices()
        if self.workers and 0 < devices < self.workers:
            message = f"{self.workers} workers for {devices} accelerators a node, one each"
            raise FieldError(f"{message} (to share, repeat it: [0, 0])", "workers_per_node")
        if self.nodes_per_block > 1 and self.launcher == "single":
            raise FieldError("'single' starts workers on one node only: use srun", "launcher")
        return self

    def workers_per_node(self) -> int:
        """Worker processes on each node of a block."""
        return self.workers or self._devices() or self.cores_per_node or 1

    def threads_per_worker(self) -> int:
        """CPU threads of one worker, at least 1."""
        return self.threads or max(1, (self.cores_per_node or 1) // self.workers_per_node())

    def build(self, label: str, logs: Path, make: Callable[..., Any] | None = None) -> ParslExecutor:
        """A new Parsl executor called `label`, its logs under `logs`, a folder that the nodes share.

        `make`: its class, as `pool.worker_pool` takes it.
        """
        from parslfl_executors.pool import taken, worker_pool
        from parslfl_executors.slurm_blocks import SlurmBlocks, give_up
        from parslfl_executors.slurm_queue import label as comment

        raw = dict(self.parsl)
        provider = {**self._provider(), **raw.pop("provider", {})}
        with taken(self.parsl):
            blocks = SlurmBlocks(comment(logs), math.ceil(self.poll), self.pending_timeout, **provider)
        return worker_pool(
            label,
            blocks,
            logs,
            address=self.address,
            workers=self.workers_per_node(),
            accelerators=self.accelerators or [],
            python=self.python or "python3",
            max_idle=self.max_idle,
            raw={"block_error_handler": give_up, **raw},
            make=make,
        )

    def clusters(self) -> str:
        """What Slurm's commands are told in `--clusters`; "" for the cluster that is here."""
        return str(self.parsl.get("provider", {}).get("clusters") or "")

    def brief(self, seconds: float) -> Self:
        """The same site with one block, for a look of at most `seconds`."""
        return self.model_copy(
            update={
                "min_blocks": 0,
                "init_blocks": 1,
                "max_blocks": 1,
                "walltime": min(self.walltime, seconds),
            }
        )

    def left(self, label: str, logs: Path) -> list[str]:
        """Jobs of the run with the folder `logs` that are alive.

        Raises:
            Unusable: Slurm does not answer.
        """
        from parslfl_executors import slurm_queue

        found = slurm_queue.labelled(slurm_queue.label(logs), self.clusters(), self.cmd_timeout)
        if found is None:
            raise Unusable("squeue does not answer: `scontrol ping` tells whether Slurm is up")
        return [f"slurm job {job}" for job in sorted(found)]

    def clean(self, label: str, logs: Path) -> list[str]:
        """Cancel the jobs of the run with the folder `logs`; those that Slurm would not cancel.

        Raises:
            Unusable: Slurm does not answer.
        """
        from parslfl_executors import slurm_queue

        if self.left(label, logs):
            slurm_queue.cancel_labelled(slurm_queue.label(logs), self.clusters(), self.cmd_timeout)
        return self.left(label, logs)

    def _provider(self) -> dict[str, Any]:
        from parslfl_executors.pool import bound_threads, interpreter_there
        from parslfl_executors.slurm_blocks import launcher

        init = bound_threads(self.threads_per_worker()) + self.worker_init
        several = self.nodes_per_block > 1
        return {
            "account": self.account,
            "partition": self.partition,
            "qos": self.qos,
            "constraint": self.constraint,
            "scheduler_options": f"{self.scheduler_options}\n" if self.scheduler_options else "",
            "walltime": _clock(self.walltime),
            "nodes_per_block": self.nodes_per_block,
            "cores_per_node": self.cores_per_node,
            "gpus_per_node": self._gpus(),
            "exclusive": self.cores_per_node is None if self.exclusive is None else self.exclusive,
            "init_blocks": self.min_blocks if self.init_blocks is None else self.init_blocks,
            "min_blocks": self.min_blocks,
            "max_blocks": self.max_blocks,
            "cmd_timeout": math.ceil(self.cmd_timeout),
            "launcher": launcher(self.launcher or ("srun" if several else "single"), self.cores_per_node),
            "worker_init": init if self.python else interpreter_there(init),
        }

    def _devices(self) -> int:
        return self.accelerators if isinstance(self.accelerators, int) else len(self.accelerators)

    def _gpus(self) -> int | None:
        """GPUs to ask Slurm for on each node: those that workers share count once."""
        names = self.accelerators
        return (names if isinstance(names, int) else len(set(names))) or None


def _clock(seconds: float) -> str:
    """`seconds` as HH:MM:SS, up to the next whole minute: Slurm's limits are minutes."""
    minutes = math.ceil(seconds / 60)
    return f"{minutes // 60:02}:{minutes % 60:02}:00"
