"""What can be told of a site of MPI ranks before anything is started there.

Does not know: an allocation that ranks run in; that has checks of its own.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from parslfl_executors import local_checks
from parslfl_executors.checks import Check, Needs, failed, ok
from parslfl_executors.mpi import Mpi


def checks(site: Mpi, folder: Path, needs: Needs) -> Iterator[Check]:
    """This machine under the ranks of a job, and the launcher; nothing for ranks of an allocation."""
    if site.slurm is None:
        load = local_checks.Load("ranks_per_node", site.ranks_per_node, site.threads, site.accelerators)
        yield from local_checks.loaded(load, folder, needs)
        yield _launcher(shlex.split(site.command())[0])


def _launcher(word: str) -> Check:
    """Whether a worker here will find the launcher: it has this interpreter's folder first on PATH."""
    folders = [str(Path(sys.executable).parent), os.environ.get("PATH", "")]
    found = shutil.which(word, path=os.pathsep.join(folders))
    if found:
        return ok("launcher", found)
    return failed("launcher", f"{word} is not on PATH", "pip install 'parslfl[mpi]', or load a module first")
