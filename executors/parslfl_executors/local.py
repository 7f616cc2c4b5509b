"""This machine, or the node of an allocation that the driver already runs on.

Does not know: what its workers are asked to do.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shlex
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

import psutil
from pydantic import Field, model_validator

from parslfl_executors.fields import Count, Devices, FieldError, Keywords, Settings

if TYPE_CHECKING:
    from parsl.executors.base import ParslExecutor


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
    accelerators: Devices = 0
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

    def brief(self, seconds: float) -> Self:
        """The same site with one worker, for a look of at most `seconds`, which nothing here limits."""
        return self.model_copy(update={"workers": 1, "threads": self.threads_per_worker()})

    def left(self, label: str, logs: Path) -> list[str]:
        """Processes and temporary folders of the run with the folder `logs`."""
        scratch = sorted(Path(tempfile.gettempdir()).glob(f"{_mark(logs)}*"))
        return [*(f"process {one.pid}" for one in _guarded(logs)), *(f"folder {path}" for path in scratch)]

    def clean(self, label: str, logs: Path) -> list[str]:
        """End and remove what the run with the folder `logs` left; what could not be."""
        for process in _guarded(logs):
            with contextlib.suppress(psutil.Error):
                for one in [*process.children(recursive=True), process]:
                    one.kill()
                process.wait(5)
        for path in Path(tempfile.gettempdir()).glob(f"{_mark(logs)}*"):
            shutil.rmtree(path, ignore_errors=True)
        return self.left(label, logs)

    def _accelerators(self) -> int:
        return self.accelerators if isinstance(self.accelerators, int) else len(self.accelerators)

    def build(self, label: str, logs: Path) -> ParslExecutor:
        """A new Parsl executor called `label`, its logs under `logs`."""
        from parslfl_executors.pool import bound_threads, interpreter_first, taken, worker_pool
        from parslfl_executors.processes import LocalProcesses

        raw = dict(self.parsl)
        provider = {
            "init_blocks": 1,
            "min_blocks": 1,
            "max_blocks": 1,
            "worker_init": interpreter_first(
                bound_threads(self.threads_per_worker()) + _beside_script() + self.worker_init
            ),
            **raw.pop("provider", {}),
        }
        with taken(self.parsl):
            processes = LocalProcesses(mark=_mark(logs), **provider)
        return worker_pool(
            label,
            processes,
            logs,
            address="127.0.0.1",
            workers=self.workers_per_node(),
            accelerators=self.accelerators or [],
            same_machine=True,
            raw=raw,
        )


def _mark(logs: Path) -> str:
    """By which what the run with the folder `logs` leaves in the temporary folder is known."""
    return f"parslfl-{hashlib.blake2b(str(logs.resolve()).encode(), digest_size=4).hexdigest()}-"


def _guarded(logs: Path) -> list[psutil.Process]:
    """Worker pools of the run with the folder `logs`: the guard's command names both."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            words = process.cmdline()
            ours = any(word.startswith(f"--logdir={logs}/") for word in words)
            if ours and "parslfl_executors.guard" in words and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def _beside_script() -> str:
    """Let workers import what lies beside the script that runs, as the script itself can."""
    script = getattr(sys.modules["__main__"], "__file__", None)
    folder = Path(script).resolve().parent if script else None
    if folder is None or folder == Path(sys.executable).parent:
        return ""
    return f"export PYTHONPATH=${{PYTHONPATH:+$PYTHONPATH:}}{shlex.quote(str(folder))}\n"


def _cores() -> int:
    """Cores that this process may use: fewer than the machine has, in a container or a job."""
    return len(os.sched_getaffinity(0))
