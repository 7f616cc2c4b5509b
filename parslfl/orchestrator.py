"""The federated rounds of one run, from its site and experiment to its last report.

A thin loop around pure decisions: plan the round, put its graph into Parsl, journal what came
out. All that is needed to go on later is in the run directory. While a round trains, the model
of the round before is evaluated.

Does not know: schedulers, codecs, strategies or models, other than by their protocols.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field, replace
from functools import reduce
from pathlib import Path
from typing import Any

from parsl.dataflow.dflow import DataFlowKernel

from parslfl import graph, reports, tasks
from parslfl.closing import Closing
from parslfl.exchange import Exchange, open_exchange
from parslfl.experiment import Experiment
from parslfl.fitting import check, remarks, require_room
from parslfl.folding.checkpoints import Checkpoint, write
from parslfl.folding.desk import Desk
from parslfl.folding.finishing import Finished
from parslfl.folding.folding import Folding
from parslfl.folding.receiving import discard
from parslfl.folding.states import started
from parslfl.gathering import merge_tasks, ranks_tasks
from parslfl.home import Home, data_folders, home_name, scored
from parslfl.keep import note_accepted
from parslfl.launch import kernel, ledgers, waiting
from parslfl.learning import Scores
from parslfl.messages import STOP_SHARE, Assignment, Client, Ref, Source, TrainTask, Update
from parslfl.outlook import Outlook, vigil
from parslfl.planning.history import History
from parslfl.protocols import ClientSide, shares
from parslfl.reports import RoundReport
from parslfl.rundir import journal
from parslfl.rundir.runs import open_run
from parslfl.seeding import derive
from parslfl.sites import Federation, Site, state_folder
from parslfl.timesheet import Timesheet

#: Seconds that an evaluation has, once the next round is over, before it is given up.
_EVALUATION = 600.0


def rounds(
    federation: Federation,
    experiment: Experiment,
    run_dir: Path | str | None = None,
    *,
    resume: bool = False,
    watch: reports.Watch = reports.log,
) -> Generator[RoundReport]:
    """Run the experiment on the federation; yield each round's report once it is complete.

    A report comes when its model has been evaluated, while the next round already trains.
    `run_dir` defaults to a new folder in `runs/`; with `resume` the run in it goes on after its
    last finished round, to the same result as if it had never stopped. `watch` hears every
    event as it happens, from any thread; without it Python's log tells what a person might act
    on. Closing the iterator stops every process.

    Raises:
        ConfigError: federation and experiment do not fit together.
        DataError: the data set is missing or has too few samples.
        RunError: the run directory cannot be used, or the model is too large for a site's tasks.
        QuorumError: a round got too few updates; finished rounds are kept.
    """
    check(federation, experiment)
    folders = data_folders(federation, experiment)
    run = open_run(run_dir, federation, experiment, resume)
    try:
        if run.is_done(experiment.rounds):
            return
        watch(reports.RunStarted(tuple(remarks(federation, experiment))))
        exchange = open_exchange(run.path, federation.sites, experiment.downlink())
        try:
            with kernel(federation.sites, graph.DRIVER, run.path / "parsl") as running:
                sheet = Timesheet(ledgers(running, federation.sites))
                names = [site.name for site in federation.sites]
                looks = Outlook.of(run.path, running, names)
                with vigil(running, names, lambda site, why: watch(reports.SiteWaits(site, why))):
                    yield from _Run(
                        federation, experiment, run, exchange, running, folders, Desk(), sheet, watch, looks
                    ).go()
        finally:
            exchange.close()
    finally:
        run.close()


@dataclass(frozen=True)
class _Pending:
    """A finished round whose model is being evaluated, or needs not be."""

    report: RoundReport
    scores: Future[Scores | str] | None


@dataclass(frozen=True)
class _Run:
    federation: Federation
    experiment: Experiment
    run: journal.RunDir
    exchange: Exchange
    kernel: DataFlowKernel
    folders: dict[str, str]
    desk: Desk
    sheet: Timesheet
    watch: reports.Watch
    outlook: Outlook
    accepted: dict[Client, int] = field(default_factory=dict)
    shared: dict[str, Ref] = field(default_factory=dict)
    past: list[History] = field(default_factory=lambda: [History()])

    def go(self) -> Iterator[RoundReport]:
        self._remember(*journal.reports(self.run.path))
        start = self.run.checkpoint() or self._first()
        self._open(start)
        require_room(self.federation, start.path.stat().st_size)
        refs = self._publish(start, {})
        pending = self._unevaluated(refs)
        for round in range(start.round, self.experiment.rounds):
            if pending is not None and pending.scores is None:  # nothing to overlap with
                yield self._complete(pending)
                pending = None
            flight = self._launch(round, start, refs)
            try:
                if pending is not None:
                    either: list[Future[Any]] = [pending.scores or flight.finished, flight.finished]
                    wait(either, return_when=FIRST_COMPLETED)
                    yield self._complete(pending)
                finished = flight.result()
            finally:
                flight.cancel()
            report, start = self._land(flight, finished, refs)
            self._open(start)
            refs = self._publish(start, refs)
            pending = self._evaluate(report, refs)
        if pending is not None:
            yield self._complete(pending)
        self.exchange.withdraw(refs)
        self.exchange.withdraw(self.shared)

    def _home(self) -> Home:
        name = home_name(self.federation, self.experiment)
        threads = 1 if name == graph.DRIVER else self._site(name).executor.threads_per_worker()
        here, there = self.exchange.places[name], self.exchange.there(name)
        return Home(name, self.kernel, self.experiment, self.folders[name], here, there, threads)

    def _first(self) -> Checkpoint:
        """Make the model of round 0 at home, while every other worker warms up."""
        home = self._home()
        made = home.begin(self._source(home.name))
        for site in self.federation.sites:
            for _ in range(site.executor.workers_per_node() - (site.name == home.name)):
                source = self._source(site.name)
                graph.submit(self.kernel, site.name, tasks.warm, self.experiment.model, source)
        params = home.first(made)
        state = started(self.experiment.strategy, params)
        model = write(self.run.model_path(0), params)
        return self.run.at(0, model, write(self.run.state_path(0), state) if state else "")

    def _open(self, start: Checkpoint) -> None:
        """Put the next round's model on the desk, once the last one's is off it."""
        desk = self.desk
        desk.like, desk.state, desk.residual = {}, {}, {}
        desk.like, desk.state, desk.residual = start.load()

    def _publish(self, start: Checkpoint, old: dict[str, Ref]) -> dict[str, Ref]:
        """Make the model readable everywhere, and the state if clients need it, instead of the old ones."""
        self.exchange.withdraw(old)
        self.exchange.withdraw(self.shared)
        if shares(self.experiment.strategy):
            self.shared.update(self.exchange.publish_state(start))
        return self.exchange.publish(start)

    def _source(self, place: str) -> Source:
        e, n = self.experiment, len(self.federation.clients())
        return Source(e.dataset, e.partition, self.folders[place], n, derive(e.seed, "partition"))

    def _launch(self, round: int, start: Checkpoint, refs: dict[str, Ref]) -> graph.Flight:
        e, began = self.experiment, time.monotonic()
        unsent = [site.name for site in self.federation.sites if site.executor.kind == "mpi"]
        waits = self.outlook.waits(round)
        plan = e.plan(round, self.federation.clients(), waits, self.past[0], unsent)
        self.watch(reports.RoundStarted(plan))
        stop_at = time.time() + STOP_SHARE * plan.deadline if plan.deadline is not None else None
        todo = [self._task(round, a, refs[a.client.site], stop_at) for a in plan.cohort]
        jobs = ranks_tasks(self.federation, plan, e.strategy, todo)
        codecs = {a.client: a.codec for a in plan.cohort}
        job = graph.Round(
            plan=plan,
            train_tasks=[task for task in todo if task.client.site not in {job.site for job in jobs}],
            ranks_tasks=jobs,
            merge_tasks=merge_tasks(self.federation, plan, e.strategy, refs, self.exchange),
            folding=Folding(
                e.strategy,
                codecs,
                self.exchange.places,
                self.desk,
                began,
                works={a.client: a.work for a in plan.cohort},
                clients=len(self.federation.clients()),
                spill=self.run.path / "updates",
                summed=frozenset(site.name for site in self.federation.sites if site.merges()),
                downlink=self.run.outgoing(round + 1, e.downlink(), derive(e.seed, "downlink", round)),
            ),
            model_path=self.run.model_path(round + 1),
            state_path=self.run.state_path(round + 1),
            spare=self.run.model_path(round - 1) if round else None,
        )
        closing = Closing(
            plan,
            on_settled=lambda outcome: self.watch(reports.ClientSettled(outcome)),
            on_surplus=self._discard,
            on_closed=lambda: self.exchange.mark_closed(todo[0].closed),
            waiting=lambda site: waiting(self.kernel, site),
            keep=self.exchange.keep,
        )
        return graph.submit_round(self.kernel, job, closing)

    def _task(self, round: int, given: Assignment, start: Ref, stop_at: float | None) -> TrainTask:
        site, strategy = self._site(given.client.site), self.experiment.strategy
        return TrainTask(
            round=round,
            client=given.client,
            model=self.experiment.model,
            source=self._source(site.name),
            work=replace(given.work, threads=site.executor.threads_per_worker()),
            start=start,
            codec=given.codec,
            transport=self.exchange.there(site.name),
            seed=derive(self.experiment.seed, "train", round, given.client.index),
            stop_at=stop_at,
            store=(state_folder(site, self.run.path, self.run.id) or "") if self.experiment.keepers() else "",
            accepted=self.accepted.get(given.client, -1),
            strategy=strategy if isinstance(strategy, ClientSide) else None,
            shared=self.shared.get(site.name),
            error_feedback=self.experiment.feeds_back(),
        )

    def _site(self, name: str) -> Site:
        return next(site for site in self.federation.sites if site.name == name)

    def _discard(self, update: Update) -> None:
        discard(update, self.exchange.places[update.client.site])

    def _land(
        self, flight: graph.Flight, done: Finished, refs: dict[str, Ref]
    ) -> tuple[RoundReport, Checkpoint]:
        """Journal the round; its model is the next start."""
        state = {place: ref.size for place, ref in self.shared.items()}
        sent = {place: replace(ref, size=ref.size + state.get(place, 0)) for place, ref in refs.items()}
        report = self.sheet.report(flight, done, self.exchange.crossed(flight.plan, sent, done))
        self.run.finished(report, done.state, done.residual)
        self._remember(report)
        self.watch(reports.RoundClosed(report))
        self.run.forget(before=report.round)
        return report, self.run.at(report.round + 1, done.model, done.state, done.residual, done.difference)

    def _remember(self, *done: RoundReport) -> None:
        """What the next round goes by."""
        note_accepted(self.accepted, done, shares(self.experiment.strategy))
        if self.experiment.adapts():
            self.past[0] = reduce(History.after, done, self.past[0])

    def _evaluate(self, report: RoundReport, refs: dict[str, Ref]) -> _Pending:
        """Begin to score the model that `report`'s round made, if that is due."""
        every, home = self.experiment.eval_every, self._home()
        due = report.round + 1 == self.experiment.rounds or (every and (report.round + 1) % every == 0)
        return _Pending(report, home.evaluate(report.round, refs[home.name]) if due else None)

    def _complete(self, pending: _Pending) -> RoundReport:
        """Wait for the evaluation, journal it, and return the whole report."""
        patience = self._patience()
        report = replace(pending.report, **(scored(pending.scores, patience) if pending.scores else {}))
        self.run.evaluated(report)
        self.watch(reports.Evaluated(report))
        return report

    def _patience(self) -> float | None:
        """Seconds that an evaluation may hold up a run whose rounds have a deadline."""
        deadline = self.experiment.deadline
        return None if deadline is None else max(_EVALUATION, deadline)

    def _unevaluated(self, refs: dict[str, Ref]) -> _Pending | None:
        """After a resume: the last finished round, if the driver died before its evaluation."""
        done = journal.reports(self.run.path)
        if not done or done[-1].round in self.run.evaluated_rounds():
            return None
        return self._evaluate(done[-1], refs)
