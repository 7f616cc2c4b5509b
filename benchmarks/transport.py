"""How fast bytes travel over gRPC with TLS, and what that costs the driver; interleaved in one run.

    python benchmarks/transport.py [speed] [node] [memory]

speed   512 MiB on the loopback between two processes: gRPC with mutual TLS down and up, a plain TLS
        socket (Python's ssl, 1 MiB at a time) and a plain file copy; MB/s, medians of five turns
node    20 clients in 4 processes of one node that fetch one model of 44.7 MB: bytes the driver sent
memory  200 clients in 10 processes that upload 1 MB each at once: the driver's peak memory before and after

Does not know: networks; both ends are this machine.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import resource
import shutil
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from parslfl.messages import Ref
from parslfl.transport.file import File
from parslfl.transport.grpc import Grpc, quiet

if TYPE_CHECKING:
    from parslfl.transport.grpc_server import Server

SIZE = 512 << 20
MODEL = 11_181_642 * 4
TURNS = 5
CHUNK = 1 << 20

#: A worker: obeys lines of text, answers each with one.
WORKER = """
import sys; sys.path.insert(0, {here!r})
from transport import work
work({sent!r})
"""


class Far:
    """A process at the other end."""

    def __init__(self, sent: object) -> None:
        here = str(Path(__file__).resolve().parent)
        source = WORKER.format(here=here, sent=pickle.dumps(sent))
        self._process = subprocess.Popen(
            [sys.executable, "-c", source], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdin
        assert self._process.stdout
        self._orders, self._answers = self._process.stdin, self._process.stdout

    def order(self, what: str) -> None:
        print(what, file=self._orders, flush=True)

    def answer(self) -> str:
        return self._answers.readline().strip()

    def close(self) -> None:
        self._orders.close()
        self._process.wait()


def work(sent: bytes) -> None:
    """What a worker process does."""
    worker, folder, certificates = pickle.loads(sent)  # noqa: S301  our own bytes
    quiet()
    tempfile.tempdir = folder
    data = memoryview(Path(folder, "data").read_bytes())
    client = ssl.create_default_context(cadata=worker.authority)
    client.load_cert_chain(certificates)
    for line in sys.stdin:
        order, *rest = line.split()
        if order == "get":
            _fetch(worker, Ref(int(rest[1]), "", path=rest[0]), Path(folder, "down"))
        elif order == "kept":
            worker.get(Ref(int(rest[1]), "", path=rest[0]))
        elif order == "put":
            worker.put(rest[0], [data[: int(rest[1])]], "")
        elif order == "burst":
            _burst(worker, data[: int(rest[0])], int(rest[1]))
        elif order == "tls":
            with client.wrap_socket(
                socket.create_connection(("127.0.0.1", int(rest[0]))), server_hostname="driver.parslfl"
            ) as end:
                for start in range(0, SIZE, CHUNK):
                    end.sendall(data[start : start + CHUNK])
                end.recv(1)
        print("done", flush=True)


def _fetch(worker: Grpc, ref: Ref, path: Path) -> None:
    """Without the node's cache: what crosses is what is timed."""
    from parslfl.transport.grpc_client import fetch

    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    fetch(worker, ref, descriptor)
    os.close(descriptor)


def _burst(worker: Grpc, data: memoryview, first: int) -> None:
    """Twenty uploads at once."""
    from parslfl.messages import Client, update_name

    with ThreadPoolExecutor(20) as pool:
        names = [update_name(0, Client(first + number, "here")) for number in range(20)]
        list(pool.map(lambda name: worker.put(name, [data], ""), names))


