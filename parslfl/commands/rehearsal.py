"""A run looked at before it starts: its sites, its data, its next round, what it will send.

Starts no process and writes no file.

Does not know: Parsl.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import reduce
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from parslfl import params
from parslfl.codecs import wire
from parslfl.commands.request import Request
from parslfl.data.folder import resolve_folder
from parslfl.document import shown
from parslfl.experiment import Experiment
from parslfl.fitting import remarks, require_room
from parslfl.folding.weighing import likely_width
from parslfl.messages import RoundPlan
from parslfl.planning.history import History
from parslfl.protocols import shares
from parslfl.report.text import duration, megabytes, plural
from parslfl.reports import RoundReport
from parslfl.rundir.runs import finished
from parslfl.seeding import derive
from parslfl.sites import Federation, local_folders


def rehearse(request: Request, run_dir: Path | None, console: Console, *, resume: bool = False) -> None:
    """Print the plan.

    Raises:
        DataError: the data is damaged, or has too few examples for the clients.
        RunError: the run could not begin in `run_dir`, or not go on there; or the model is too large for it.
    """
    done = finished(run_dir, request.federation, request.experiment, resume) if run_dir else []
    console.print(sites_table(request.federation))
    lines = Table.grid(padding=(0, 1))
    lines.add_column(style="dim", no_wrap=True)
    lines.add_column()
    for label, text in _lines(request, run_dir, done):
        lines.add_row(label, Text(text))
    console.print(lines)


def sites_table(federation: Federation) -> Table:
    """One line a site."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("site", "kind", "clients", "workers", "data", "transport"):
        table.add_column(heading, justify="right" if heading in {"clients", "workers"} else "left")
    for site in federation.sites:
        job = site.executor if site.executor.kind == "mpi" else None
        count = plural(job.ranks(), "rank") if job else str(site.executor.workers_per_node())
        workers = f"{count} x {plural(site.executor.threads_per_worker(), 'thread')}"
        path = getattr(site.transport, "path", None)
        transport = f"{site.transport.kind} in {path}" if path else site.transport.kind
        cells = (site.name, site.executor.kind, str(site.clients), workers, site.data or "-", transport)
        table.add_row(*(Text(cell) for cell in cells))
    return table


def _lines(request: Request, run_dir: Path | None, done: Sequence[RoundReport]) -> Iterator[tuple[str, str]]:
    experiment, federation = request.experiment, request.federation
    yield "experiment", ", ".join(f"{k} {v}" for k, v in _learning(experiment).items())
    yield from _data(request)
    plan = _next(experiment, federation, done)
    yield from _sizes(experiment, federation, plan)
    if plan.round < experiment.rounds:
        chosen = f"{plural(len(plan.cohort), 'client')} of {len(federation.clients())}: {_cohort(plan)}"
        yield f"round {plan.round + 1}", chosen
        yield "closes", _closes(plan)
    else:
        yield "rounds", f"none is left to do: all {experiment.rounds} are done; more with --rounds N"
    yield from (("mind", remark) for remark in remarks(federation, experiment))
    where = shown(run_dir) if run_dir else "a new directory in runs/"
    yield "run", f"{plural(experiment.rounds, 'round')} in {where}{f', {len(done)} done' if done else ''}"


def _next(experiment: Experiment, federation: Federation, done: Sequence[RoundReport]) -> RoundPlan:
    """The round after those that are `done`, as the run will plan it, if no site keeps it waiting."""
    unsent = [site.name for site in federation.sites if site.executor.kind == "mpi"]
    history = reduce(History.after, done, History()) if experiment.adapts() else History()
    round = done[-1].round + 1 if done else 0
    return experiment.plan(round, federation.clients(), history=history, unsent=unsent)


def _learning(experiment: Experiment) -> dict[str, object]:
    """The fields that say what is learnt and how, with their values."""
    names = (
        "dataset",
        "partition",
        "model",
        "strategy",
        "codec",
        "downlink_codec",
        "epochs",
        "batch_size",
        "lr",
        "device",
        "seed",
    )
    resolved = experiment.resolved()
    shown = (name for name in names if (name, resolved[name]) != ("downlink_codec", "raw"))
    return {name.replace("_", " "): resolved[name] for name in shown}


