"""What Slurm's commands say of jobs and nodes, read from their fixed-format output.

`-o` formats are the same in every version, with and without accounting; JSON output is not.

Does not know: Parsl, blocks, or why anybody asks.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from parslfl_executors.fields import seconds
from parslfl_executors.signals import Block

#: id, state, reason, start, time left, time limit, nodes, comment (last: it may hold anything).
_JOB = "%i|%T|%r|%S|%L|%l|%N|%k"
#: partition, node count, state, CPUs allocated/idle/other/total.
_NODES = "%P|%D|%t|%C"
#: partition (* marks the default), availability, time limit, a node's address: a line for each node.
_PARTITION = "%P|%a|%l|%o"
#: States of nodes that run jobs; sinfo marks some with a sign behind, such as ~ for one asleep.
_SERVING = ("idle", "mix", "alloc", "comp")
#: Users' defaults for these commands would change what they print.
_DEFAULTS = ("SQUEUE_", "SINFO_", "SACCT_")
_NOTHING = ("", "None", "N/A", "(null)", "(None)")

#: Waiting, or on the way back into the queue.
PENDING = frozenset({"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED"})
RUNNING = frozenset({"RUNNING", "RESIZING", "SIGNALING", "STAGE_OUT"})
PAUSED = frozenset({"SUSPENDED", "STOPPED"})
#: A job in any other state has ended, or is about to.
ALIVE = PENDING | RUNNING | PAUSED

_MEANING = {
    "CANCELLED": "by scancel",
    "COMPLETING": "it is being ended",
    "BOOT_FAIL": "its node did not start",
    "NODE_FAIL": "its node failed",
    "OUT_OF_MEMORY": "it used more memory than it asked for",
    "PREEMPTED": "a job of higher priority took its nodes",
    "COMPLETED": "its workers ended by themselves",
}


@dataclass(frozen=True)
class Answer:
    """What a command returned: exit code (124: no answer in time, 127: no such command) and texts."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Job:
    """One job. `starts`: seconds since the epoch, expected while it is pending. `left`: seconds."""

    id: str
    state: str
    reason: str = ""
    starts: float | None = None
    left: float | None = None
    limit: str = ""
    nodes: str = ""
    comment: str = ""

    @property
    def alive(self) -> bool:
        """Whether it may still run."""
        return self.state in ALIVE

    def block(self) -> Block:
        """A job that is alive, as every site tells of its blocks."""
        waits: Literal["pending", "paused"] = "pending" if self.state in PENDING else "paused"
        state = "running" if self.state in RUNNING else waits
        return Block(self.id, state, self.reason, self.starts, self.left)

    def why(self) -> str:
        """Its state and the cause of it, in one line."""
        name = f"slurm job {self.id}{f' on {self.nodes}' if self.nodes else ''}"
        if self.state in RUNNING:
            return f"{name} is {self.state}, but its workers do not answer"
        state = self.state if self.alive else f"ended: {self.state}"
        cause = self.reason or _MEANING.get(self.state, "")
        if self.state in {"TIMEOUT", "DEADLINE"} or self.reason == "TimeLimit":
            cause = f"its walltime{f' of {self.limit}' if self.limit else ''} was reached"
        return f"{name} {state}{f' ({cause})' if cause else ''}"


@dataclass(frozen=True)
class Nodes:
    """Nodes of one `partition` in one `state`; `idle_cores` of all of them together."""

    partition: str
    state: str
    count: int
    idle_cores: int

    @property
    def serving(self) -> bool:
        """Whether jobs can go there, now or later; * marks nodes that do not answer."""
        return self.state.startswith(_SERVING) and not self.state.endswith("*")


@dataclass(frozen=True)
class Partition:
    """Whether a partition is `up`, the longest job it takes in seconds (None: any), its nodes' addresses."""

    up: bool
    limit: float | None
    addresses: tuple[str, ...]


