"""Bytes as streams over gRPC with mutual TLS: for workers that share no folder with the driver.

The worker's end. It fetches models, once a node (`node_cache`), and sends updates; the driver's
end (`grpc_server`) reads and writes the run directory. The secrets below let a process do just
that, for one site of one run. They travel in the task, which Parsl encrypts (CurveZMQ).

Does not know: what the bytes mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from parslfl.errors import PayloadError
from parslfl.messages import Ref
from parslfl.params import checksum
from parslfl.protocols import Buffer


@dataclass(frozen=True)
class Grpc:
    """`address`: the driver's HOST:PORT as workers reach it. `authority` and `certificate`: PEM.

    `key` and `token` are secret.
    """

    address: str
    authority: str = field(repr=False)
    certificate: str = field(repr=False)
    key: str = field(repr=False)
    token: str = field(repr=False)

    @property
    def run(self) -> str:
        """A name for this site's run that gives no secret away, and no other run has."""
        return checksum([self.authority.encode(), self.address.encode()])

    def put(self, name: str, buffers: Sequence[Buffer], checksum: str) -> Ref:
        from parslfl.transport.grpc_client import send

        views = [memoryview(buffer).cast("B") for buffer in buffers]
        ref = Ref(sum(map(len, views)), checksum, path=name)
        send(self, ref, views)
        return ref

    def get(self, ref: Ref) -> memoryview:
        from parslfl.transport.grpc_client import fetch
        from parslfl.transport.node_cache import kept

        return kept(self.run, ref, partial(fetch, self, ref))

    def drop(self, ref: Ref) -> None:
        """Nothing: only the driver forgets."""

    def has(self, name: str) -> bool:
        """As the driver said at most two seconds ago: only a name's first question is waited for."""
        from parslfl.transport.grpc_client import told

        return told(self, name)


def endpoint(host: str, port: int) -> str:
    """HOST:PORT, with brackets where `host` is an IPv6 number."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def unreachable(address: str, why: str) -> PayloadError:
    """What a worker says that cannot reach the driver."""
    return PayloadError(
        f"cannot reach the driver at {address}: {why}. Give the site's transport an `address` (and a fixed "
        "`port`) that its workers reach, or wait: the driver may have ended"
    )
