"""One rank of a site's MPI job: broadcast the model, train clients, reduce their updates to one sum.

    mpiexec -n 4 python -m parslfl.mpi.ranks    (started by `job`, which sends the task to rank 0's stdin)

Rank r of n trains the clients r, r + n, r + 2n, ... of the site's cohort and folds them in that order, or all
ranks train each client together (`team`). Every client goes through the same code as on any other site,
only that its update stays in memory. The sums are added by MPI_Reduce, in place, whose order of additions MPI
wants fixed for a fixed number of ranks: the same ranks give the same bits, whichever is done first.

Does not know: who started the job, or how.
"""

from __future__ import annotations

import os
import struct
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import IO, Any

import cloudpickle
import numpy as np

from parslfl.codecs import wire
from parslfl.downlink import Received, receive
from parslfl.errors import RunError
from parslfl.folding.desk import Desk
from parslfl.folding.folding import Folding
from parslfl.folding.merging import Merged, merge
from parslfl.folding.partials import Partial, stored, width
from parslfl.messages import ModelRef, Outcome, RanksTask, Ref, Update
from parslfl.models.torch_model import TorchModel
from parslfl.mpi.team import Together, require_same
from parslfl.params import Array
from parslfl.protocols import Buffer, Transport
from parslfl.tasks import reason, stopper, train

#: What stands before the task on stdin: its length in bytes.
LENGTH = struct.Struct("<Q")
#: What stands before the answer on stdout, where a launcher may say something too.
ANSWER = b"parslfl answers: "
#: Seconds that a launcher gets to pass a rank's last words on: it drops them once the job is aborted.
_HEARD = 0.5
#: Seconds that MPI gets to end all ranks.
_ABORTED = 5.0
#: How a line on stderr begins that says why a rank gave up.
SAYS = "parslfl rank"


@dataclass(frozen=True, eq=False)
class Aboard:
    """The site's transport for one job: what was `broadcast`, and updates that stay in memory.

    `deaf`: it does not hear that the round was closed, which ranks would not hear at once.
    """

    site: Transport
    broadcast: tuple[tuple[Ref, memoryview], ...]
    deaf: bool = False

    def put(self, name: str, buffers: Sequence[Buffer], checksum: str) -> Ref:
        data = b"".join(buffers)
        return Ref(len(data), checksum, data=data)

    def get(self, ref: Ref) -> memoryview:
        for here, data in self.broadcast:
            if ref == here:
                return data
        return self.site.get(ref) if ref.path else memoryview(ref.data)

    def drop(self, ref: Ref) -> None:
        """Nothing is stored, so there is nothing to forget."""

    def has(self, name: str) -> bool:
        return not self.deaf and self.site.has(name)


def work(comm: Any, task: RanksTask) -> Partial | None:
    """Do this rank's share of `task`; rank 0 of `comm` returns the site's partial.

    Raises:
        PayloadError: the model cannot be read.
        RunError: there are more or fewer ranks than were asked for.
    """
    started = time.monotonic()
    _require_all(comm, task.ranks)
    came, apart = _broadcast_model(comm, task), isinstance(task.start, ModelRef)
    task = _with_plain_start(task)
    aboard = Aboard(task.transport, ((task.start, came.data), *_broadcast_shared(comm, task)))
    like, _ = wire.unpack(came.data, task.start.checksum)
    codecs = {given.client: given.codec for given in task.trains}
    works = {given.client: given.work for given in task.trains}
    desk = Desk(like=like)
    folding = Folding(task.strategy, codecs, {task.site: aboard}, desk, started, works, len(works))
    note = merge(folding, 0, None)
    for outcome in _together(comm, task, aboard) if task.together else _apart(comm, task, aboard):
        note = merge(folding, 0, note, _told(outcome, came, task.start, apart))
    wanted = max(comm.allgather(width(note, task.strategy)))  # a rank may have nothing to add
    sums = [desk.sums(0, scale) for scale in range(wanted)]
    for array in (array for one in sums for array in one.values()):
        _reduce(comm, array)
    notes = comm.gather(note)
    if notes is None:
        return None
    partial = stored(task.site, task.round, _joined(notes), sums, task.transport)
    return replace(partial, seconds=time.monotonic() - started)


def _require_all(comm: Any, wanted: int) -> None:
    """Other ranks than the run's would add in another order, to other bits; no launcher says so."""
    if comm.size != wanted:
        raise RunError(
            f"asked for {wanted} ranks, the launcher started {comm.size}: write {{ranks}} in "
            "executor.launcher, and use the launcher of the MPI that mpi4py was built for"
        )


def _apart(comm: Any, task: RanksTask, aboard: Aboard) -> Iterator[Outcome]:
    """This rank's clients, one after the other."""
    for given in task.trains[comm.rank :: comm.size]:
        yield train(replace(given, transport=aboard))


