"""A round as a graph of Parsl apps: `train` per client, chains of `merge`, one `finish`.

All are submitted at once, but for `train` tasks that carry the model: they go in `turns`.
A site may merge its own clients' updates: then its sum comes into the first chain, after all updates.

Nothing is waited for while the graph is built. Parsl lets one failed task fail everything that
depends on it; a `Closing` stands between the train apps and the merges and turns lost and late
clients into `Failure` values, so that the graph always runs to its end.

Does not know: which clients to choose, or what becomes of the new model.
"""

from __future__ import annotations

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
from parsl.dataflow.futures import AppFuture

from parslfl import tasks
from parslfl.closing import Closing, Settled, lost
from parslfl.errors import ParslflError, RunError
from parslfl.folding import finishing, merging, partials
from parslfl.folding.folding import Folding
from parslfl.folding.partials import Partial, discard_partial
from parslfl.folding.receiving import discard
from parslfl.gathering import Gathering
from parslfl.messages import (
    Client,
    MergeTask,
    RanksTask,
    RoundPlan,
    TrainTask,
    Update,
)
from parslfl.mpi import job as mpi_job
from parslfl.transport.inline import Inline
from parslfl.turns import AHEAD, Turns

#: Label of the thread executor for the driver's own work.
DRIVER = "driver"
#: Updates folded by one merge app: fewer apps than clients, yet folding starts early.
_GROUP = 4
#: Parsl numbers tasks without a lock, and callbacks submit some while the graph is built, or within it.
_SUBMITTING = threading.RLock()


@dataclass(frozen=True)
class Flight:
    """A round that is under way. `tasks`: whose training each of Parsl's task numbers is, as far as they have
    been sent; `began`: seconds since the epoch."""

    plan: RoundPlan
    finished: Future[finishing.Finished]
    closing: Closing
    tasks: Mapping[int, Client]
    began: float
    gatherings: tuple[Gathering, ...] = ()

    def cancel(self) -> None:
        """Stop every clock: the run is ending, or the round is over."""
        self.closing.cancel()
        for gathering in self.gatherings:
            gathering.cancel()

    def result(self) -> finishing.Finished:
        """Wait for the round's end.

        Raises:
            QuorumError: too few updates.
            RunError: merging failed: a strategy's mistake, or a full disk.
        """
        try:
            return self.finished.result()
        except RunError as error:
            raise RunError(f"round {self.plan.round + 1} could not be merged: {error}") from error
        except ParslflError:
            raise
        except Exception as error:
            raise RunError(f"round {self.plan.round + 1} could not be merged: {lost(error)}") from error


@dataclass(frozen=True)
class Round:
    """All that is needed to submit a round; `merge_tasks` of the sites that merge, in site order,
    `ranks_tasks` of those among them that train in the same job."""

    plan: RoundPlan
    train_tasks: Sequence[TrainTask]
    merge_tasks: Sequence[MergeTask]
    ranks_tasks: Sequence[RanksTask]
    folding: Folding
    model_path: Path
    state_path: Path
    spare: Path | None


