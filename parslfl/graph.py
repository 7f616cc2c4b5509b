"""A round as a graph of Parsl apps: `train` per client, chains of `merge`, one `finish`.

Nothing is waited for while the graph is built. Parsl lets one failed task fail everything that
depends on it; a `Closing` stands between the train apps and the merges and turns lost and late
clients into `Failure` values, so that the graph always runs to its end.

Does not know: which clients to choose, or what becomes of the new model.
"""

from __future__ import annotations

import logging
import pickle
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cloudpickle
from parsl.dataflow.dflow import DataFlowKernel
from parsl.dataflow.errors import PropagatedException
from parsl.dataflow.futures import AppFuture

from parslfl import merging, tasks
from parslfl.errors import ParslflError, RunError
from parslfl.merging import Folding
from parslfl.messages import Client, Failure, Outcome, RoundPlan, TrainTask, Update

logger = logging.getLogger(__name__)

#: Label of the thread executor for the driver's own work.
DRIVER = "driver"
#: Updates folded by one merge app: fewer apps than clients, yet folding starts early.
_GROUP = 4
#: Chains of merges. Two cores fold twice as fast; more would only hold more memory. A constant,
#: because the order of summation, and so the result's bits, depends on it.
_LANES = 2

Settled = Future[Outcome]


class Closing:
    """The moment a round stops waiting: all settled, enough updates, or the deadline.

    Gives one `Settled` future a client, which always gets a value. `on_settled` hears each
    outcome once, and `on_surplus` each update that came when its client was already counted
    out; both may be called from any thread. `waiting` says why a site's tasks do not run, or "".
    """

    def __init__(
        self,
        plan: RoundPlan,
        on_settled: Callable[[Outcome], None],
        on_surplus: Callable[[Update], None],
        on_closed: Callable[[], None],
        waiting: Callable[[str], str] = lambda _site: "",
    ) -> None:
        self.plan = plan
        self.settled: dict[Client, Settled] = {a.client: Future() for a in plan.cohort}
        self._heard, self._surplus, self._closed = on_settled, on_surplus, on_closed
        self._waiting = waiting
        self._lock = threading.Lock()
        self._updates = 0
        self._timer: threading.Timer | None = None

    def watch(self, futures: Mapping[Client, Future[Outcome]]) -> None:
        """Settle each client when its train future is done; start the deadline's clock."""
        if self.plan.deadline is not None:
            why = f"not in when the deadline of {self.plan.deadline:g} s passed"
            self._timer = threading.Timer(self.plan.deadline, self.close, args=[why])
            self._timer.daemon = True
            self._timer.start()
        for client, future in futures.items():
            future.add_done_callback(partial(self._arrived, client))

    def close(self, why: str) -> None:
        """Count out every client that has not settled."""
        waiting = [client for client, settled in self.settled.items() if not settled.done()]
        queues = {site: self._queue(site) for site in {client.site for client in waiting}}
        for client in waiting:
            reason = "; ".join(filter(None, [why, queues[client.site]]))
            self._settle(Failure(client, self.plan.round, "late", reason))
        if waiting:
            _tell(self._closed)

    def _queue(self, site: str) -> str:
        try:
            return self._waiting(site)
        except Exception:  # a scheduler that does not answer must not keep the round open
            logger.exception("%s cannot say why its tasks wait", site)
            return ""

    def cancel(self) -> None:
        """Stop the clock: the run is ending."""
        if self._timer is not None:
            self._timer.cancel()

    def _arrived(self, client: Client, done: Future[Outcome]) -> None:
        error = done.exception()
        if error is not None:
            self._settle(Failure(client, self.plan.round, "lost", lost(error)))
            return
        outcome = done.result()
        if not isinstance(outcome, Update | Failure) or (outcome.client, outcome.round) != (
            client,
            self.plan.round,
        ):
            outcome = Failure(client, self.plan.round, "refused", "the worker answered for another task")
        if not self._settle(outcome) and isinstance(outcome, Update):
            _tell(self._surplus, outcome)
        if self._updates >= self.plan.close_at:
            self.close(f"not among the fastest {self.plan.close_at}")

    def _settle(self, outcome: Outcome) -> bool:
        """Give the client its outcome, if it has none yet; whether it had none."""
        with self._lock:
            settled = self.settled[outcome.client]
            counts = isinstance(outcome, Update)
            if settled.done() or (counts and self._updates >= self.plan.close_at):
                return False
            self._updates += counts
            last = sum(not s.done() for s in self.settled.values()) == 1
            settled.set_running_or_notify_cancel()
        if last:
            self.cancel()
        _tell(self._heard, outcome)
        settled.set_result(outcome)
        return True


