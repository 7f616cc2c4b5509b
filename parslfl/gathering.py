"""A site's sum, asked for once the last of its clients has settled, and counted out if it does not come.

Does not know: Parsl, or how a sum is made.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Protocol

from parslfl.errors import PayloadError
from parslfl.folding.partials import Partial, agreed, nothing
from parslfl.messages import STOP_SHARE, MergeTask, Outcome, RanksTask, Ref, RoundPlan, TrainTask, Update
from parslfl.protocols import Strategy, Transport
from parslfl.sites import Federation
from parslfl_executors.mpi import Mpi

logger = logging.getLogger(__name__)

#: Seconds that a site has for its sum after its last client, in rounds with a deadline. Its workers are
#: up, since a client has just delivered; those that still train stop at their next look.
GRACE = 60.0


class There(Protocol):
    """An exchange, as this module sees it."""

    def there(self, place: str) -> Transport: ...


def merge_tasks(
    federation: Federation, plan: RoundPlan, strategy: Strategy, start: Mapping[str, Ref], exchange: There
) -> list[MergeTask]:
    """One for each site that merges and has clients in this round, in the order of the sites."""
    found = []
    for site in federation.sites:
        own = [a for a in plan.cohort if a.client.site == site.name]
        if own and site.merges():
            found.append(
                MergeTask(
                    round=plan.round,
                    site=site.name,
                    strategy=strategy,
                    codecs={a.client: a.codec for a in own},
                    works={a.client: a.work for a in own},
                    start=start[site.name],
                    transport=exchange.there(site.name),
                )
            )
    return found


def ranks_tasks(
    federation: Federation, plan: RoundPlan, strategy: Strategy, todo: Sequence[TrainTask]
) -> list[RanksTask]:
    """One for each MPI site with clients in this round; `todo` are all clients' tasks."""
    room = (1 - STOP_SHARE) * (plan.deadline or 0.0)
    found = []
    for site in federation.sites:
        own = tuple(task for task in todo if task.client.site == site.name)
        if own and isinstance(site.executor, Mpi):
            job = site.executor
            found.append(
                RanksTask(
                    round=plan.round,
                    site=site.name,
                    trains=own,
                    strategy=strategy,
                    start=own[0].start,
                    transport=own[0].transport,
                    launcher=job.command(),
                    ranks=job.ranks(),
                    accelerators=job.devices(),
                    together=job.split == "batches",
                    closes_at=own[0].stop_at and own[0].stop_at + room,
                )
            )
    return found


class Gathering:
    """Gives `landed`, which always gets a value: the site's partial, or one with failures only.

    `ask` submits the merge of the given outcomes. `why` turns what Parsl raises into a line. `done` hears
    of every update that is no longer needed, `surplus` of a partial that came too late.
    """

    def __init__(
        self,
        site: str,
        round: int,
        *,
        ask: Callable[[Sequence[Outcome]], Future[Any]],
        why: Callable[[BaseException], str],
        done: Callable[[Update], None],
        surplus: Callable[[Partial], None],
        bounded: bool,
    ) -> None:
        self.landed: Future[Partial] = Future()
        self.landed.set_running_or_notify_cancel()
        self._site, self._round = site, round
        self._ask, self._why, self._done, self._surplus = ask, why, done, surplus
        self._bounded = bounded
        self._lock = threading.Lock()
        self._over = False
        self._timer: threading.Timer | None = None

    def watch(self, settled: Sequence[Future[Outcome]]) -> None:
        """Begin once all of the site's clients, in cohort order, have `settled`."""
        left = len(settled)

        def one_more(_: Future[Outcome]) -> None:
            nonlocal left
            with self._lock:
                left -= 1
                last = left == 0
            if last:
                self._begin([future.result() for future in settled])

        for future in settled:
            future.add_done_callback(one_more)

    def cancel(self) -> None:
        """Stop the clock: the run is ending."""
        if self._timer is not None:
            self._timer.cancel()

    def _begin(self, outcomes: Sequence[Outcome]) -> None:
        if not any(isinstance(outcome, Update) for outcome in outcomes):
            self._land(outcomes, nothing(self._site, self._round, outcomes))
            return
        try:
            answer = self._ask(outcomes)
        except Exception as error:  # noqa: BLE001 - the executor has failed, or the run is ending
            self._lose(outcomes, f"its site's merge could not start: {self._why(error)}")
            return
        if self._bounded:
            late = f"its site's sum did not come within {GRACE:g} s of its last client"
            self._timer = threading.Timer(GRACE, self._lose, args=[outcomes, late])
            self._timer.daemon = True
            self._timer.start()
        answer.add_done_callback(lambda future: self._answered(outcomes, future))

    def _answered(self, outcomes: Sequence[Outcome], future: Future[Any]) -> None:
        self.cancel()
        error = future.exception()
        if error is not None:
            self._lose(outcomes, f"its site's merge was lost: {self._why(error)}")
            return
        try:
            partial = agreed(future.result(), self._site, self._round, outcomes)
        except PayloadError as wrong:
            self._lose(outcomes, f"its site's merge failed: {wrong}")
            return
        if not self._land(outcomes, partial):
            self._tell(self._surplus, partial)

    def _lose(self, outcomes: Sequence[Outcome], why: str) -> None:
        self._land(outcomes, nothing(self._site, self._round, outcomes, why))

    def _land(self, outcomes: Sequence[Outcome], partial: Partial) -> bool:
        """Give the round this partial, if it has none yet; whether it had none."""
        with self._lock:
            if self._over:
                return False
            self._over = True
        for outcome in outcomes:
            if isinstance(outcome, Update):
                self._tell(self._done, outcome)
        self.landed.set_result(partial)
        return True

    def _tell(self, listener: Callable[[Any], None], about: object) -> None:
        try:
            listener(about)
        except Exception:  # tidying up must not keep a round open
            logger.exception("the round goes on")
