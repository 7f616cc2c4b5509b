"""Bytes as streams over gRPC with mutual TLS: for workers that share no folder with the driver.

The worker's end. It fetches models, once a node (`node_cache`), and sends updates, but for small
ones, which ride in the task's result: a call costs more than their bytes. The driver's
end (`grpc_server`) reads and writes the run directory. The secrets below let a process do just
that, for one site of one run. They travel in the task, which Parsl encrypts (CurveZMQ).

Does not know: what the bytes mean.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from types import ModuleType

from parslfl.errors import PayloadError
from parslfl.messages import Ref
from parslfl.params import checksum
from parslfl.protocols import Buffer
from parslfl.transport.inline import Inline

#: Bytes of an update up to which it rides in the result; its call alone takes about 2 ms.
RIDES = 1 << 15


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
        views = [memoryview(buffer).cast("B") for buffer in buffers]
        if 0 < sum(map(len, views)) <= RIDES:
            return Inline().put(name, views, checksum)
        ref = Ref(sum(map(len, views)), checksum, path=name)
        _client().send(self, ref, views)
        return ref

    def get(self, ref: Ref) -> memoryview:
        from parslfl.transport.node_cache import kept

        return kept(self.run, ref, partial(_client().fetch, self, ref))

    def drop(self, ref: Ref) -> None:
        """Nothing: only the driver forgets."""

    def has(self, name: str) -> bool:
        """As the driver said at most two seconds ago: only a name's first question is waited for."""
        known: bool = _client().told(self, name)
        return known


def _client() -> ModuleType:
    try:
        quiet()
        from parslfl.transport import grpc_client
    except ImportError as error:
        cure = "in the site's environment: pip install 'parslfl[grpc]'"
        raise PayloadError(f"this worker cannot use gRPC: {error}; {cure}") from None
    return grpc_client


def quiet() -> None:
    """Before grpc is first imported: it would tell stderr what the report tells better."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")


def endpoint(host: str, port: int) -> str:
    """HOST:PORT, with brackets where `host` is an IPv6 number."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