def _data(request: Request) -> Iterator[tuple[str, str]]:
    """Whether each site that is this machine has the data; where it does, whether it suffices."""
    experiment, dataset = request.experiment, request.experiment.dataset
    name, count = experiment.resolved()["dataset"], len(request.federation.clients())
    for site, folder in local_folders(request.federation, resolve_folder(experiment.data_dir)).items():
        if not dataset.available(folder):
            yield "data", f"{site}: no {name} in {folder}: the run would download it there"
            continue
        labels = dataset.labels(folder)
        parts = experiment.partition.split(labels, count, derive(experiment.seed, "partition"))
        least, most = min(map(len, parts)), max(map(len, parts))
        yield "data", f"{site}: {name} is there (folder {folder}), {least} to {most} examples a client"
    away = [site.name for site in request.federation.sites if not site.is_here()]
    if away:
        yield "data", f"{', '.join(away)}: looked for by the workers there, not from here"


def _sizes(experiment: Experiment, federation: Federation, plan: RoundPlan) -> Iterator[tuple[str, str]]:
    """The model's size and the bytes of the round `plan`, found by making the model once."""
    try:
        dataset = experiment.dataset
        model = experiment.model.init(dataset.shape, dataset.classes, derive(experiment.seed, "init"))
    except ImportError as error:  # the driver needs no torch where the workers have it
        yield "model", f"size unknown here: {error}"
        return
    updates = _updates(federation, plan, params.trained(model))
    whole, strategy = wire.pack(model).size, experiment.strategy
    require_room(federation, whole)
    sums = likely_width(plan.cohort[0].work, strategy) * wire.pack(params.trained(model)).size
    beside = wire.pack(strategy.start(model)).size if shares(strategy) else 0
    away = experiment.downlink()
    later = wire.pack(*away.encode(params.trained(model))).size if away else whole
    down = again = up = 0
    for site in federation.sites:
        chosen = sum(a.client.site == site.name for a in plan.cohort)
        takers = min(1, chosen) if site.executor.kind == "mpi" else chosen
        down += takers * (whole + beside)
        again += takers * ((whole if site.transport.kind == "inline" else min(later, whole)) + beside)
        up += sums * min(1, chosen) if site.merges() else 0
    yield "model", f"{params.size(model):,} parameters, {megabytes(params.nbytes(model))}"
    most = f" ({megabytes(down)} where they lack the model before)" if again < down else ""
    yield "a round", f"{megabytes(again)} down to clients{most}, {megabytes(up + updates)} up from them"


def _updates(federation: Federation, plan: RoundPlan, delta: params.Params) -> int:
    """Bytes of the updates that reach the driver one by one."""
    summing = [site.name for site in federation.sites if site.merges()]
    codecs = [given.codec for given in plan.cohort if given.client.site not in summing]
    different = {id(codec): codec for codec in codecs}  # "auto" chooses one for each client
    sizes = {key: wire.pack(*codec.encode(delta)).size for key, codec in different.items()}
    return sum(sizes[id(codec)] for codec in codecs)


def _cohort(plan: RoundPlan) -> str:
    """The chosen clients by site: `local 3 7 12; cloud 40 41`."""
    sites: dict[str, list[str]] = {}
    for assignment in plan.cohort:
        sites.setdefault(assignment.client.site, []).append(str(assignment.client.index))
    return "; ".join(f"{site} {' '.join(numbers)}" for site, numbers in sites.items())


def _closes(plan: RoundPlan) -> str:
    """When a round ends, in words."""
    when = "when all have settled"
    if plan.close_at < len(plan.cohort):
        when = f"with the fastest {plural(plan.close_at, 'update')}"
    if plan.deadline is not None:
        when += f", after {duration(plan.deadline)} at the latest"
    return f"{when}; with fewer than {plural(plan.quorum, 'update')} the run stops"
