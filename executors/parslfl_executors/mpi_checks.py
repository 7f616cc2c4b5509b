"""What can be told of a site of MPI ranks before anything is started there.

Does not know: what the ranks run in; that has checks of its own.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from parslfl_executors.checks import Check, failed, ok
from parslfl_executors.mpi import Mpi


def checks(site: Mpi) -> Iterator[Check]:
    """The launcher, where it is this machine's."""
    if site.slurm is None:
        yield _launcher(shlex.split(site.command())[0])


def _launcher(word: str) -> Check:
    """Whether a worker here will find the launcher: it has this interpreter's folder first on PATH."""
    folders = [str(Path(sys.executable).parent), os.environ.get("PATH", "")]
    found = shutil.which(word, path=os.pathsep.join(folders))
    if found:
        return ok("launcher", found)
    return failed("launcher", f"{word} is not on PATH", "pip install 'parslfl[mpi]', or load a module first")
