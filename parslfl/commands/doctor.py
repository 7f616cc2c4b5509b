"""`parslfl doctor`: every site looked at before anything is spent on it, fault by fault with its cure.

Does not know: how a resource manager is asked; each kind of site does.
"""

from __future__ import annotations

import contextlib
import os
import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from parslfl.commands.request import Request
from parslfl.data.folder import place, resolve_folder
from parslfl.errors import ConfigError, DataError, Problem, RunError
from parslfl.probing import packages
from parslfl.report.text import plural
from parslfl.seeding import derive
from parslfl.sites import Site
from parslfl_executors.checks import Call, Check, Folder, Needs, failed, ok, shared_folder, unknown
from parslfl_executors.fields import FieldError, Unusable, seconds
from parslfl_executors.preflight import preflight

#: How long a probe waits in a queue.
_WAIT = "10m"
#: The check of the data folder.
_DATA = "data folder"
_STYLES = {"ok": "green", "failed": "bold red", "unknown": "yellow"}


class Findings:
    """What was found, shown as it comes: a table on a terminal, else a line each."""

    def __init__(self, console: Console) -> None:
        self.failed: dict[str, int] = {}
        self._console = console
        self._table = Table(box=SIMPLE_HEAD, pad_edge=False)
        for heading in ("site", "check", "verdict", "what was seen, and what to do"):
            self._table.add_column(heading, overflow="fold")
        self._live = Live(self._table, console=console, auto_refresh=False, vertical_overflow="visible")

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        with self._live if self._console.is_terminal else contextlib.nullcontext():
            yield

    def add(self, site: str, check: Check) -> None:
        if check.verdict == "failed":
            self.failed[site] = self.failed.get(site, 0) + 1
        said = f"{check.detail}\n-> {check.cure}" if check.cure else check.detail
        if self._console.is_terminal:
            verdict = Text(check.verdict, style=_STYLES[check.verdict])
            self._table.add_row(Text(site), Text(check.name), verdict, Text(said))
            self._live.refresh()
        else:
            line = f"{site}: {check.name}: {check.verdict}: {said.replace(chr(10), ' ')}"
            self._console.out(line, highlight=False)
            sys.stdout.flush()


def examine(request: Request, folder: Path, wait: float | None) -> int:
    """Look at every site; with `wait`, also by a job each, which may queue for so many seconds.

    `folder`: where a run's scripts and logs would lie. Returns how many checks failed.
    """
    console = Console()
    findings = Findings(console)
    with findings.shown():
        for site in request.federation.sites:
            for check in _checks(site, request, folder):
                findings.add(site.name, check)
        if wait is not None:
            _probe(request, folder, wait, findings)
    console.out(_summary(findings, wait), highlight=False)
    return sum(findings.failed.values())


def _probe(request: Request, folder: Path, wait: float, findings: Findings) -> None:
    sound = [site for site in request.federation.sites if site.name not in findings.failed]
    for name in findings.failed:
        findings.add(name, unknown("probe", "not started: mend what failed first"))
    if sound:
        from parslfl.commands.probe import probes  # loads Parsl

        for name, check in probes(request, sound, folder, wait):
            findings.add(name, check)


def _summary(findings: Findings, wait: float | None) -> str:
    count = sum(findings.failed.values())
    if count:
        return f"{plural(count, 'check')} failed, at {', '.join(findings.failed)}: see what to do above"
    return "nothing failed" + (
        "" if wait is not None else "; --probe starts a short job at each site to tell the rest"
    )


def _checks(site: Site, request: Request, folder: Path) -> Iterator[Check]:
    logs, found = folder / "parsl", dict[str, Check]()
    try:
        for check in preflight(site.executor, site.name, logs, _needs(site, request, folder)):
            found[check.name] = check
            yield check
    except Unusable as error:
        yield failed("site", str(error), "change the site file accordingly")
    yield _data(site, request, found.get(_DATA))
    if site.transport.kind == "grpc":
        yield _server(site, folder)
    if site.transport.kind == "file" and site.executor.kind == "kubernetes":
        yield shared_folder("exchange", Path(site.transport.path or folder))


