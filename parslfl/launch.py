"""Start and stop a run's processes: one Parsl executor a site, and threads for the driver.

Every run has a DataFlowKernel of its own, never Parsl's global one, so runs live side by side
and in notebooks. Leaving `kernel` stops everything that entering it started.

Does not know: rounds, models or data.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

from parsl.config import Config
from parsl.dataflow.dflow import DataFlowKernel
from parsl.executors import ThreadPoolExecutor

from parslfl.errors import RunError
from parslfl_executors.fields import Unusable
from parslfl_executors.signals import SiteSignals

if TYPE_CHECKING:
    from parslfl_executors.htex import Pool

T = TypeVar("T")

#: Threads for merges; the sums are walked by numpy, which lets go of the interpreter's lock.
_DRIVER_THREADS = 2
#: Seconds between two looks of Parsl at its blocks: it also starts the first block only then.
_STRATEGY_PERIOD = 0.5


class Place(Protocol):
    """A site as this module sees it."""

    @property
    def name(self) -> str: ...
    @property
    def retries(self) -> int: ...
    @property
    def executor(self) -> Any: ...


@contextlib.contextmanager
def kernel(places: Sequence[Place], driver: str, logs: Path) -> Iterator[DataFlowKernel]:
    """A running kernel with an executor a place and a thread executor called `driver`.

    Raises:
        RunError: a place cannot be used from here.
    """
    from parslfl_executors.htex import NoWorkersError, lost

    retries = {place.name: place.retries for place in places}

    def cost(error: Exception, record: Any) -> float:
        """Parsl gives up on a task once its failures cost more than 1. Here the cause is at hand."""
        place = record["executor"]
        allowed = retries.get(place, 0)
        over = isinstance(error, NoWorkersError) and error.final
        price = 2.0 if over or not allowed else 0.999 / allowed  # a sum of 1/n may come out above 1
        if place in built:
            lost(built[place], error, record["id"], record["fail_cost"] + price <= 1)
        return price

    # Parsl logs every task at length otherwise, and repr()s every argument to do it
    logging.getLogger("parsl").setLevel(logging.WARNING)
    built = {place.name: _built(place, logs) for place in places}
    config = Config(
        executors=[*built.values(), ThreadPoolExecutor(label=driver, max_threads=_DRIVER_THREADS)],
        retries=1,
        retry_handler=cost,
        strategy="simple",
        strategy_period=_STRATEGY_PERIOD,
        run_dir=str(logs),
        usage_tracking=0,
        initialize_logging=False,
    )
    try:
        running, interrupted = _uninterrupted(lambda: DataFlowKernel(config))  # half of it cannot be stopped
    except Unusable as error:
        for executor in built.values():
            executor.shutdown()
        raise RunError(str(error)) from error
    try:
        if interrupted:
            raise KeyboardInterrupt
        yield running
    finally:
        _uninterrupted(lambda: _stop(running))


def waiting(running: DataFlowKernel, place: str) -> str:
    """Why the tasks of `place` are not running, where its scheduler says so; else ""."""
    from parslfl_executors.pool import waiting

    return waiting(running.executors[place])


def ledgers(running: DataFlowKernel, places: Sequence[Place]) -> dict[str, Pool]:
    """Each place's executor, which tells where its blocks' time went and what went wrong."""
    return {place.name: cast("Pool", running.executors[place.name]) for place in places}


def signals(running: DataFlowKernel, place: str) -> SiteSignals | None:
    """How `place` stands now, where its provider can tell."""
    from parslfl_executors.pool import signals

    return signals(running.executors[place])


def _built(place: Place, logs: Path) -> Any:
    try:
        return place.executor.build(place.name, logs)
    except Unusable as error:
        raise RunError(f"{place.name}: {error}") from error


def _stop(running: DataFlowKernel) -> None:
    """End all blocks, also those that Parsl does not clean up: of an executor that has failed."""
    from parslfl_executors.pool import sweep

    try:
        running.cleanup()
    finally:
        for executor in running.executors.values():
            sweep(executor)


def _uninterrupted(action: Callable[[], T]) -> tuple[T, bool]:
    """Do it to the end, even if Ctrl-C is pressed: a thread of its own is not interrupted.

    Returns what it returned, and whether Ctrl-C was pressed.
    """
    done, interrupted = Future[T](), False

    def act() -> None:
        # a terminal sends Ctrl-C to all: what starts here has no group of its own yet
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            done.set_result(action())
        except BaseException as error:  # noqa: BLE001 - raised again below
            done.set_exception(error)

    worker = threading.Thread(target=act, name="parslfl-uninterrupted")
    while not done.done():
        try:
            if worker.ident is None:
                worker.start()
            worker.join()
        except KeyboardInterrupt:
            interrupted = True
    return done.result(), interrupted
