"""A site's round as one MPI job, started and watched by one of its workers.

Whatever becomes of the job, its clients' outcomes come back as a value: a rank that dies costs the round
the site's sum, with the launcher's own words for it, and nothing else.

Does not know: Parsl, or what the ranks do.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from typing import IO

import cloudpickle

from parslfl.folding.partials import Partial, nothing
from parslfl.messages import Failure, RanksTask
from parslfl.mpi.ranks import ANSWER, LENGTH, SAYS

#: Seconds after the round's deadline in which the ranks must have stopped by themselves.
PATIENCE = 30.0
#: Seconds from the request to end to the order.
_GRACE = 5.0
#: Characters of what a launcher says last that become part of the cause.
_LAST_WORDS = 2000
#: Parts of the lines in which MPICH's launcher says nothing of this job.
_EMPTY = (
    "BAD TERMINATION OF ONE",
    "CLEANING UP REMAINING",
    "YOU CAN IGNORE",
    "This typically refers to a problem",
    "Please see the FAQ page",
)
#: An exception, or a signal, would have been told.
_SILENT = (
    "it said nothing: see that executor.launcher runs a program there by hand, and look for what ends a "
    "process (os._exit) in the model's and the data set's code"
)
#: Where Parsl's MPIExecutor puts the launcher's command for the nodes that a task was given.
_PREFIX = "PARSL_MPI_PREFIX"


def run_site(task: RanksTask) -> Partial:
    """Train the site's clients as one MPI job; a partial of failures if the job failed."""
    with tempfile.TemporaryFile() as answer, tempfile.TemporaryFile() as said:
        why = _run(task, answer, said)
        _, mark, made = _all(answer).partition(ANSWER)
        if not why and mark:
            partial: Partial = cloudpickle.loads(made)  # what a launcher says after it is not read
            return partial
    why = why or "its MPI job ended without an answer: see that executor.launcher starts the ranks"
    return nothing(task.site, task.round, [Failure(t.client, t.round, "lost", why) for t in task.trains])


def command(launcher: str) -> list[str]:
    """The command line of a job under `launcher`; $PARSL_MPI_PREFIX in it is what Parsl made of the nodes."""
    words = shlex.split(launcher.replace(f"${_PREFIX}", os.environ.get(_PREFIX, "mpiexec")))
    return [*words, sys.executable, "-m", "parslfl.mpi.ranks"]


def _run(task: RanksTask, answer: IO[bytes], said: IO[bytes]) -> str:
    """Run the job; why it failed, or ""."""
    line = command(task.launcher)
    payload = cloudpickle.dumps(task)
    try:
        job = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=answer, stderr=said)
    except OSError as error:
        return (
            f"{line[0]} cannot be started: {error.strerror}. Install parslfl[mpi] there, load a module in "
            "worker_init, or set the site's executor.launcher"
        )
    over = threading.Event()
    threading.Thread(target=_send, args=[job.stdin, payload, over], daemon=True).start()
    try:
        code = _wait(job, task.closes_at)
    finally:
        _end(job)
        over.set()
    if code is None:
        return f"its MPI job did not stop within {PATIENCE:g} s of the round's deadline, and was ended"
    text = (_all(said) + b"\n" + _all(answer)).decode(errors="replace")
    return f"its MPI job ended with exit code {code}: {cause(text)}" if code else ""


def _all(stream: IO[bytes]) -> bytes:
    stream.seek(0)
    return stream.read()


def _wait(job: subprocess.Popen[bytes], closes_at: float | None) -> int | None:
    """The job's exit code; None if it runs on for too long."""
    try:
        return job.wait(None if closes_at is None else max(0.0, closes_at + PATIENCE - time.time()))
    except subprocess.TimeoutExpired:
        return None


def _end(job: subprocess.Popen[bytes]) -> None:
    """No rank may outlive this task."""
    if job.poll() is None:
        job.terminate()
        try:
            job.wait(_GRACE)
        except subprocess.TimeoutExpired:
            job.kill()
            job.wait()


def _send(stdin: IO[bytes], payload: bytes, over: threading.Event) -> None:
    """Send the task, and keep the pipe open until the job is `over`: the ranks end when it closes.

    A launcher that does not read keeps this waiting once the pipe is full, and whoever closes the pipe with
    it: so both are done here, beside the watch on the job's time.
    """
    with suppress(BrokenPipeError):  # the job has ended already, and says why itself
        stdin.write(LENGTH.pack(len(payload)) + payload)
        stdin.flush()
    over.wait()
    with suppress(BrokenPipeError):
        stdin.close()


def cause(said: str) -> str:
    """What ranks and launcher said, in one line: a rank's own reason, else the launcher's last words."""
    lines = [" ".join(line.strip("=").split()) for line in said.splitlines()]
    own = [line for line in lines if line.startswith(SAYS)]
    if own:
        return own[0]
    told = [line for line in lines if line and not any(part in line for part in _EMPTY)]
    return "; ".join(told[-6:])[-_LAST_WORDS:] or _SILENT
