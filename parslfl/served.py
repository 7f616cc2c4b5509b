"""A site whose workers come over gRPC: its server, what that offers, and the workers' end of it.

Does not know: rounds, other than by number, or what becomes of updates.
"""

from __future__ import annotations

import logging
import secrets
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from parslfl.downlink import DIFFERENCES, NEWEST
from parslfl.errors import RunError
from parslfl.messages import INITIAL, Client, partial_name, update_name
from parslfl.sites import Site
from parslfl.transport.file import File
from parslfl.transport.grpc import Grpc, endpoint, quiet
from parslfl.transport.node_cache import forget

if TYPE_CHECKING:
    from parslfl.transport.grpc_server import Server

_log = logging.getLogger(__name__)

#: An update may be this many times as large as the model (SCAFFOLD sends two), and this many bytes more.
_TIMES, _MORE = 4, 1 << 20
#: Sums that a site may send in place of its updates: one for each scale of the strategy.
_SCALES = 4
#: Files of a folder that are served: two models and, of some strategies, two states; or the last differences.
#: A straggler may want the older ones.
_NEWEST = {DIFFERENCES: NEWEST}
_OTHERS = 4


@dataclass(frozen=True)
class Served:
    """`server` for the site's `clients`; `transport` is what their tasks carry."""

    site: str
    clients: tuple[Client, ...]
    server: Server
    transport: Grpc

    def open_round(self, round: int, size: int) -> None:
        """Take the updates of `round`, and of no other; `size`: bytes of its model."""
        from parslfl.transport.grpc_server import Offer

        now = self.server.offer
        if INITIAL in now.updates:
            self.server.take_counts()  # the first model is no update
        sums = (partial_name(round, self.site, scale) for scale in range(_SCALES))
        updates = frozenset((*(update_name(round, client) for client in self.clients), *sums))
        self.server.keep_only(Offer(now.models, updates, _TIMES * size + _MORE))

    def offer(self, name: str, size: int, reply: str = "") -> None:
        """Serve the file `name`, of `size` bytes, beside the newest of its folder; `reply`: an upload to
        take, too."""
        from parslfl.transport.grpc_server import Offer

        now = self.server.offer
        folder = f"{name.partition('/')[0]}/"
        beside = [one for one in now.models if one.startswith(folder) and one != name]
        gone = beside[: max(0, len(beside) + 1 - _NEWEST.get(folder[:-1], _OTHERS))]
        models = {**{one: now.models[one] for one in now.models if one not in {*gone, name}}, name: size}
        replies = frozenset({reply} if reply else ())
        self.server.keep_only(Offer(models, now.updates | replies, now.limit))

    def take_counts(self) -> tuple[int, int]:
        """Bytes (sent, received) since the last time."""
        return self.server.take_counts()

    def close(self) -> None:
        """Stop listening, say whom it turned away, and clear this machine's copies of models."""
        self.server.close()
        forget(self.transport.run)
        if self.server.strangers:
            _log.warning(
                "%s: %d connections to %s showed no certificate of this run and were refused",
                self.site,
                self.server.strangers,
                self.transport.address,
            )


def serve(site: Site, clients: Sequence[Client], home: File) -> Served:
    """Listen for the workers of `site`, with certificates and a token made now.

    Raises:
        RunError: its address or port cannot be used, or a package is missing.
    """
    try:
        quiet()
        from parslfl.transport.certificates import issue
        from parslfl.transport.grpc_server import Offer, Server
    except ImportError as error:
        raise RunError(f"{site.name}: {error}. Its transport needs: pip install 'parslfl[grpc]'") from None
    host, port, listen = _addresses(site)
    made, token = issue(), secrets.token_urlsafe(32)
    room = shutil.disk_usage(home.root).free // 2
    try:
        server = Server(home, made, token, listen, Offer({}, frozenset({INITIAL}), room))
    except OSError as error:
        why = f"{error}".partition(";")[0]
        raise RunError(
            f"{site.name}: cannot listen on {listen}: {why}. Another process may have that port: "
            "leave the transport's `port` out, or name a free one; `listen` must be this machine's"
        ) from None
    address = endpoint(host, port or server.port)
    worker = made.worker
    return Served(
        site.name,
        tuple(clients),
        server,
        Grpc(address, made.authority, worker.certificate, worker.key, token),
    )


def _addresses(site: Site) -> tuple[str, int, str]:
    """Host and port as workers reach them (0: as listened on), and HOST:PORT to listen on."""
    from parslfl_executors.pool import is_own, own_address

    wanted: Any = site.transport
    host = wanted.address or getattr(site.executor, "address", None) or own_address()
    port = wanted.port or 0
    everywhere = "[::]" if ":" in host else "0.0.0.0"  # noqa: S104  certificates keep strangers out
    interface = host if is_own(host) else everywhere
    if wanted.listen is None:
        return host, port, f"{interface}:{port}"
    name, _, number = wanted.listen.rpartition(":")
    return host, port, f"{name or interface}:{number}"