def _needs(site: Site, request: Request, run: Path) -> Needs:
    """What the site's workers must find there: folders, and packages in the driver's versions."""
    where, pods = f"sites.{site.name}", site.executor.kind == "kubernetes"
    folders = [Folder("state", site.state, f"{where}.state", written=True)] if site.state else []
    path = site.transport.path if site.transport.kind == "file" else None
    if site.transport.kind == "file" and (pods or (path and not site.is_here())):
        name, field = "exchange there" if pods else "exchange", f"{where}.transport.path"
        folders.append(Folder(name, path or str(run), field, written=True))
    if not site.is_here() and not _needs_no_files(request):
        folders.append(Folder(_DATA, str(_folder(site, request)), f"{where}.data"))
    return Needs(tuple(folders), packages(), () if site.is_here() else _calls(site, where))


def _calls(site: Site, where: str) -> tuple[Call, ...]:
    """Where the site's workers reach the server of models and updates, if there is one."""
    if site.transport.kind != "grpc":
        return ()
    from parslfl_executors.pool import own_address  # loads Parsl

    address = site.transport.address or getattr(site.executor, "address", None) or own_address()
    return (Call("exchange address", address, f"{where}.transport.address"),)


def _folder(site: Site, request: Request) -> Path:
    return Path(site.data) if site.data else resolve_folder(request.experiment.data_dir)


def _needs_no_files(request: Request) -> bool:
    """Whether the data set comes with the packages: it is there even in what is no folder."""
    return request.experiment.dataset.available(Path(os.devnull))


def _data(site: Site, request: Request, there: Check | None) -> Check:
    """Whether the data set is there, as far as this machine sees; `there`: what was found of its folder."""
    experiment, folder = request.experiment, place(_folder(site, request))
    dataset, name, here = experiment.dataset, experiment.resolved()["dataset"], site.is_here()
    embedded = _needs_no_files(request)
    if site.executor.kind == "kubernetes" and not embedded:  # a folder of that name here is another one
        return unknown("data", f"whether {name} is in {folder} of a pod is not seen from here; --probe looks")
    if not dataset.available(folder):
        return _no_data(site, f"no {name} in {folder}", there)
    try:
        labels = dataset.labels(folder)
        seed = derive(experiment.seed, "partition")
        parts = experiment.partition.split(labels, len(request.federation.clients()), seed)
    except DataError as error:
        return failed("data", str(error), "mend or replace the files, or change clients or partition")
    sizes = f"{min(map(len, parts))} to {max(map(len, parts))} examples a client"
    if embedded:
        return ok("data", f"{name}, which needs no files, {sizes}")
    return ok("data", f"{name} in {folder}{'' if here else ' (as seen from here)'}, {sizes}")


def _no_data(site: Site, detail: str, there: Check | None) -> Check:
    if site.is_here():
        return unknown("data", f"{detail}: a run downloads it there")
    if there is not None and there.verdict == "ok":  # the nodes see what is seen here
        return failed("data", detail, f"copy it there, or set sites.{site.name}.data to where it is")
    return unknown("data", f"{detail}, as seen from here; --probe looks there")


def _server(site: Site, folder: Path) -> Check:
    """Whether a run could listen for the site's workers: by doing so for a moment."""
    from parslfl.exchange import open_exchange  # loads Parsl

    try:
        exchange = open_exchange(folder, (site,))
    except RunError as error:
        return failed("exchange", str(error), "set another address or port: docs/transports.md")
    exchange.close()
    return ok(
        "exchange",
        f"gRPC: can listen; workers are told to call {exchange.served[site.name].transport.address}",
    )


def patience(args: Namespace) -> float | None:
    """Seconds that a probe may wait in a queue; None for no probe.

    Raises:
        ConfigError: --wait is no duration, or there is no probe.
    """
    if not args.probe:
        if args.wait:
            raise ConfigError([Problem(f"--wait {args.wait}", "", "only a probe waits: add --probe")])
        return None
    try:
        found = seconds(args.wait or _WAIT)
    except FieldError as error:
        raise ConfigError([Problem(f"--wait {args.wait}", "", str(error))]) from None
    return float(str(found))
