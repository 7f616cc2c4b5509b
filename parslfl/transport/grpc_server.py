"""The driver's end of the gRPC transport: serves models from the run directory, takes updates into it.

A caller needs a certificate and the token of this site's run, and gets no further than this: the
models that are out, the updates of this round's clients at this site, the closed rounds. Eight
uploads and eight downloads run at once; others wait, holding no more than their first message.

Does not know: what is in the files, or when a round begins.
"""

from __future__ import annotations

import hmac
import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import grpc

from parslfl.errors import PayloadError
from parslfl.transport import frames
from parslfl.transport.certificates import Certificates
from parslfl.transport.file import File
from parslfl.transport.uploads import Uploads

_log = logging.getLogger(__name__)

#: Uploads, and as many downloads, at once; a chunk of each is in memory.
_AT_ONCE = 8
#: Seconds without a chunk after which a call is ended, and between two looks.
_STALLED, _LOOK = 60.0, 5.0
_OPTIONS = [
    ("grpc.so_reuseport", 0),  # a port that is taken is an error, not shared
    ("grpc.keepalive_time_ms", 30_000),  # notices a worker whose machine is gone
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
]


@dataclass(frozen=True)
class Offer:
    """What callers may do now: fetch `models` (name to size), send `updates` of at most `limit` bytes."""

    models: Mapping[str, int]
    updates: frozenset[str]
    limit: int


