"""A run's transports: from each site's configuration to the folder or channel it uses.

Does not know: rounds; only that models go out and updates come in.
"""

from __future__ import annotations

import shutil
import socket
from dataclasses import dataclass, replace
from pathlib import Path

from parslfl.errors import RunError
from parslfl.graph import DRIVER
from parslfl.journal import Checkpoint
from parslfl.messages import Ref
from parslfl.params import checksum
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

    def publish_state(self, checkpoint: Checkpoint) -> dict[str, Ref]:
        """The same for the strategy's state."""
        return self.publish(replace(checkpoint, path=checkpoint.state_path, model=checkpoint.state))

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
        """Remove what `open_exchange` made outside the run directory."""
        for transport in self.places.values():
            if isinstance(transport, File) and transport != self.home:
                shutil.rmtree(transport.root, ignore_errors=True)


def open_exchange(run: Path, sites: tuple[Site, ...]) -> Exchange:
    """The exchange of the run in directory `run`, whose lock is held.

    Raises:
        RunError: a site's shared folder cannot be used.
    """
    home = File(str(run))
    return Exchange(home, {DRIVER: home, **{site.name: _transport(site, run, home) for site in sites}})


def _transport(site: Site, run: Path, home: File) -> Transport:
    if site.transport.kind == "inline":
        return Inline()
    return File(str(_own_folder(Path(site.transport.path), run))) if site.transport.path else home


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