@contextlib.contextmanager
def bench() -> Iterator[tuple[File, Server, Callable[[], Far], ssl.SSLContext]]:
    """The driver's folder, its server, a maker of workers, and the TLS settings of a plain server."""
    quiet()
    from parslfl.messages import Client, update_name
    from parslfl.transport.certificates import issue
    from parslfl.transport.grpc_server import Offer, Server

    with tempfile.TemporaryDirectory() as text:
        folder, made = Path(text), issue()
        home = File(str(folder / "run"))
        source = folder / "data"
        with source.open("wb") as stream:
            for _ in range(SIZE // CHUNK):  # never whole in memory: its peak is measured
                stream.write(os.urandom(CHUNK))
        home.path("models").mkdir(parents=True)
        shutil.copy(source, home.path("models/large"))
        with home.path("models/model").open("wb") as stream:
            stream.truncate(MODEL)
        names = frozenset(update_name(0, Client(number, "here")) for number in range(200))
        offer = Offer({"models/large": SIZE, "models/model": MODEL}, names, 1 << 33)
        server = Server(home, made, "token", "127.0.0.1:0", offer)
        for name, pair in (("driver", made.driver), ("worker", made.worker)):
            (folder / f"{name}.pem").write_text(pair.certificate + pair.key)
        settings = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        settings.load_cert_chain(folder / "driver.pem")
        settings.load_verify_locations(cadata=made.authority)
        settings.verify_mode = ssl.CERT_REQUIRED
        worker = Grpc(
            f"127.0.0.1:{server.port}", made.authority, made.worker.certificate, made.worker.key, "token"
        )
        try:
            yield home, server, lambda: Far((worker, text, str(folder / "worker.pem"))), settings
        finally:
            server.close()


def speed() -> None:
    with bench() as (home, _, far, settings):
        other = far()
        first = "updates/round-0000-client-00000"
        listening = socket.create_server(("127.0.0.1", 0))

        def asked(order: str) -> None:
            other.order(order)
            assert other.answer() == "done"

        def tls() -> None:
            other.order(f"tls {listening.getsockname()[1]}")
            _receive(settings, listening, home.path("plain"))
            assert other.answer() == "done"

        def copy() -> None:
            with home.path("models/large").open("rb") as source, home.path("copy").open("r+b") as target:
                while data := source.read(CHUNK):
                    target.write(data)

        home.path("copy").write_bytes(b"")
        ways = {
            "gRPC + TLS, down": lambda: asked(f"get models/large {SIZE}"),
            "gRPC + TLS, up": lambda: asked(f"put {first} {SIZE}"),
            "plain TLS socket": tls,
            "plain file copy": copy,
        }
        rates: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range(TURNS + 1):
            for name, way in ways.items():
                began = time.perf_counter()
                way()
                if turn:  # the first one warms up
                    rates[name].append(SIZE / 1e6 / (time.perf_counter() - began))
            home.drop(Ref(SIZE, "", path=first))  # as after a merge: the next one writes over it
        base = statistics.median(rates["plain TLS socket"])
        for name, found in rates.items():
            middle = statistics.median(found)
            print(f"{name:20} {middle:6.0f} MB/s   {middle / base:.2f} of the plain TLS socket")
        listening.close()
        other.close()


def _receive(settings: ssl.SSLContext, listening: socket.socket, path: Path) -> None:
    buffer, done = memoryview(bytearray(CHUNK)), 0
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    with settings.wrap_socket(listening.accept()[0], server_side=True) as end:
        while done < SIZE:
            filled = 0
            while filled < CHUNK:  # one record of 16 KiB a call
                filled += end.recv_into(buffer[filled:])
            done += os.pwrite(descriptor, buffer, done)
        end.sendall(b"k")
    os.close(descriptor)


def node() -> None:
    with bench() as (_, server, far, _settings):
        others = [far() for _ in range(4)]
        for other in others:
            for _ in range(5):
                other.order(f"kept models/model {MODEL}")
        for other in others:
            assert [other.answer() for _ in range(5)] == ["done"] * 5
        sent, _ = server.take_counts()
        print(f"20 clients, 4 processes, one model of {MODEL:,} bytes: the driver sent {sent:,}")
        for other in others:
            other.close()


def memory() -> None:
    with bench() as (home, server, far, _settings):
        others, million = [far() for _ in range(10)], 1_000_000
        for number, other in enumerate(others):  # connects, and warms up
            other.order(f"put updates/round-0000-client-{number:05d} {million}")
            assert other.answer() == "done"
        server.take_counts()
        before, most = _peak(), [0]
        over = threading.Event()
        threading.Thread(target=_watch, args=(over, most), daemon=True).start()
        began = time.perf_counter()
        for number, other in enumerate(others):
            other.order(f"burst {million} {20 * number}")
        assert [other.answer() for other in others] == ["done"] * 10
        seconds = time.perf_counter() - began
        over.set()
        _, received = server.take_counts()
        stored = len(list(home.path("updates").iterdir()))
        print(
            f"200 uploads of 1 MB at once: {stored} files, {received:,} bytes in {seconds:.1f} s; "
            f"driver's peak memory {before} MB before, {_peak()} MB after; {most[0]} threads at most"
        )
        for other in others:
            other.close()


def _watch(over: threading.Event, most: list[int]) -> None:
    while not over.wait(0.01):
        most[0] = max(most[0], threading.active_count())


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


if __name__ == "__main__":
    parts = {"speed": speed, "node": node, "memory": memory}
    asked = sys.argv[1:] or list(parts)
    if len(asked) == 1:
        parts[asked[0]]()
    else:  # a process for each: the peak of memory is one's own
        for part in asked:
            subprocess.run([sys.executable, __file__, part], check=True)
