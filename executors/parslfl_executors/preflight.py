"""What can be told of a site before anything is started there, for every kind of site.

Does not know: what is looked at; that is each kind's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from parslfl_executors import kube_checks, local_checks, mpi_checks, slurm_checks
from parslfl_executors.checks import Check, Needs
from parslfl_executors.kubernetes import Kubernetes
from parslfl_executors.local import Local
from parslfl_executors.mpi import Mpi
from parslfl_executors.slurm import Slurm

_NOTHING = Needs()


def preflight(
    executor: Local | Slurm | Kubernetes | Mpi, label: str, folder: Path, needs: Needs = _NOTHING
) -> Iterator[Check]:
    """The checks of the site `label`; `folder` as the `logs` of its settings' `build`."""
    match executor:
        case Local():
            yield from local_checks.checks(executor, folder, needs)
        case Slurm():
            yield from slurm_checks.checks(executor, label, folder, needs)
        case Kubernetes():
            yield from kube_checks.checks(executor, label, folder, needs)
        case Mpi():
            if executor.slurm is not None:
                yield from preflight(executor.slurm, label, folder, needs)
            yield from mpi_checks.checks(executor, folder, needs)