def _together(comm: Any, task: RanksTask, aboard: Aboard) -> Iterator[Outcome]:
    """Every client, trained by all ranks; rank 0 has its update."""
    for given in task.trains:
        assert isinstance(given.model, TorchModel)  # `experiment.check` has seen to it
        model = Together(given.model, comm, stopper(replace(given, transport=aboard)))
        deaf = replace(aboard, deaf=True)
        outcome = require_same(train(replace(given, model=model, transport=deaf, stop_at=None)))
        if comm.rank == 0:
            yield outcome


def _broadcast_model(comm: Any, task: RanksTask) -> Received:
    """The model, read once at the site and given to every rank."""
    found = receive(task.transport, task.start) if comm.rank == 0 else None
    came, notes = comm.bcast(found and (found.came, found.notes))
    return Received(_broadcast(comm, found.data if found else None), came, notes)


def _broadcast_shared(comm: Any, task: RanksTask) -> Iterator[tuple[Ref, memoryview]]:
    """What the strategy's server shares with its clients, the same."""
    for ref in {given.shared.checksum: given.shared for given in task.trains if given.shared}.values():
        yield ref, _broadcast(comm, task.transport.get(ref) if comm.rank == 0 else None)


def _broadcast(comm: Any, data: memoryview | None) -> memoryview:
    """What rank 0 has, on every rank."""
    from mpi4py import MPI

    buffer = np.empty(comm.bcast(data and len(data)), np.uint8)
    if data is not None:
        buffer[:] = np.frombuffer(data, np.uint8)  # MPI wants memory that it may write
    comm.Bcast([buffer, MPI.BYTE])
    return buffer.data.toreadonly()


def _with_plain_start(task: RanksTask) -> RanksTask:
    """`task` with a model that is here whole, whatever it was made of."""
    start = Ref(task.start.size, task.start.checksum, task.start.path, task.start.data)
    return replace(task, start=start, trains=tuple(replace(one, start=start) for one in task.trains))


def _told(outcome: Outcome, came: Received, start: Ref, raw: bool) -> Outcome:
    """`outcome`, with what its site's model took to come."""
    if not isinstance(outcome, Update):
        return outcome
    down = outcome.bytes_down - start.size + came.came
    whole = outcome.bytes_down if raw else 0
    return replace(outcome, bytes_down=down, raw_down=whole, notes=(*came.notes, *outcome.notes))


def _reduce(comm: Any, array: Array) -> None:
    """Add the ranks' arrays up into that of rank 0."""
    from mpi4py import MPI

    if comm.rank == 0:
        comm.Reduce(MPI.IN_PLACE, array)
    else:
        comm.Reduce(array, None)


def _joined(notes: Sequence[Merged]) -> Merged:
    """What all ranks merged, in cohort order."""
    pairs = [pair for note in notes for pair in zip(note.updates, note.evidence, strict=True)]
    pairs.sort(key=lambda pair: pair[0].client)
    return Merged(
        weight=sum(note.weight for note in notes),
        updates=tuple(update for update, _ in pairs),
        failures=tuple(sorted((f for note in notes for f in note.failures), key=lambda f: f.client)),
        evidence=tuple(evidence for _, evidence in pairs),
    )


def main() -> None:
    """Run this process's rank. Whatever goes wrong in one ends all: none waits for it for ever."""
    with _own_stdout() as answer:
        from mpi4py import MPI

        comm = MPI.COMM_WORLD
        try:
            payload = comm.bcast(_payload(comm) if comm.rank == 0 else None)
            task: RanksTask = cloudpickle.loads(payload)
            _take_device(comm, task.accelerators)
            partial = work(comm, task)
        except BaseException as error:
            print(f"{SAYS} {comm.rank}: {reason(error)}", file=sys.stderr, flush=True)  # noqa: T201
            time.sleep(_HEARD)
            comm.Abort(1)
            raise
        if partial is not None:
            answer.write(ANSWER + cloudpickle.dumps(partial))


@contextmanager
def _own_stdout() -> Iterator[IO[bytes]]:
    """This process's stdout for the answer alone: what anybody prints goes to stderr."""
    with os.fdopen(os.dup(1), "wb") as answer:
        os.dup2(2, 1)
        yield answer


def _payload(comm: Any) -> bytes:
    """The task that was sent to stdin. Its sender keeps stdin open: once it is gone, so is this job."""
    (length,) = LENGTH.unpack(sys.stdin.buffer.read(LENGTH.size))
    payload = sys.stdin.buffer.read(length)

    def watch() -> None:
        os.read(0, 1)
        threading.Timer(_ABORTED, os._exit, [1]).start()
        comm.Abort(1)  # a launcher may overlook a rank that only ends: the others would wait for it for ever

    threading.Thread(target=watch, daemon=True).start()
    return payload


def _take_device(comm: Any, names: Sequence[str]) -> None:
    """Give each rank of a node an accelerator of its own; more ranks than those share."""
    from mpi4py import MPI

    if names:
        beside = comm.Split_type(MPI.COMM_TYPE_SHARED)
        os.environ["CUDA_VISIBLE_DEVICES"] = names[beside.rank % len(names)]


if __name__ == "__main__":
    main()
