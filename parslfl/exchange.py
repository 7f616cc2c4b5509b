"""A run's transports: from each site's configuration to the folder or channel it uses.

Does not know: rounds; only that models go out and updates come in.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from parslfl.graph import DRIVER
from parslfl.journal import Checkpoint
from parslfl.messages import Ref
from parslfl.protocols import Transport
from parslfl.sites import Site
from parslfl.transport.file import File
from parslfl.transport.inline import Inline


@dataclass(frozen=True)
class Exchange:
    """The transport of every place of one run; `home` is the run directory's own."""

    home: File
    places: dict[str, Transport]

    def publish(self, checkpoint: Checkpoint) -> dict[str, Ref]:
        """Make the global model readable at every place: a reference for each."""
        name = checkpoint.path.relative_to(self.home.root).as_posix()
        size = checkpoint.path.stat().st_size
        refs: dict[Transport, Ref] = {self.home: Ref(size, checkpoint.model, path=name)}
        for transport in self.places.values():
            if transport not in refs:
                refs[transport] = transport.put(name, [checkpoint.path.read_bytes()], checkpoint.model)
        return {place: refs[transport] for place, transport in self.places.items()}

    def withdraw(self, refs: dict[str, Ref]) -> None:
        """Forget what `publish` put outside the run directory."""
        for place, ref in refs.items():
            if self.places[place] != self.home:
                self.places[place].drop(ref)

    def mark_closed(self, name: str) -> None:
        """Tell workers that a round is over: those still at it stop at their next look."""
        for transport in set(self.places.values()):
            transport.put(name, [], "")

    def close(self) -> None:
        """Remove the run's folders outside the run directory."""
        for transport in self.places.values():
            if isinstance(transport, File) and transport != self.home:
                shutil.rmtree(transport.root, ignore_errors=True)


def open_exchange(run: Path, sites: tuple[Site, ...]) -> Exchange:
    """The exchange of the run in directory `run` (absolute)."""
    home = File(str(run))
    return Exchange(home, {DRIVER: home, **{site.name: _transport(site, run, home) for site in sites}})


def _transport(site: Site, run: Path, home: File) -> Transport:
    if site.transport.kind == "inline":
        return Inline()
    return File(str(Path(site.transport.path, run.name).absolute())) if site.transport.path else home
