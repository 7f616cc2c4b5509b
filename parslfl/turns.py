"""Tasks of one site that go out as its workers need them, because each carries the whole model.

Parsl serializes a task as soon as it can run, and its interchange holds it until a worker takes it: all
of a round's would be in memory at once.

Does not know: Parsl's graph, or what the tasks do.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from parslfl.closing import Closing
from parslfl.messages import Outcome, TrainTask

#: Tasks under way for each worker: the next one is there when it has done one.
AHEAD = 2


class Turns:
    """Gives `tasks` to `send` in their order, so that at most `window` are sent and not done.

    `closing` hears of what became of each before the next one goes, and those whose clients it no longer
    waits for never go: they would train for nothing, and the next round would wait for them.
    """

    def __init__(
        self,
        tasks: Sequence[TrainTask],
        window: int,
        send: Callable[[TrainTask], Future[Outcome]],
        closing: Closing,
    ) -> None:
        self._left, self._free = deque(tasks), window
        self._send, self._closing = send, closing
        self._lock = threading.Lock()
        self._sending = False
        self._unserved: BaseException | None = None

    def begin(self) -> None:
        """Send the first ones; the others follow from the callbacks of those before them."""
        self._go_on()

    def _done(self, future: Future[Outcome]) -> None:
        error = future.exception()
        if error is not None and _nobody_came(error):
            self._unserved = error
        with self._lock:
            self._free += 1
        self._go_on()

    def _go_on(self) -> None:
        """Send what there is room for, from one thread at a time, which keeps the order. It is a loop: tasks
        of an executor that has failed are done before they are sent, one within the other.
        """
        with self._lock:
            if self._sending:  # who sends looks again before it stops
                return
            self._sending = True
        while (task := self._next()) is not None:
            future = self._sent(task)
            if future is not None:
                self._closing.follow(task.client, future)
                future.add_done_callback(self._done)

    def _next(self) -> TrainTask | None:
        with self._lock:
            while self._left and self._free:
                task = self._left.popleft()
                if self._closing.awaits(task.client):
                    self._free -= 1
                    return task
            self._sending = False
            return None

    def _sent(self, task: TrainTask) -> Future[Outcome] | None:
        """What `task` will come to; None if the run ended meanwhile."""
        lost: Future[Outcome] = Future()
        if self._unserved is not None:
            # sent at the same time, it had been given up with that one; now it would wait as long again
            lost.set_exception(self._unserved)
            return lost
        try:
            return self._send(task)
        except Exception as error:  # noqa: BLE001 - Parsl calls this: the client would never settle
            lost.set_exception(error)
            return lost if self._closing.awaits(task.client) else None


def _nobody_came(error: BaseException) -> bool:
    from parslfl_executors.htex import NoWorkersError

    return isinstance(error, NoWorkersError)
