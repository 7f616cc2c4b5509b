"""The moment a round stops waiting: all clients settled, enough updates, or the deadline.

Parsl lets one failed task fail everything that depends on it; here lost and late clients become
`Failure` values.

Does not know: which clients were chosen, or what is made of their updates.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from functools import partial

from parsl.dataflow.errors import PropagatedException

from parslfl import tasks
from parslfl.errors import PayloadError
from parslfl.folding import partials
from parslfl.folding.partials import Partial
from parslfl.messages import (
    Client,
    Failure,
    Outcome,
    RanksTask,
    RoundPlan,
    Update,
)

logger = logging.getLogger(__name__)

Settled = Future[Outcome]


class Closing:
    """The moment a round stops waiting: all settled, enough updates, or the deadline.

    Gives one `Settled` future a client, which always gets a value. `on_settled` hears each
    outcome once, and `on_surplus` each update that came when its client was already counted
    out; both may be called from any thread. `waiting` says why a site's tasks do not run, or "".
    `keep` hears of each update first, and gives it as it is from then on: without the bytes that came in its
    task's result, which Parsl holds on to.
    """

    def __init__(
        self,
        plan: RoundPlan,
        on_settled: Callable[[Outcome], None],
        on_surplus: Callable[[Update], None],
        on_closed: Callable[[], None],
        waiting: Callable[[str], str] = lambda _site: "",
        keep: Callable[[Update], Outcome] = lambda update: update,
    ) -> None:
        self.plan = plan
        self.settled: dict[Client, Settled] = {a.client: Future() for a in plan.cohort}
        self._heard, self._surplus, self._closed = on_settled, on_surplus, on_closed
        self._waiting, self._keep = waiting, keep
        self._lock = threading.Lock()
        self._updates = 0
        self._over = False
        self._timer: threading.Timer | None = None

    def watch(self, futures: Mapping[Client, Future[Outcome]]) -> None:
        """Settle each client when its train future is done; start the deadline's clock."""
        if self.plan.deadline is not None:
            why = f"not in when the deadline of {self.plan.deadline:g} s passed"
            self._timer = threading.Timer(self.plan.deadline, self.close, args=[why])
            self._timer.daemon = True
            self._timer.start()
        for client, future in futures.items():
            self.follow(client, future)

    def follow(self, client: Client, future: Future[Outcome]) -> None:
        """Settle `client`, whose training was sent only now, when its train future is done."""
        future.add_done_callback(partial(self._arrived, client))

    def awaits(self, client: Client) -> bool:
        """Whether the round is open, and `client` has not settled."""
        return not (self._over or _taken(self.settled[client]))

    def watch_job(
        self, task: RanksTask, answer: Future[Partial], on_surplus: Callable[[Partial], None]
    ) -> None:
        """Settle the clients of one job together: its sum holds all of its updates, or the round none."""
        answer.add_done_callback(partial(self._together, task, on_surplus))

    def close(self, why: str) -> None:
        """Count out every client that has not settled."""
        self._over = True  # schedulers may take a while to say why they wait
        waiting = [client for client, settled in self.settled.items() if not _taken(settled)]
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
        self._over = True
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
        elif isinstance(outcome, Update):
            outcome = self._kept(outcome)
        if not self._settle(outcome) and isinstance(outcome, Update):
            _tell(self._surplus, outcome)
        self._close_if_enough()

    def _kept(self, update: Update) -> Outcome:
        try:
            return self._keep(update)
        except Exception as error:  # Parsl calls this: a mistake would leave the client unsettled for good
            logger.exception("what %s sent could not be kept", update.client)
            return Failure(update.client, update.round, "refused", tasks.reason(error))

    def _together(
        self, task: RanksTask, on_surplus: Callable[[Partial], None], done: Future[Partial]
    ) -> None:
        clients, round = [train.client for train in task.trains], self.plan.round
        error, usable = done.exception(), False
        try:
            if error is not None:
                outcomes = tuple[Outcome, ...](Failure(c, round, "lost", lost(error)) for c in clients)
            else:
                outcomes = partials.reported(done.result(), task.site, round, clients)
                usable = True
        except PayloadError as wrong:
            outcomes = tuple(Failure(c, round, "refused", str(wrong)) for c in clients)
        if not (self._settle(*outcomes) and usable) and error is None:
            _tell(on_surplus, done.result())
        self._close_if_enough()

    def _close_if_enough(self) -> None:
        if self._updates >= self.plan.close_at:
            self.close(f"not among the fastest {self.plan.close_at}")

    def _settle(self, *outcomes: Outcome) -> bool:
        """Give the clients their outcomes, if none of them has one yet; whether that was so."""
        with self._lock:
            mine = [self.settled[outcome.client] for outcome in outcomes]
            updates = sum(isinstance(outcome, Update) for outcome in outcomes)
            if any(map(_taken, mine)) or (updates and self._updates >= self.plan.close_at):
                return False
            self._updates += updates
            for settled in mine:
                settled.set_running_or_notify_cancel()
            last = all(map(_taken, self.settled.values()))
        if last:
            self.cancel()
        for outcome, settled in zip(outcomes, mine, strict=True):
            _tell(self._heard, outcome)
            settled.set_result(outcome)
        return True


def _taken(settled: Settled) -> bool:
    """Whether somebody gives it its outcome, or has."""
    return settled.running() or settled.done()


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