def _tell(listener: Callable[..., None], *args: object) -> None:
    """A listener's mistake must not keep a round from closing: it is logged."""
    try:
        listener(*args)
    except Exception:
        logger.exception("a listener failed; the round goes on")


def lost(error: BaseException) -> str:
    """Why Parsl gave up on a task, in one line: the first cause, not what followed from it; what
    its scheduler says of the block comes first.
    """
    while isinstance(error, PropagatedException):
        error = error.dependent_exceptions_tids[0][0]
    said = [" ".join(note.split()) for note in getattr(error, "__notes__", [])]
    return "; ".join([*said, tasks.reason(error)])


@dataclass(frozen=True)
class Flight:
    """A round that is under way. `tasks`: whose training each of Parsl's task numbers is; `began`: seconds
    since the epoch."""

    plan: RoundPlan
    finished: Future[merging.Finished]
    closing: Closing
    tasks: Mapping[int, Client]
    began: float

    def result(self) -> merging.Finished:
        """Wait for the round's end.

        Raises:
            QuorumError: too few updates.
            RunError: merging failed: a strategy's mistake, or a full disk.
        """
        try:
            return self.finished.result()
        except ParslflError:
            raise
        except Exception as error:
            raise RunError(f"round {self.plan.round + 1} could not be merged: {lost(error)}") from error


@dataclass(frozen=True)
class Round:
    """All that is needed to submit a round."""

    plan: RoundPlan
    train_tasks: Sequence[TrainTask]
    folding: Folding
    model_path: Path
    state_path: Path
    spare: Path | None


def submit_round(kernel: DataFlowKernel, job: Round, closing: Closing) -> Flight:
    """Put the whole round's graph into `kernel` and return at once."""
    began = time.time()
    futures = {t.client: submit(kernel, t.client.site, tasks.train, t) for t in job.train_tasks}
    closing.watch(futures)
    waiting = [closing.settled[a.client] for a in job.plan.cohort]
    groups = _groups(waiting)
    chains: list[Any] = [None] * (1 + max(lane for lane, _ in groups))
    for lane, group in groups:
        chains[lane] = submit(kernel, DRIVER, merging.merge, job.folding, lane, chains[lane], *group)
    finished = submit(
        kernel,
        DRIVER,
        merging.finish,
        job.folding,
        job.plan,
        job.model_path,
        job.state_path,
        job.spare,
        *chains,
    )
    return Flight(job.plan, finished, closing, {future.tid: c for c, future in futures.items()}, began)


def _groups(waiting: Sequence[Settled]) -> list[tuple[int, Sequence[Settled]]]:
    """(lane, clients to fold in one app), in cohort order; all but the last groups are of `_GROUP`.

    The last are taken apart: a group waits for its slowest client, and at the end of a round
    nothing else is left to do meanwhile. Which lane a client is in stays the same.
    """
    whole = [(i // _GROUP % _LANES, waiting[i : i + _GROUP]) for i in range(0, len(waiting), _GROUP)]
    alone = [(lane, [one]) for lane, group in whole[-_LANES:] for one in group]
    return [*whole[:-_LANES], *alone]


def submit(kernel: DataFlowKernel, label: str, function: Callable[..., Any], *args: object) -> AppFuture:
    """Run plain `function` on the executor `label`. Undecorated, so Parsl ships its name only.

    What a user's script or notebook defines cannot be imported by a worker: it goes by value.
    """
    if label != DRIVER and _only_here(args):
        function, args = tasks.by_value, (cloudpickle.dumps((function, args)),)
    future: AppFuture = kernel.submit(
        function, app_args=args, executors=[label], cache=False, ignore_for_cache=[], app_kwargs={}
    )
    return future


def _only_here(args: tuple[object, ...]) -> bool:
    """Whether `args` hold anything that only this process's main module, or a function, defines."""
    try:
        return b"__main__" in pickle.dumps(args)
    except (pickle.PicklingError, AttributeError, TypeError):
        return True
