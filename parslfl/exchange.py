"""A run's transports: from each site's configuration to the folder or channel it uses.

A site that workers reach over gRPC has a server here, which reads and writes the run directory; the
driver's own end of it is that directory. What comes in results is written there too.

Does not know: rounds; only that models go out and updates come in.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from parslfl.downlink import DIFFERENCES, NEWEST
from parslfl.errors import PayloadError, RunError
from parslfl.folding.checkpoints import Checkpoint, view
from parslfl.folding.finishing import Finished
from parslfl.graph import DRIVER
from parslfl.messages import Difference, Failure, ModelRef, Outcome, Ref, RoundPlan, Update, update_name
from parslfl.params import checksum
from parslfl.protocols import Codec, Transport
from parslfl.served import Served, serve
from parslfl.sites import Federation, Site
from parslfl.transport.buffers import POOL
from parslfl.transport.file import File
from parslfl.transport.inline import Inline
from parslfl.transport.landing import Landing
from parslfl.transport.node_cache import forget
from parslfl.transport.proxystore import ProxyStore


@dataclass(frozen=True)
class Exchange:
    """The transport of every place of one run, as the driver uses it; `home` is the run directory's.

    `served`: the sites whose workers come over gRPC. `shared`: those whose ranks share one model. `downlink`:
    the codec of `differences`, the last of which are out at each place; `last`: the whole models that are.
    """

    home: File
    places: dict[str, Transport]
    served: Mapping[str, Served] = field(default_factory=dict)
    shared: frozenset[str] = frozenset()
    downlink: Codec | None = None
    differences: dict[str, list[Difference]] = field(default_factory=dict)
    last: dict[str, Ref] = field(default_factory=dict)

    def there(self, place: str) -> Transport:
        """The transport as the workers of `place` use it: it goes into their tasks."""
        if place in self.served:
            return self.served[place].transport
        return Inline() if isinstance(self.places[place], Landing) else self.places[place]

    def publish(self, checkpoint: Checkpoint) -> dict[str, Ref]:
        """Make the global model readable at every place, and what makes it of the one before: a reference
        for each."""
        for served in self.served.values():
            served.open_round(checkpoint.round, checkpoint.path.stat().st_size)
        wholes = self._published(checkpoint.path, checkpoint.model)
        if self.downlink is None:
            return wholes
        if checkpoint.difference:
            self._extend(checkpoint)
        self.last.update(wholes)
        return {place: self._with_differences(place, ref) for place, ref in wholes.items()}

    def _extend(self, checkpoint: Checkpoint) -> None:
        """Publish what the last round changed, and take back what only the oldest models need."""
        path = self.home.path(f"{DIFFERENCES}/{checkpoint.path.name}")
        for place, ref in self._published(path, checkpoint.difference).items():
            whole = self.last[place]
            base = Ref(whole.size, whole.checksum, path=whole.path)
            out = self.differences.setdefault(place, [])
            out.append(Difference(checkpoint.round, base, ref))
            for old in out[:-NEWEST]:
                self.places[place].drop(old.ref)
            del out[:-NEWEST]

    def _with_differences(self, place: str, ref: Ref) -> Ref:
        """`ref` for the workers of `place`. The driver has the whole at hand; and inline it rides in each
        task, for nobody knows what the worker has that will take it."""
        if place == DRIVER or isinstance(self.places[place], Landing):
            return ref
        since = tuple(self.differences.get(place, ()))
        return ModelRef(
            ref.size, ref.checksum, ref.path, ref.data, since, self.downlink, self._kept_as(place)
        )

    def _kept_as(self, place: str) -> str:
        """The name under which nodes of `place` keep this run's models, also once it goes on."""
        return checksum([f"{socket.gethostname()}:{self.home.root}:{place}".encode()])

    def publish_state(self, checkpoint: Checkpoint) -> dict[str, Ref]:
        """The same for the strategy's state."""
        return self._published(checkpoint.state_path, checkpoint.state)

    def _published(self, path: Path, digest: str) -> dict[str, Ref]:
        name, size = path.relative_to(self.home.root).as_posix(), path.stat().st_size
        refs: dict[Transport, Ref] = {self.home: Ref(size, digest, path=name)}
        for transport in self.places.values():
            if transport not in refs:
                refs[transport] = transport.put(name, [view(path)], digest)
        for served in self.served.values():
            served.offer(name, size)
        return {place: refs[transport] for place, transport in self.places.items()}

    def publish_probe(self, place: str, data: bytes) -> tuple[Ref, str]:
        """Make `data` readable at `place` alone; second comes the name under which it may be sent back."""
        name = f"updates/probe-{place}"
        if place in self.served:
            self.served[place].offer(name, len(data), reply=f"{name}-reply")
        return self.places[place].put(name, [data], checksum([data])), f"{name}-reply"

    def withdraw(self, refs: dict[str, Ref]) -> None:
        """Forget what `publish` put outside the run directory."""
        for place, ref in refs.items():
            if self.places[place] != self.home:
                self.places[place].drop(ref)

    def keep(self, update: Update) -> Outcome:
        """An update as it came, without bytes that only its result would hold; a failure if they cannot be
        stored, or are not what it says."""
        place, came = self.places[update.client.site], len(update.ref.data)
        if not isinstance(place, Landing):
            return update
        try:
            ref = place.keep(update_name(update.round, update.client), update.ref)
        except PayloadError as wrong:
            return Failure(update.client, update.round, "refused", str(wrong), bytes_up=came)
        return replace(update, ref=ref)

    def mark_closed(self, name: str) -> None:
        """Tell workers that a round is over: those still at it stop at their next look."""
        for transport in set(self.places.values()):
            transport.put(name, [], "")

    def crossed(self, plan: RoundPlan, sent: dict[str, Ref], done: Finished) -> tuple[int, int]:
        """Bytes that went (down, up) in a round that ended as `done`: to call once, when it is over.

        `sent`: what each place was sent. Over gRPC all is counted as it crosses, repeats too; but small
        updates ride in results.
        """
        counted = [served.take_counts() for served in self.served.values()]
        down = sum(self._taken(plan, sent, done))
        summed = {partial.site for partial in done.partials}
        apart = [u for u in done.updates if u.client.site not in summed]
        up = sum(u.ref.size for u in apart if u.client.site not in self.served or not u.ref.path)
        up += sum(p.in_result if p.site in self.served else p.bytes_up for p in done.partials)
        up += sum(f.bytes_up for f in done.failures if f.client.site not in self.served)
        return down + sum(gone for gone, _ in counted), up + sum(come for _, come in counted)

    def _taken(self, plan: RoundPlan, sent: dict[str, Ref], done: Finished) -> Iterator[int]:
        """Bytes for each client of a round, and for each site whose ranks share a model, but for those over
        gRPC. Who made the model of differences says so; of whom nothing came, the whole is counted."""
        told = {u.client: u.bytes_down for u in done.updates if _sane(u.bytes_down, sent[u.client.site])}
        once: dict[str, int] = {}
        for client in (given.client for given in plan.cohort if given.client.site not in self.served):
            whole = sent[client.site]
            came = told.get(client, whole.size) if isinstance(whole, ModelRef) else whole.size
            if client.site in self.shared:
                once[client.site] = min(came, once.get(client.site, came))
            else:
                yield came
        yield from once.values()

    def close(self) -> None:
        """Remove what `open_exchange` made outside the run directory, stop listening, and give the memory
        back into which updates were read."""
        POOL.forget()
        for served in self.served.values():
            served.close()
        for place, out in self.differences.items():
            for one in out:
                with contextlib.suppress(PayloadError):
                    self.places[place].drop(one.ref)
        for place in self.last:
            forget(self._kept_as(place))
        for transport in self.places.values():
            if isinstance(transport, File) and transport != self.home:
                shutil.rmtree(transport.root, ignore_errors=True)


