"""The worker's calls: fetch, send and ask, going on where a broken transfer ended.

A call that fails for a passing reason is tried again after 0.5 s, 1 s, 2 s and so on, and given up
after six attempts in a row that moved nothing. What the driver refuses is not tried again.

Does not know: files, or what is sent.
"""

from __future__ import annotations

import os
import queue
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import grpc

from parslfl.errors import PayloadError
from parslfl.messages import Ref
from parslfl.transport import frames
from parslfl.transport.file import write_at

#: Attempts in a row that may move nothing, the seconds after the first, and at most.
_ATTEMPTS, _PAUSE, _LONGEST = 6, 0.5, 8.0
#: Seconds between two questions of a kind to the driver, and those that it has for an answer.
_LOOK, _ANSWER = 2.0, 5.0
#: Statuses of trouble on the way; all others are the driver's word.
_PASSING = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN,
            grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED,
            grpc.StatusCode.RESOURCE_EXHAUSTED}  # fmt: skip
_OPTIONS = [
    ("grpc.ssl_target_name_override", frames.DRIVER_NAME),
    ("grpc.enable_http_proxy", 0),  # as Parsl's own connections
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 5000),  # also the time to connect in
    ("grpc.max_reconnect_backoff_ms", 5000),
    ("grpc.keepalive_time_ms", 20_000),  # notices a driver whose machine is gone
    ("grpc.keepalive_timeout_ms", 10_000),
]


class Pass(Protocol):
    """What lets a worker in: see `grpc.Grpc`."""

    @property
    def address(self) -> str: ...
    @property
    def authority(self) -> str: ...
    @property
    def certificate(self) -> str: ...
    @property
    def key(self) -> str: ...
    @property
    def token(self) -> str: ...
    def __hash__(self) -> int: ...


@lru_cache(maxsize=4)
def _channel(place: Pass) -> grpc.Channel:
    secrets = (place.authority.encode(), place.key.encode(), place.certificate.encode())
    return grpc.secure_channel(place.address, grpc.ssl_channel_credentials(*secrets), _OPTIONS)


def _token(place: Pass) -> tuple[tuple[str, str], ...]:
    return ((frames.TOKEN, place.token),)


def fetch(place: Pass, ref: Ref, descriptor: int) -> None:
    """Write the bytes behind `ref` to the file `descriptor`.

    Raises:
        PayloadError: the driver refuses, or is not to be reached.
    """
    call = _channel(place).unary_stream(frames.GET)
    done = 0

    def attempt() -> None:
        nonlocal done
        asked = frames.header(name=ref.path, size=ref.size, offset=done)
        for chunk in call(asked, metadata=_token(place)):
            if done + len(chunk) > ref.size:
                raise PayloadError(f"the driver sent more than the {ref.size} bytes of {ref.path}")
            done += write_at(descriptor, chunk, done)
        if done < ref.size:
            raise PayloadError(f"the driver sent {done} of the {ref.size} bytes of {ref.path}")

    _persist(place, attempt, lambda: done)


def send(place: Pass, ref: Ref, buffers: Sequence[memoryview]) -> None:
    """Upload `buffers`, which `ref` describes.

    Raises:
        PayloadError: the driver refuses, or is not to be reached.
    """
    call = _channel(place).stream_stream(frames.PUT)
    done = 0

    def messages(begin: queue.SimpleQueue[int | None]) -> Iterator[bytes]:
        yield frames.header(name=ref.path, size=ref.size, checksum=ref.checksum)
        offset = begin.get()
        if offset is not None:
            yield from frames.chunks(buffers, offset)

    def attempt() -> None:
        nonlocal done
        begin: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        try:
            replies = call(messages(begin), metadata=_token(place))
            done = _offset(replies)
            begin.put(done)
            done = _offset(replies)
        finally:
            begin.put(None)  # grpc draws messages in a thread of its own: let it go

    _persist(place, attempt, lambda: done)


def _offset(replies: Iterator[bytes]) -> int:
    message = next(replies, b"")
    return int(frames.read_header(message, "offset")["offset"])


def _persist(place: Pass, attempt: Callable[[], None], progress: Callable[[], int]) -> None:
    tries, before = 0, 0
    while True:
        try:
            return attempt()
        except grpc.RpcError as error:
            tries = tries + 1 if progress() <= before else 1
            before = max(before, progress())
            if error.code() not in _PASSING or "handshake" in str(error.details()) or tries == _ATTEMPTS:
                raise _explained(place, error) from None
        jitter = 1 + os.getpid() % 16 / 32  # workers that failed together do not come back together
        time.sleep(min(_LONGEST, _PAUSE * 2 ** (tries - 1)) * jitter)


def _explained(place: Pass, error: Any) -> PayloadError:
    """One sentence with a cure: the driver's own, or what is known of the way to it."""
    said = " ".join(str(error.details()).split())
    if error.code() not in _PASSING:
        return PayloadError(said)
    if "handshake" in said or "Socket closed" in said:
        return PayloadError(
            f"what answers at {place.address} is not the driver of this worker's run, or refuses its "
            f"certificate: the driver was started again, or the address is another's ({said})"
        )
    return PayloadError(
        f"cannot reach the driver at {place.address}: {said}. Give the site's transport an `address` (and a "
        "fixed `port`) that its workers reach, or wait: the driver may have ended"
    )


@dataclass
class _Look:
    """What is known of one name, when to ask again, and the question that is under way."""

    answer: bool = False
    next: float = 0.0
    asked: Any = None


@lru_cache(maxsize=8)
def _look(_place: Pass, _name: str) -> _Look:
    return _Look()


def told(place: Pass, name: str) -> bool:
    """Whether the driver has said that `name` is there; one that cannot be reached has not."""
    look, now = _look(place, name), time.monotonic()
    if look.asked is None and not look.answer and now >= look.next:
        call = _channel(place).unary_unary(frames.HAS)
        look.asked = call.future(frames.header(name=name), timeout=_ANSWER, metadata=_token(place))
        first, look.next = not look.next, now + _LOOK
        if first:
            look.answer, look.asked = _there(look.asked), None
    elif look.asked is not None and look.asked.done():
        look.answer, look.asked = _there(look.asked), None
    return look.answer


def _there(asked: Any) -> bool:
    try:
        return bool(frames.read_header(asked.result(), "there")["there"])
    except (grpc.RpcError, PayloadError):
        return False
