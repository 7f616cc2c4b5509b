"""What a client keeps at its site from one round to the next: a codec's residual, a strategy's own model.

One wire file for each client, name and round. The state of a round counts only if the driver folded
the client's update of that round, so a task says which that was (`TrainTask.accepted`): a refused,
late or lost update rolls back by itself, and a resumed run reads what the first attempt read.

Does not know: what the state means, or who asked for it.
"""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from parslfl.codecs import wire
from parslfl.errors import RunError
from parslfl.folding import checkpoints
from parslfl.messages import Client
from parslfl.params import Params, require_like, zeros_like
from parslfl.reports import RoundReport


@dataclass(frozen=True)
class ClientStore:
    """The states of clients in `folder`, which outlives the worker. Only workers of its site use it."""

    folder: str

    def prepare(self, client: Client) -> None:
        """Make sure that states can be saved, before hours go into what would be lost.

        Raises:
            RunError: the folder cannot be written.
        """
        place = self._place(client)
        try:
            place.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=place):
                pass
        except OSError as error:
            raise self._unwritable(client, error) from None

    def load(self, client: Client, name: str, accepted: int) -> Params | None:
        """The state `name` that `client` saved in round `accepted`, mapped read-only and verified.

        None if there is none, if it is damaged, or if `accepted` is -1.
        """
        path = self._path(client, name, accepted)
        if accepted < 0 or not path.is_file():
            return None
        try:
            return checkpoints.read(path, "")
        except RunError:
            return None

    def recall(
        self, client: Client, name: str, accepted: int, like: Params
    ) -> tuple[Params, tuple[str, ...]]:
        """The state as `load` finds it, if it fits `like`, else zeros; and what `Update.notes` must say.

        A client whose update was never accepted starts from zeros: nothing to say.
        """
        found = self.load(client, name, accepted)
        if accepted < 0:
            return zeros_like(like), ()
        if found is None:
            return zeros_like(like), (
                f"{name} of round {accepted + 1} is gone or damaged in {self.folder}: from zeros",
            )
        try:
            require_like(found, like, name)
        except ValueError as error:
            return zeros_like(like), (f"{name} of round {accepted + 1} does not fit: {error}: from zeros",)
        return found, ()

    def save(self, client: Client, name: str, round: int, accepted: int, params: Params) -> None:
        """Keep `params` as the state of `round`, beside that of `accepted`; older ones are removed.

        Newer ones stay: they are of a round that began while this one was late.

        Raises:
            RunError: the folder cannot be written.
        """
        path = self._path(client, name, round)
        part = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with part.open("wb") as stream:
                stream.writelines(wire.pack(params).buffers)
            part.replace(path)
            for other in path.parent.glob("round-*.plm"):
                number = int(other.stem.removeprefix("round-"))
                if number < round and number != accepted:
                    other.unlink(missing_ok=True)
        except OSError as error:
            raise self._unwritable(client, error) from None

    def _place(self, client: Client) -> Path:
        return Path(self.folder, f"client-{client.index:05d}")

    def _path(self, client: Client, name: str, round: int) -> Path:
        return self._place(client) / name / f"round-{round:04d}.plm"

    def _unwritable(self, client: Client, error: OSError) -> RunError:
        """The same words for all clients of a site: a report then has them once."""
        return RunError(
            f"cannot keep what clients of {client.site} need again in {self.folder}: {error.strerror}: "
            "name a folder that its workers can write in the site's `state`"
        )


def note_accepted(accepted: dict[Client, int], done: Iterable[RoundReport], together: bool) -> None:
    """Put into `accepted` the last of these rounds, oldest first, that each client's update was folded in.

    `together`: where one client has lost what it kept, what the others have counts no longer.
    """
    for report in done:
        accepted.update((update.client, report.round) for update in report.updates)
        if together and any(update.afresh for update in report.updates):
            accepted.clear()