class Server:
    """A listening server. `offer` may be exchanged at any time; each refusal is counted and logged."""

    def __init__(self, home: File, certificates: Certificates, token: str, listen: str, offer: Offer) -> None:
        """Listen on `listen`, HOST:PORT; port 0 takes any that is free, see `port`.

        Raises:
            OSError: that is not possible.
        """
        self.offer, self._sent, self._received = offer, 0, 0
        self.refused: Counter[str] = Counter()
        self._home, self._token = home, token.encode()
        self._uploads = Uploads(home)
        self._lock = threading.Lock()
        self._began, self._peers = 0, set[str]()
        self._calls: dict[Any, float] = {}
        self._ended = threading.Event()
        self._pools = {kind: ThreadPoolExecutor(most, f"grpc-{kind}")
                       for kind, most in (("get", _AT_ONCE), ("put", _AT_ONCE), ("has", 2))}  # fmt: skip
        self._server = grpc.server(self._pools["has"], handlers=[self], options=_OPTIONS)
        try:
            self.port = self._server.add_secure_port(listen, self._credentials(certificates))
        except RuntimeError as error:
            raise OSError(str(error)) from None
        self._server.start()
        threading.Thread(target=self._watch, daemon=True, name="grpc-watch").start()

    @property
    def strangers(self) -> int:
        """Connections that came without a certificate of this run, so far."""
        return max(0, self._began - len(self._peers))

    def take_counts(self) -> tuple[int, int]:
        """Bytes of payload (sent, received) since the last time."""
        with self._lock:
            counts, self._sent, self._received = (self._sent, self._received), 0, 0
        return counts

    def close(self) -> None:
        """End every call and forget unfinished uploads."""
        self._ended.set()
        self._server.stop(grace=0.2).wait()
        for pool in self._pools.values():
            pool.shutdown(wait=False, cancel_futures=True)
        self._uploads.clear()

    def keep_only(self, offer: Offer) -> None:
        """Exchange the offer, and forget the parts of updates that are no longer in it."""
        for name in self.offer.updates - offer.updates:
            self._uploads.discard(name)
        self.offer = offer

    def service(self, call: grpc.HandlerCallDetails) -> Any:
        """What gRPC asks for a way to answer `call`; None where there is none."""
        given = dict(call.invocation_metadata).get(frames.TOKEN, "")
        if not hmac.compare_digest(str(given).encode(), self._token):
            return grpc.stream_stream_rpc_method_handler(self._no_token)
        kinds: dict[str, tuple[Callable[..., Any], Callable[..., Any], str]] = {
            frames.GET: (grpc.unary_stream_rpc_method_handler, self._get, "get"),
            frames.PUT: (grpc.stream_stream_rpc_method_handler, self._put, "put"),
            frames.HAS: (grpc.unary_unary_rpc_method_handler, self._has, "has"),
        }
        if call.method not in kinds:
            return None
        kind, answer, pool = kinds[call.method]
        behaviour = partial(answer)
        # where gRPC does not know this attribute, all calls share the two threads of "has"
        behaviour.experimental_thread_pool = self._pools[pool]  # type: ignore[attr-defined]
        return kind(behaviour)

    def _get(self, message: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        with self._answering(context):
            asked = frames.read_header(message, "name", "size", "offset")
            size = self.offer.models.get(asked["name"])
            if size != asked["size"]:
                raise PayloadError(
                    f"the driver offers no model {asked['name']!r} of {asked['size']} bytes (any more)"
                )
            with self._home.path(asked["name"]).open("rb") as stream:
                done = asked["offset"]
                while chunk := os.pread(stream.fileno(), frames.CHUNK, done):
                    yield chunk
                    done += len(chunk)
                    self._count(context, sent=len(chunk))

    def _put(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        with self._answering(context):
            first = next(messages, None)
            if first is None:  # the caller has ended
                return
            asked = frames.read_header(first, "name", "size", "checksum")
            name, size = asked["name"], asked["size"]
            if name not in self.offer.updates:
                raise PayloadError(f"{name!r} is no update that this site owes in the round that is open")
            if size > self.offer.limit:
                raise PayloadError(f"an update of {size} bytes, where {self.offer.limit} are the most")
            yield frames.header(offset=self._uploads.begin(name, size, asked["checksum"], context))
            for chunk in messages:
                self._uploads.write(name, context, chunk)
                self._count(context, received=len(chunk))
            yield frames.header(offset=self._uploads.finish(name, context))

    def _has(self, message: bytes, context: grpc.ServicerContext) -> bytes:
        with self._answering(context):
            name = frames.read_header(message, "name")["name"]
            return frames.header(there=name.startswith("closed/") and self._home.has(name))

    def _no_token(self, _messages: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        self._peers.add(context.peer())
        self._refuse(
            context,
            grpc.StatusCode.UNAUTHENTICATED,
            "the driver refuses this worker, without the token of its run: it is left over from another",
            "token",
        )
        yield b""

    @contextmanager
    def _answering(self, context: grpc.ServicerContext) -> Iterator[None]:
        """Turn what goes wrong into a status with one sentence."""
        self._peers.add(context.peer())
        self._calls[context] = time.monotonic()
        try:
            yield
        except PayloadError as error:
            self._refuse(context, grpc.StatusCode.FAILED_PRECONDITION, str(error), "request")
        except OSError as error:
            why = f"the driver cannot read {self._home.root}: {error.strerror}"
            self._refuse(context, grpc.StatusCode.FAILED_PRECONDITION, why, "request")
        finally:
            self._calls.pop(context, None)

    def _refuse(self, context: grpc.ServicerContext, code: grpc.StatusCode, why: str, kind: str) -> None:
        with self._lock:
            self.refused[kind] += 1
        _log.warning("refused %s: %s", context.peer(), why)
        context.abort(code, why)

    def _count(self, context: grpc.ServicerContext, sent: int = 0, received: int = 0) -> None:
        self._calls[context] = time.monotonic()
        with self._lock:
            self._sent += sent
            self._received += received

    def _watch(self) -> None:
        """End calls that move nothing: a place among the eight is not for keeping."""
        while not self._ended.wait(_LOOK):
            old = time.monotonic() - _STALLED
            for context in [context for context, last in list(self._calls.items()) if last < old]:
                context.cancel()

    def _credentials(self, certificates: Certificates) -> grpc.ServerCredentials:
        driver = certificates.driver
        pair = (driver.key.encode(), driver.certificate.encode())
        config = grpc.ssl_server_certificate_configuration([pair], certificates.authority.encode())

        def begun() -> None:
            """Called for every connection: those that then fail to show a certificate call nothing."""
            self._began += 1

        return grpc.dynamic_ssl_server_credentials(config, begun, require_client_authentication=True)
