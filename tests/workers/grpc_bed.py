"""A driver's end and a worker's end of the gRPC transport, and a line between them that can be cut.

Does not know: what is tested on it.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from parslfl.messages import Ref
from parslfl.transport.certificates import Certificates, issue
from parslfl.transport.file import File
from parslfl.transport.grpc import Grpc
from parslfl.transport.grpc_server import Offer, Server

MODEL = "models/a"
UPDATES = frozenset(f"updates/{letter}" for letter in "abcdefgh")


@dataclass(frozen=True)
class Bed:
    home: File
    server: Server
    worker: Grpc
    certificates: Certificates

    def publish(self, data: bytes, name: str = MODEL) -> Ref:
        """Offer `data` as the model."""
        ref = self.home.put(name, [data], "")
        self.server.keep_only(replace(self.server.offer, models={name: len(data)}))
        return ref

    def behind(self, line: Line) -> Grpc:
        return replace(self.worker, address=line.address)


@contextlib.contextmanager
def grpc_bed(folder: Path, limit: int = 1 << 24) -> Iterator[Bed]:
    """A server on a free port of the loopback, which keeps its files in `folder`."""
    home, made = File(str(folder)), issue()
    server = Server(home, made, "token", "127.0.0.1:0", Offer({}, UPDATES, limit))
    worker = Grpc(
        f"127.0.0.1:{server.port}", made.authority, made.worker.certificate, made.worker.key, "token"
    )
    try:
        yield Bed(home, server, worker, made)
    finally:
        server.close()


class Line:
    """A TCP line to `target`; `cuts` says after how many bytes each connection in turn breaks.

    `rate`: bytes/s that all connections together take to the target; None: no limit.
    """

    def __init__(self, target: int, cuts: list[int], rate: float | None = None) -> None:
        self._target, self._cuts, self._rate = target, cuts, rate
        self._turn = threading.Lock()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listening.getsockname()[1]}"
        self.broken = 0
        self._ends: list[socket.socket] = [self._listening]
        self._threads = [threading.Thread(target=self._serve)]
        self._threads[0].start()

    def close(self) -> None:
        """Cut everything; nothing is left open."""
        for end in self._ends:
            _cut(end)
        for thread in self._threads:
            thread.join(10)
        for end in self._ends:
            end.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listening.accept()
                self._ends.append(near)
                try:
                    far = socket.create_connection(("127.0.0.1", self._target))
                except ConnectionRefusedError:  # its run is over; the next one will listen there
                    _cut(near)
                    continue
                self._ends.append(far)
                left = [self._cuts.pop(0) if self._cuts else 1 << 40]
                for here, there in ((near, far), (far, near)):
                    self._threads.append(threading.Thread(target=self._pump, args=(here, there, left)))
                    self._threads[-1].start()

    def _pump(self, here: socket.socket, there: socket.socket, left: list[int]) -> None:
        with contextlib.suppress(OSError):
            while data := here.recv(1 << 16):
                left[0] -= len(data)
                if left[0] < 0:
                    self.broken += left[0] + len(data) >= 0  # the first to notice
                    break
                if self._rate and there.getpeername()[1] == self._target:
                    with self._turn:
                        time.sleep(len(data) / self._rate)
                there.sendall(data)
        _cut(here)
        _cut(there)


def _cut(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
