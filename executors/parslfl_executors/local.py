"""This machine, or the node of an allocation that the driver already runs on.

Does not know: what its workers are asked to do.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from parslfl_executors.fields import Count, FieldError, Keywords, Settings, Whole

if TYPE_CHECKING:
    from parsl.executors.base import ParslExecutor


def _names(value: object) -> object:
    """Accelerators may be named by number: `[0, 1]`."""
    if isinstance(value, list):
        return [str(item) if type(item) is int else item for item in value]
    if type(value) is int and value >= 0:
        return value
    raise FieldError(f"expected a count or device names, got {value!r}")


class Local(Settings):
    """Worker processes on this machine.

    `workers`: how many; by default one an accelerator, or one a core without any.
    `threads`: CPU threads of each; by default the cores are shared out.
    `accelerators`: how many, or their names: each worker gets one of its own.
    `worker_init`: shell lines that run before the workers start.
    `parsl`: any keyword of HighThroughputExecutor; of its provider under the key `provider`.
    """

    kind: Literal["local"] = "local"
    workers: Count | None = None
    threads: Count | None = None
    accelerators: Annotated[Whole | list[str], BeforeValidator(_names)] = 0
    worker_init: str = ""
    parsl: Keywords = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_each(self) -> Self:
        count = self._accelerators()
        if self.workers and 0 < count < self.workers:
            message = (
                f"{self.workers} workers for {count} accelerators, one each (to share, repeat it: [0, 0])"
            )
            raise FieldError(message, "workers")
        return self

    def workers_per_node(self) -> int:
        """Worker processes that run side by side."""
        return self.workers or self._accelerators() or _cores()

    def threads_per_worker(self) -> int:
        """CPU threads of one worker, at least 1."""
        return self.threads or max(1, _cores() // self.workers_per_node())

    def _accelerators(self) -> int:
        return self.accelerators if isinstance(self.accelerators, int) else len(self.accelerators)

    def build(self, label: str, logs: Path) -> ParslExecutor:
        """A new Parsl executor called `label`, its logs under `logs`."""
        from parslfl_executors.pool import interpreter_first, worker_pool
        from parslfl_executors.processes import LocalProcesses

        raw = dict(self.parsl)
        provider = {
            "init_blocks": 1,
            "min_blocks": 1,
            "max_blocks": 1,
            "worker_init": interpreter_first(thread_limits(self.threads_per_worker()) + self.worker_init),
            **raw.pop("provider", {}),
        }
        return worker_pool(
            label,
            LocalProcesses(**provider),  # type: ignore[no-untyped-call]  # Parsl types only some
            logs,
            address="127.0.0.1",
            workers=self.workers_per_node(),
            accelerators=self.accelerators or [],
            same_machine=True,
            raw=raw,
        )


def thread_limits(count: int) -> str:
    """Bound every numeric library: each would otherwise take all cores in every worker."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    return "".join(f"export {name}={count}\n" for name in names)


def _cores() -> int:
    """Cores that this process may use: fewer than the machine has, in a container or a job."""
    return len(os.sched_getaffinity(0))
