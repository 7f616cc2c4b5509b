"""One MPI job a round: on this machine, or on the nodes of a Slurm allocation.

A site of this kind has one worker a block; it starts the job and waits for it. In an allocation the block is
Parsl's MPIExecutor, whose worker knows the nodes and makes the launcher's command.

Does not know: what the ranks do.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from string import Formatter
from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, field_validator, model_validator

from parslfl_executors.fields import Count, Devices, FieldError, Keywords, Settings
from parslfl_executors.local import Local
from parslfl_executors.slurm import Slurm

if TYPE_CHECKING:
    from parsl.executors.base import ParslExecutor

#: Launchers whose command Parsl makes from an allocation's nodes.
_KNOWN = ("mpiexec", "srun", "aprun")
_PREFIX = "$PARSL_MPI_PREFIX"
#: What a command may have in braces.
_SIZES = frozenset({"ranks", "ranks_per_node", "nodes"})
#: A rank that dies ends the others, which srun alone would let wait for it for ever.
_SRUN = "--kill-on-bad-exit=1 --cpus-per-task={} --cpu-bind=none"


def _plain(text: str) -> bool:
    """Whether all that stands in braces is the bare name of a size."""
    try:
        parts = [(name, how or kind) for _, name, how, kind in Formatter().parse(text) if name is not None]
    except ValueError:  # a brace without its other one
        return False
    return all(name in _SIZES and not how for name, how in parts)


class Mpi(Settings):
    """MPI jobs on this machine or, with `slurm`, on the nodes of a block.

    `ranks_per_node`: processes of a job on each node: all train at once, as `workers_per_node` do elsewhere.
    `threads`: CPU threads of each. `accelerators`: GPUs on each node, how many or their names: each rank gets
    one of its own, more ranks than that share. `split`: what the ranks share out: the `clients`, each
    trained by one rank, or the `batches` of every client, which all ranks train together.

    `launcher`: what starts the ranks: `mpiexec`, `srun` or `aprun`, or a command with {ranks},
    {ranks_per_node} and {nodes} in it, such as `mpirun -np {ranks} --oversubscribe`. mpi4py there must
    have been built for the same MPI.

    `slurm`: the block's settings, as of `kind: slurm`; its nodes are `slurm.nodes_per_block`. Without it the
    job runs on the driver's own machine. `worker_init`, `parsl`: as of `kind: local`, without `slurm`.
    """

    kind: Literal["mpi"] = "mpi"
    ranks_per_node: Count
    threads: Count = 1
    accelerators: Devices = 0
    split: Literal["clients", "batches"] = "clients"
    launcher: str = "mpiexec"
    slurm: Slurm | None = None
    worker_init: str = ""
    parsl: Keywords = Field(default_factory=dict)

    @model_validator(mode="after")
    def _fitting(self) -> Self:
        for name in ("worker_init", "parsl") if self.slurm else ():
            if getattr(self, name):
                raise FieldError(f"belongs into slurm: executor.slurm.{name}", name)
        if self.slurm and self.slurm.max_blocks > 1:
            raise FieldError("a round is one job, in one block: set 1 and more nodes_per_block", "slurm")
        return self

    @field_validator("launcher")
    @classmethod
    def _startable(cls, text: str) -> str:
        if not _plain(text):
            raise FieldError(f"expected {{ranks}}, {{ranks_per_node}} or {{nodes}} in braces, got {text!r}")
        try:
            words = shlex.split(text)
        except ValueError as error:
            raise FieldError(f"{str(error).lower()} in {text!r}") from None
        if not words or not words[0]:
            raise FieldError(f"expected mpiexec, srun, aprun or a command, got {text!r}")
        return text

    def nodes(self) -> int:
        return self.slurm.nodes_per_block if self.slurm else 1

    def ranks(self) -> int:
        """Processes of a whole job."""
        return self.nodes() * self.ranks_per_node

    def workers_per_node(self) -> int:
        """One worker starts the jobs."""
        return 1

    def threads_per_worker(self) -> int:
        """CPU threads of one rank."""
        return self.threads

    def devices(self) -> tuple[str, ...]:
        """Names of a node's accelerators."""
        given = self.accelerators
        return tuple(given) if isinstance(given, list) else tuple(map(str, range(given)))

    def command(self) -> str:
        """What starts the ranks, to be followed by their program."""
        if self.launcher in _KNOWN:
            return _PREFIX if self.slurm else f"{self.launcher} -n {self.ranks()}"
        sizes = {"ranks": self.ranks(), "ranks_per_node": self.ranks_per_node, "nodes": self.nodes()}
        return self.launcher.format(**sizes)

    def brief(self, seconds: float) -> Self:
        """The same site for a look of at most `seconds`."""
        return self.model_copy(update={"slurm": self.slurm.brief(seconds)}) if self.slurm else self

    def left(self, label: str, logs: Path) -> list[str]:
        """What is alive of the run with the folder `logs`."""
        return self.around().left(label, logs)

    def clean(self, label: str, logs: Path) -> list[str]:
        """End what the run with the folder `logs` left; what could not be."""
        return self.around().clean(label, logs)

    def around(self) -> Local | Slurm:
        """What the ranks run in, as a site of its own kind."""
        here = Local(workers=1, threads=self.threads, worker_init=self.worker_init, parsl=self.parsl)
        return self.slurm or here

    def build(self, label: str, logs: Path) -> ParslExecutor:
        """A new Parsl executor called `label`, its logs under `logs`."""
        around = self.around()
        if isinstance(around, Slurm):
            return self._in_allocation(around, label, logs)
        return around.build(label, logs)

    def _in_allocation(self, slurm: Slurm, label: str, logs: Path) -> ParslExecutor:
        from parsl.launchers import SimpleLauncher

        from parslfl_executors.mpi_pool import MpiPool

        options = _SRUN.format(self.threads) if self.launcher == "srun" else ""
        shape = {
            "num_nodes": self.nodes(),
            "ranks_per_node": self.ranks_per_node,
            "num_ranks": self.ranks(),
            "launcher_options": options,
        }
        provider = {"launcher": SimpleLauncher(debug=False), **slurm.parsl.get("provider", {})}
        parsl = {
            "shape": shape,
            "mpi_launcher": self.launcher if self.launcher in _KNOWN else "mpiexec",
            **slurm.parsl,
            "provider": provider,
        }
        changes = {"workers": 1, "threads": self.threads, "accelerators": self.accelerators, "parsl": parsl}
        return slurm.model_copy(update=changes).build(label, logs, make=MpiPool)