def _sane(came: int, whole: Ref) -> bool:
    """Whether a worker may have fetched so many bytes for the model `whole`: differences, and that too."""
    return isinstance(came, int) and 0 <= came <= 2 * whole.size


def open_exchange(run: Path, sites: tuple[Site, ...], downlink: Codec | None = None) -> Exchange:
    """The exchange of the run in directory `run`, whose lock is held; `downlink`: the codec of differences.

    Raises:
        RunError: a site's shared folder, or address, cannot be used.
    """
    home, served = File(str(run)), dict[str, Served]()
    places = {DRIVER: home, **{site.name: _transport(site, run, home) for site in sites}}
    shared = frozenset(site.name for site in sites if site.executor.kind == "mpi")
    exchange = Exchange(home, places, served, shared, downlink)
    clients = Federation(sites=sites).clients()
    try:
        for site in sites:
            if site.transport.kind == "grpc":
                served[site.name] = serve(site, [c for c in clients if c.site == site.name], home)
    except BaseException:
        exchange.close()
        raise
    return exchange


def _transport(site: Site, run: Path, home: File) -> Transport:
    """The driver's end of a site's transport."""
    if site.transport.kind == "inline":
        return Landing(home)
    if site.transport.kind == "proxystore":
        return _store(site)
    path = site.transport.path if site.transport.kind == "file" else None
    return File(str(_own_folder(Path(path), run))) if path else home


def _store(site: Site) -> Transport:
    """The store of `site`, once an object has been there and back.

    Raises:
        RunError: it cannot be used.
    """
    wanted: Any = site.transport
    store = ProxyStore(wanted.connector, json.dumps(wanted.options, sort_keys=True))
    try:
        ref = store.put("probe", [b"parslfl"], "")
        store.get(ref)
        store.drop(ref)
    except PayloadError as error:
        raise RunError(f"{site.name}: {error}") from None
    return store


def _own_folder(shared: Path, run: Path) -> Path:
    """A folder in `shared` for this run alone, the same whenever it is resumed."""
    owner = f"{socket.gethostname()}:{run.resolve()}"
    folder = shared.absolute() / f"parslfl-{checksum([owner.encode()])}"
    mark = folder / ".run"
    try:
        if folder.exists() and (not mark.is_file() or mark.read_text() != owner):
            raise RunError(f"{folder} is in the way: parslfl did not make it for the run in {run}")
        shutil.rmtree(folder, ignore_errors=True)  # what a driver that was killed left behind
        folder.mkdir(parents=True, exist_ok=True)
        mark.write_text(owner)
    except OSError as error:
        raise RunError(f"cannot use the shared folder {shared}: {error.strerror}") from None
    return folder