def ask(command: str | Sequence[str], timeout: float = 30) -> Answer:
    """Run one of Slurm's commands, out of reach of Ctrl-C: a half-done sbatch would lose its job."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(_DEFAULTS)}
    try:
        done = subprocess.run(
            command,
            check=False,
            shell=isinstance(command, str),  # as Parsl's own are: made of our words
            env={**environment, "LC_ALL": "C", "SLURM_TIME_FORMAT": "standard"},
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            start_new_session=True,
        )
    except subprocess.TimeoutExpired:
        return Answer(124, "", f"no answer within {timeout:g} s")
    except OSError as error:
        return Answer(127, "", f"{error.strerror}: {error.filename}")
    return Answer(done.returncode, done.stdout, done.stderr)


def unanswered(clusters: str = "", timeout: float = 30) -> str:
    """Why the controller does not answer; "" if it does."""
    answer = ask(["squeue", *_on(clusters), "-h", "-u", str(os.getuid()), "-o", "%i"], timeout)
    return answer.err.strip() or f"exit code {answer.code}" if answer.code else ""


def jobs(ids: Sequence[str], clusters: str = "", timeout: float = 30) -> dict[str, Job] | None:
    """Jobs that Slurm still knows, by id; None if it did not answer."""
    answer = ask(["squeue", *_on(clusters), "-h", "-t", "all", "-j", ",".join(ids), "-o", _JOB], timeout)
    if answer.code and "Invalid job id" not in answer.err:  # what it says if it knows none of them
        return None
    return {job.id: job for job in read_jobs(answer.out)}


def finished(ids: Sequence[str], clusters: str = "", timeout: float = 30) -> dict[str, Job]:
    """Ended jobs by id, from accounting: it remembers what squeue has forgotten."""
    columns = "JobIDRaw,State,NodeList,Timelimit"
    answer = ask(["sacct", *_on(clusters), "-X", "-n", "-P", "-j", ",".join(ids), "-o", columns], timeout)
    return {} if answer.code else {job.id: job for job in read_finished(answer.out)}


def nodes(partition: str | None = None, clusters: str = "", timeout: float = 30) -> tuple[Nodes, ...]:
    """Nodes of `partition`, or of all; empty if Slurm did not answer."""
    only = ["-p", partition] if partition else []
    answer = ask(["sinfo", *_on(clusters), "-h", *only, "-o", _NODES], timeout)
    return () if answer.code else read_nodes(answer.out)


def partition(name: str | None = None, clusters: str = "", timeout: float = 30) -> Partition | str:
    """A partition, by default the one that jobs go to by default; or why Slurm does not tell of it."""
    only = ["-p", name] if name else []
    answer = ask(["sinfo", *_on(clusters), "-h", "-N", *only, "-o", _PARTITION], timeout)
    found = read_partition(answer.out, name)
    if answer.code or found is None:
        return answer.err.strip() or f"Slurm knows no nodes of {name or 'a default partition'}"
    return found


def read_partition(text: str, name: str | None) -> Partition | None:
    """Partition `name`, or the default one, in sinfo's output in the format of this module.

    Several, as in `short,long`: Slurm takes whichever can start the job.
    """
    rows = [row for line in text.splitlines() if len(row := line.split("|")) == 4]
    names = name.split(",") if name else []
    wanted = [row for row in rows if (row[0].removesuffix("*") in names if name else row[0].endswith("*"))]
    if not wanted:
        return None
    serving = [row for row in wanted if row[1] == "up"]
    limits = [_left(row[2]) for row in serving or wanted]
    longest = None if None in limits else max(filter(None, limits), default=None)
    addresses = tuple(dict.fromkeys(row[3] for row in wanted))
    return Partition(bool(serving), longest, addresses)


def read_jobs(text: str) -> list[Job]:
    """The jobs in squeue's output in the format of this module."""
    rows = (line.split("|", 7) for line in text.splitlines())
    return [_job(*row) for row in rows if len(row) == 8]  # else a heading, as --clusters prints


def read_finished(text: str) -> list[Job]:
    """The jobs in the output of sacct -P: `12|CANCELLED by 0|node1|00:10:00`."""
    rows = (line.split("|") for line in text.splitlines())
    return [_ended(*row) for row in rows if len(row) == 4 and row[1]]


def read_nodes(text: str) -> tuple[Nodes, ...]:
    """The nodes in sinfo's output in the format of this module."""
    rows = (line.split("|") for line in text.splitlines())
    return tuple(
        Nodes(row[0].removesuffix("*"), row[2], int(row[1]), int(row[3].split("/")[1]))
        for row in rows
        if len(row) == 4
    )


def label(logs: Path) -> str:
    """The comment of a run's jobs, by which they are found again."""
    return f"parslfl:{logs.resolve()}"


def labelled(comment: str, clusters: str = "", timeout: float = 30) -> list[str] | None:
    """This user's jobs with this comment that are alive, by id; None if Slurm did not answer."""
    answer = ask(["squeue", *_on(clusters), "-h", "-u", str(os.getuid()), "-o", _JOB], timeout)
    if answer.code:
        return None
    return [job.id for job in read_jobs(answer.out) if job.comment == comment and job.alive]


def cancel_labelled(comment: str, clusters: str = "", timeout: float = 30) -> list[str]:
    """Cancel this user's jobs with this comment; the ids of those that were alive."""
    ids = labelled(comment, clusters, timeout) or []
    if ids:
        cancel(ids, clusters, timeout)
    return ids


def cancel(ids: Sequence[str], clusters: str = "", timeout: float = 30) -> bool:
    """Whether Slurm accepted to end these jobs; a busy controller is asked three times."""
    for pause in (1, 3, 0):
        answer = ask(["scancel", *_on(clusters), *ids], timeout)
        if not answer.code or "Invalid job id" in answer.err:  # gone already
            return True
        time.sleep(pause)
    return False


def _on(clusters: str) -> list[str]:
    return [f"--clusters={clusters}"] if clusters else []


def _job(*row: str) -> Job:
    number, state, reason, start, left, limit, where, comment = row
    return Job(
        id=number,
        state=state,
        reason=_text(reason),
        starts=_moment(start),
        left=_left(left),
        limit=_text(limit),
        nodes=_where(where),
        comment=_text(comment),
    )


def _ended(number: str, said: str, where: str, limit: str) -> Job:
    state, _, by = said.partition(" ")
    return Job(number, state, by, nodes=_where(where), limit=_text(limit))


def _text(value: str) -> str:
    return "" if value in _NOTHING else value


def _where(value: str) -> str:
    return "" if value == "None assigned" else _text(value)


def _moment(value: str) -> float | None:
    try:
        return time.mktime(time.strptime(value, "%Y-%m-%dT%H:%M:%S"))
    except ValueError:  # N/A: the scheduler has not planned it yet
        return None


def _left(value: str) -> float | None:
    try:
        found = seconds(value)
    except ValueError:  # UNLIMITED, INVALID, NOT_SET
        return None
    return found if isinstance(found, float) else None
