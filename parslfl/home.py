"""The place that makes the first model and scores every later one: a site, or the driver; where data is.

Does not know: rounds, other than by number, or how clients train.
"""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any

from parsl.dataflow.dflow import DataFlowKernel

from parslfl import closing, graph, tasks
from parslfl.data.folder import resolve_folder
from parslfl.errors import ParslflError, RunError
from parslfl.experiment import Experiment
from parslfl.learning import Scores
from parslfl.messages import EvaluateTask, InitTask, Ref, Source
from parslfl.params import Params
from parslfl.protocols import Transport
from parslfl.seeding import derive
from parslfl.sites import Federation, local_folders


def home_name(federation: Federation, experiment: Experiment) -> str:
    """As the experiment says; else the first site on this machine; else the driver."""
    local = [site.name for site in federation.sites if site.executor.kind == "local"]
    return experiment.evaluate_on or (local[0] if local else graph.DRIVER)


def data_folders(federation: Federation, experiment: Experiment) -> dict[str, str]:
    """Each place's data folder; on this machine, the data is made to be there."""
    default = resolve_folder(experiment.data_dir)
    here = local_folders(federation, default)
    if home_name(federation, experiment) == graph.DRIVER:
        here[graph.DRIVER] = default
    for folder in here.values():
        if not experiment.dataset.available(folder):
            experiment.dataset.fetch(folder)
    return {graph.DRIVER: str(default), **{s.name: s.data or str(default) for s in federation.sites}}


@dataclass(frozen=True)
class Home:
    """Where `name` is, how to reach it, its data folder, and CPU threads for one task there.

    `transport` is the driver's end, `there` the worker's.
    """

    name: str
    kernel: DataFlowKernel
    experiment: Experiment
    folder: str
    transport: Transport
    there: Transport
    threads: int

    def begin(self, source: Source) -> Future[Ref]:
        """Begin to make the model of round 0, once `source` is found to suffice for its clients."""
        e = self.experiment
        task = InitTask(e.model, e.dataset.shape, e.dataset.classes, derive(e.seed, "init"), self.there)
        return graph.submit(self.kernel, self.name, tasks.init, task, source)

    def first(self, made: Future[Ref]) -> Params:
        """The model that `begin` makes.

        Raises:
            DataError: the data is missing or too little for its clients.
            RunError: the place could not do it.
        """
        try:
            ref = made.result()
        except ParslflError:
            raise
        except Exception as error:
            raise RunError(f"{self.name} could not make the first model: {closing.lost(error)}") from error
        params = {name: array.copy() for name, array in tasks.read_model(self.transport, ref).items()}
        self.transport.drop(ref)
        return params

    def evaluate(self, round: int, model: Ref) -> Future[Scores | str]:
        """Begin to score the model that `round` made, on the central test set."""
        e = self.experiment
        task = EvaluateTask(
            round=round,
            model=e.model,
            dataset=e.dataset,
            folder=self.folder,
            work=replace(e.work(), threads=self.threads),
            model_ref=model,
            transport=self.there,
        )
        return graph.submit(self.kernel, self.name, tasks.evaluate, task)


def scored(scores: Future[Scores | str], patience: float | None) -> dict[str, Any]:
    """Wait for an evaluation, at most `patience` seconds: the fields of a `RoundReport` that it fills."""
    try:
        found = scores.result(patience)
    except TimeoutError:
        found = f"given up after {patience:g} s"
    except Exception as error:  # noqa: BLE001 - whatever Parsl raises when a worker dies twice
        found = closing.lost(error)
    if isinstance(found, str):
        return {"evaluation_error": found}
    return {"accuracy": found.accuracy, "test_loss": found.loss}