def submit_round(kernel: DataFlowKernel, job: Round, closing: Closing) -> Flight:
    """Put the round's graph into `kernel` and return at once; what carries the model follows in its turn."""
    began = time.time()
    tids: dict[int, Client] = {}
    riding, send = _riding(job.train_tasks), partial(_train, kernel, tids)
    closing.watch({t.client: send(t) for t in job.train_tasks if t.client.site not in riding})
    for site, own in riding.items():
        Turns(own, AHEAD * _most_workers(kernel, site), send, closing).begin()
    jobs = {t.site: submit(kernel, t.site, mpi_job.run_site, t) for t in job.ranks_tasks}
    for ranks_task in job.ranks_tasks:
        closing.watch_job(ranks_task, jobs[ranks_task.site], partial(_tidy, job, ranks_task.site))
    gatherings = tuple(_gathering(kernel, job, task, jobs.get(task.site)) for task in job.merge_tasks)
    chains: dict[int, Any] = {}
    apart = {task.site for task in job.merge_tasks}
    waiting = [closing.settled[a.client] for a in job.plan.cohort if a.client.site not in apart]
    groups = _groups(waiting, job.folding.lanes)
    ends = {lane: number for number, (lane, _) in enumerate(groups)}
    for number, (lane, group) in enumerate(groups):
        fold = merging.merge if number == ends[lane] else merging.merge_on
        chains[lane] = submit(kernel, DRIVER, fold, job.folding, lane, chains.get(lane), *group)
    for task, gathering in zip(job.merge_tasks, gatherings, strict=True):
        gathering.watch([s for client, s in closing.settled.items() if client.site == task.site])
        chains[0] = submit(
            kernel, DRIVER, partials.fold_partial, job.folding, 0, chains.get(0), gathering.landed
        )
    finished = submit(
        kernel,
        DRIVER,
        finishing.finish,
        job.folding,
        job.plan,
        job.model_path,
        job.state_path,
        job.spare,
        *(chains[lane] for lane in sorted(chains)),
    )
    return Flight(job.plan, finished, closing, tids, began, gatherings)


def _train(kernel: DataFlowKernel, tids: dict[int, Client], task: TrainTask) -> AppFuture:
    future = submit(kernel, task.client.site, tasks.train, task)
    tids[future.tid] = task.client
    if isinstance(task.transport, Inline):
        future.add_done_callback(_let_go)
    return future


def _let_go(done: Any) -> None:
    """Parsl keeps tasks until Python's cycle collector runs; those sent by value have a model each."""
    done.task_record["args"] = ()


def _riding(train_tasks: Sequence[TrainTask]) -> dict[str, list[TrainTask]]:
    """Those that carry the model, by site."""
    found: dict[str, list[TrainTask]] = {}
    for task in train_tasks:
        if isinstance(task.transport, Inline):
            found.setdefault(task.client.site, []).append(task)
    return found


def _most_workers(kernel: DataFlowKernel, site: str) -> int:
    """Workers that `site` can have at once, with all its blocks."""
    executor: Any = kernel.executors[site]
    return int(executor.most_workers)


def _gathering(
    kernel: DataFlowKernel, job: Round, task: MergeTask, made: Future[Partial] | None
) -> Gathering:
    """For a site that merges; `made`: its sum, where it comes with its clients' outcomes."""
    tidy = partial(_tidy, job, task.site)
    return Gathering(
        task.site,
        task.round,
        ask=lambda outcomes: made or submit(kernel, task.site, partials.merge_site, task, *outcomes),
        why=lost,
        done=tidy,
        surplus=tidy,
        bounded=job.plan.deadline is not None,
    )


def _tidy(job: Round, site: str, useless: Update | Partial) -> None:
    """Forget the bytes of what is no longer needed."""
    transport = job.folding.transports[site]
    if isinstance(useless, Update):
        discard(useless, transport)
    elif isinstance(useless, Partial):
        discard_partial(useless, transport)


def _groups(waiting: Sequence[Settled], lanes: int) -> list[tuple[int, Sequence[Settled]]]:
    """(lane, clients to fold in one app), in cohort order; all but the last groups are of `_GROUP`.

    The last are taken apart: a group waits for its slowest client, and at the end of a round
    nothing else is left to do meanwhile. Which lane a client is in stays the same.
    """
    whole = [(i // _GROUP % lanes, waiting[i : i + _GROUP]) for i in range(0, len(waiting), _GROUP)]
    alone = [(lane, [one]) for lane, group in whole[-lanes:] for one in group]
    return [*whole[:-lanes], *alone]


def submit(kernel: DataFlowKernel, label: str, function: Callable[..., Any], *args: object) -> AppFuture:
    """Run plain `function` on the executor `label`. Undecorated, so Parsl ships its name only.

    What a user's script or notebook defines cannot be imported by a worker: it goes by value.
    """
    if label != DRIVER and _only_here(args):
        function, args = tasks.by_value, (cloudpickle.dumps((function, args)),)
    with _SUBMITTING:
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
