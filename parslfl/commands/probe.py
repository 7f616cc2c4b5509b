"""One short job a site: what its workers find, compared with the driver, as checks.

Does not know: how the findings are shown.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, replace
from pathlib import Path

from parsl.dataflow.dflow import DataFlowKernel

from parslfl import closing, graph, launch
from parslfl.commands.request import Request
from parslfl.data.folder import resolve_folder
from parslfl.exchange import Exchange, open_exchange
from parslfl.messages import Ref, Source
from parslfl.params import checksum
from parslfl.probing import Findings, Machine, ProbeTask, give, nothing, packages, probe, take
from parslfl.report.text import megabytes
from parslfl.rundir.runs import open_run
from parslfl.seeding import derive
from parslfl.sites import Site
from parslfl_executors.checks import Check, differing, failed, ok

#: Seconds that a probe's job may run: it is done in some ten, and cancelled then.
_WALLTIME = 300.0
#: Bytes sent to and fro.
_PAYLOAD = 8 << 20
_PINGS = 5
#: What to do about a link that does not work, by transport.
_CURES = {
    "file": "give driver and workers one folder under one name: transport: {kind: file, path: /shared/...}",
    "grpc": "give the transport an `address` and a `port` that the site's workers reach: docs/transports.md",
    "inline": "see what it says; models of more than 8 MiB need another transport: docs/transports.md",
}
_ELSE = "see the transport of the site file"


def probes(
    request: Request, sites: Sequence[Site], folder: Path, patience: float
) -> Iterator[tuple[str, Check]]:
    """Start one worker at each of `sites` and yield (site, check) as answers come.

    `folder` becomes a run directory, so that `parslfl cleanup` finds what a killed doctor leaves.

    Raises:
        RunError: `folder` cannot be used.
    """
    brief = [
        site.model_copy(update={"executor": site.executor.brief(_WALLTIME), "retries": 0}) for site in sites
    ]
    federation = request.federation.model_copy(update={"sites": tuple(brief)})
    run = open_run(folder, federation, request.experiment, False)
    try:
        exchange = open_exchange(run.path, federation.sites)
        try:
            with launch.kernel(brief, graph.DRIVER, run.path / "parsl") as running:
                yield from _Probing(request, brief, running, exchange, patience).go()
        finally:
            exchange.close()
    finally:
        run.close()


@dataclass(frozen=True)
class _Probing:
    request: Request
    sites: Sequence[Site]
    kernel: DataFlowKernel
    exchange: Exchange
    patience: float

    def go(self) -> Iterator[tuple[str, Check]]:
        began = time.monotonic()
        asked = {self._ask(site): site for site in self.sites}
        open_ = set(asked)
        while open_:
            left = began + self.patience - time.monotonic()
            done, open_ = wait(open_, timeout=max(0.0, left), return_when=FIRST_COMPLETED)
            for future in done:
                waited = time.monotonic() - began
                yield from (
                    (asked[future].name, check) for check in self._heard(asked[future], future, waited)
                )
            if not done:
                break
        for future in open_:
            yield asked[future].name, self._silent(asked[future])

    def _ask(self, site: Site) -> Future[Findings]:
        e, roster = self.request.experiment, self.request.federation.clients()
        folder = site.data or str(resolve_folder(e.data_dir))
        payload, reply = self.exchange.publish_probe(site.name, bytes(_PAYLOAD))
        work = replace(e.assigned(), epochs=10_000, threads=site.executor.threads_per_worker())
        task = ProbeTask(
            model=e.model,
            source=Source(e.dataset, e.partition, folder, len(roster), derive(e.seed, "partition")),
            client=next(client.index for client in roster if client.site == site.name),
            work=work,
            seed=derive(e.seed, "init"),
            payload=payload,
            reply=reply,
            transport=self.exchange.there(site.name),
        )
        return graph.submit(self.kernel, site.name, probe, task)

    def _silent(self, site: Site) -> Check:
        why = launch.waiting(self.kernel, site.name) or "no worker called back"
        cure = "wait longer (--wait 1h); or look whether a firewall stands between the workers and address"
        return failed("worker", f"nothing heard for {self.patience:.0f} s: {why}", cure)

    def _heard(self, site: Site, future: Future[Findings], waited: float) -> Iterator[Check]:
        error = future.exception()
        if error is not None:
            cure = "mend what it says: worker_init, image, volumes, or Python and Parsl as here"
            yield failed("worker", closing.lost(error), cure)
            return
        found = future.result()
        what = found.machine
        room = f"{what.cores} cores, {what.memory / 1e9:.1f} GB, {what.accelerator or 'no accelerator'}"
        yield ok("worker", f"on {what.host} {waited:.1f} s after it was asked for: {room}")
        yield _python(what, packages())
        yield _data(found, site)
        yield self._link(site, found)
        if not found.data:
            yield self._training(found)
        yield from self._standing(site)

    def _standing(self, site: Site) -> Iterator[Check]:
        if said := launch.signals(self.kernel, site.name):
            yield ok("signals", said.text())

    def _link(self, site: Site, found: Findings) -> Check:
        cure = _CURES.get(site.transport.kind, _ELSE)
        if found.link or found.reply is None:
            return failed("link", found.link, cure)
        try:
            down, up, ping, same = self._rates(site, found.reply, found.read, found.sent)
        except Exception as error:  # noqa: BLE001 - whatever Parsl raises when the worker is lost now
            return failed("link", closing.lost(error), cure)
        rates = f"{_rate(down)} down, {_rate(up)} up, {ping * 1000:.1f} ms a task"
        if not same:
            return failed(
                "link", f"{rates}; the bytes changed on their way", "check the shared folder or network"
            )
        return ok("link", f"{site.transport.kind}: {rates}")

    def _rates(self, site: Site, reply: Ref, down: float, sent: float) -> tuple[float, float, float, bool]:
        """Seconds down, up, and of an empty task; and whether `reply` is what was sent."""
        transport = self.exchange.places[site.name]
        began = time.perf_counter()
        same = checksum([transport.get(reply)]) == checksum([bytes(_PAYLOAD)])
        up = sent + time.perf_counter() - began
        transport.drop(reply)
        ping = min(self._timed(site, nothing) for _ in range(_PINGS))
        if site.transport.kind == "inline":  # what rides in a task is there when it begins
            down = self._timed(site, take, reply) - ping
            up = self._timed(site, give, _PAYLOAD) - ping
        return down, up, ping, same

    def _timed(self, site: Site, function: Callable[..., object], *args: object) -> float:
        """Seconds from submitting a task to its result."""
        began = time.perf_counter()
        graph.submit(self.kernel, site.name, function, *args).result(60)
        return time.perf_counter() - began

    def _training(self, found: Findings) -> Check:
        name = self.request.experiment.resolved()["model"]
        if found.training:
            return failed(
                "training", found.training, "try another device (--device cpu), model or batch size"
            )
        if not found.steps:
            detail = (
                f"{name}: not one step of {self.request.experiment.batch_size} within {found.trained:.0f} s"
            )
            return failed("training", detail, "choose a smaller model or batch, or a faster site")
        step = found.trained / found.steps
        rate = min(found.samples, self.request.experiment.batch_size) / step
        return ok("training", f"{name}: {step * 1000:.3g} ms a step, {rate:,.0f} examples/s a worker")


def _rate(seconds: float) -> str:
    return f"{megabytes(round(_PAYLOAD / max(seconds, 1e-9)))}/s"


def _python(there: Machine, here: Sequence[tuple[str, str]]) -> Check:
    """Whether the worker's Python and packages are the driver's."""
    if odd := differing(there.python, there.packages, here):
        cure = (
            "install what the driver has there (constraints.txt), or run the driver from the same environment"
        )
        return failed("Python", ", ".join(odd), cure)
    same = ", ".join(f"{name} {said}" for name, said in there.packages)
    return ok("Python", f"{there.python}, {same}: as here")


def _data(found: Findings, site: Site) -> Check:
    if found.data:
        return failed("data there", found.data, f"put it there, or set sites.{site.name}.data to where it is")
    return ok("data there", f"{found.samples} examples of the site's first client")
