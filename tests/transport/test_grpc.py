"""gRPC with mutual TLS between two ends on the loopback: who gets in, and what they may do."""

from __future__ import annotations

import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_bed import UPDATES, Bed, Line, grpc_bed
from looking import wait_until

from parslfl.errors import PayloadError
from parslfl.messages import Ref
from parslfl.transport import frames, grpc_client, node_cache
from parslfl.transport.certificates import issue
from parslfl.transport.grpc import RIDES

SIZE = 5 * frames.CHUNK + 17
#: Too large to ride in a result.
LARGE = bytes(RIDES + 1)
DATA = bytes(range(251)) * (SIZE // 251) + b"\7" * (SIZE % 251)


@pytest.fixture
def bed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bed]:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "node"))
    monkeypatch.setattr(grpc_client, "_PAUSE", 0.01)
    node_cache._joined.cache_clear()
    with grpc_bed(tmp_path / "driver") as made:
        yield made


def test_the_bytes_are_counted_as_they_cross(bed: Bed) -> None:
    ref = bed.publish(DATA)
    for _ in range(2):  # the second time from the node's own file
        assert bytes(bed.worker.get(ref)) == DATA
    sent = bed.worker.put("updates/a", [DATA[:1000], memoryview(DATA)[1000:]], "")
    assert bytes(bed.home.get(sent)) == DATA
    assert bed.server.take_counts() == (SIZE, SIZE)
    assert bed.server.take_counts() == (0, 0)


def test_a_small_update_rides_in_the_result(bed: Bed) -> None:
    small = bed.worker.put("updates/a", [b"one", memoryview(b"two")], "c")
    assert (small.data, small.path, bytes(bed.home.get(small))) == (b"onetwo", "", b"onetwo")
    large = bed.worker.put("updates/a", [LARGE], "c")
    assert (large.data, large.path, bytes(bed.home.get(large))) == (b"", "updates/a", LARGE)
    assert bed.server.take_counts() == (0, len(LARGE))
    for ref in (small, large):
        bed.home.drop(ref)
    assert not bed.home.has("updates/a")


def test_a_broken_upload_sends_nothing_twice(bed: Bed) -> None:
    line = Line(bed.server.port, [SIZE // 2, SIZE // 4])
    ref = bed.behind(line).put("updates/a", [DATA], "")
    assert bytes(bed.home.get(ref)) == DATA
    assert line.broken == 2
    assert bed.server.take_counts() == (0, SIZE)
    line.close()


def test_a_broken_download_goes_on(bed: Bed) -> None:
    ref = bed.publish(DATA)
    line = Line(bed.server.port, [SIZE // 2, SIZE // 4])
    assert bytes(bed.behind(line).get(ref)) == DATA
    sent, _ = bed.server.take_counts()
    assert line.broken == 2
    assert sent < 2 * SIZE
    line.close()


def test_a_line_that_never_holds_is_given_up(bed: Bed) -> None:
    line = Line(bed.server.port, [10] * 100)
    with pytest.raises(PayloadError, match=f"{line.address}"):
        bed.behind(line).put("updates/a", [DATA], "")
    line.close()


WORKER = """
import pickle, sys, tempfile
tempfile.tempdir = sys.argv[1]
worker, ref = pickle.loads(bytes.fromhex(sys.argv[2]))
print(sum(worker.get(ref)))
"""


def test_the_workers_of_a_node_fetch_a_model_once(bed: Bed, tmp_path: Path) -> None:
    ref = bed.publish(DATA)
    node = tmp_path / "node"
    node.mkdir()
    sent = pickle.dumps((bed.worker, ref)).hex()
    command = [sys.executable, "-c", WORKER, str(node), sent]
    workers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    sums = {worker.communicate(timeout=60)[0] for worker in workers}
    assert sums == {f"{sum(DATA)}\n"}
    assert bed.server.take_counts() == (SIZE, 0)


def test_many_at_once_wait_their_turn(bed: Bed) -> None:
    def put(name: str) -> bool:
        return bytes(bed.home.get(bed.worker.put(name, [DATA, name.encode()], ""))) == DATA + name.encode()

    with ThreadPoolExecutor(40) as pool:
        done = list(pool.map(put, sorted(UPDATES)))
        names = [f"updates/{number}" for number in range(40)]
        bed.server.keep_only(replace(bed.server.offer, updates=frozenset(names)))
        done += pool.map(put, names)
    assert done == [True] * 48


def test_a_closed_round_is_heard_of(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc_client, "_LOOK", 0.01)
    assert not bed.worker.has("closed/round-0001")
    bed.home.put("closed/round-0001", [], "")
    assert wait_until(lambda: bed.worker.has("closed/round-0001"), 5)
    bed.home.put("journal.jsonl", [], "")
    assert not bed.worker.has("journal.jsonl")


def test_asking_at_every_step_is_one_call_in_a_while(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []
    channel = grpc_client._channel
    monkeypatch.setattr(grpc_client, "_channel", lambda place: calls.append(place) or channel(place))
    monkeypatch.setattr(grpc_client, "_LOOK", 3600.0)
    assert not any(bed.worker.has("closed/round-0001") for _ in range(1000))
    assert len(calls) == 1


FORBIDDEN: list[tuple[Callable[[Bed], object], str]] = [
    (lambda bed: bed.worker.put("updates/z", [LARGE], ""), "'updates/z' is no update that this site owes"),
    (lambda bed: bed.worker.put("models/a", [LARGE], ""), "'models/a' is no update"),
    (lambda bed: bed.worker.put("updates/../journal", [LARGE], ""), "is no update"),
    (lambda bed: bed.worker.put("updates/a", [bytes((1 << 24) + 1)], ""), "16777217 bytes, where 16777216"),
    (lambda bed: bed.worker.get(Ref(4, "", path="updates/a")), "offers no model 'updates/a' of 4 bytes"),
    (lambda bed: bed.worker.get(Ref(4, "", path="../../etc/passwd")), "offers no model"),
]


@pytest.mark.parametrize(("act", "words"), FORBIDDEN)
def test_what_is_not_a_workers_business_is_refused(
    bed: Bed, act: Callable[[Bed], object], words: str
) -> None:
    with pytest.raises(PayloadError, match=words):
        act(bed)
    assert bed.server.refused == {"request": 1}
    assert not Path(bed.home.root, "updates").exists()


def test_a_wrong_token_is_refused(bed: Bed) -> None:
    stranger = replace(bed.worker, token="wrong")  # noqa: S106
    with pytest.raises(PayloadError, match="refuses this worker, without the token of its run"):
        stranger.put("updates/a", [LARGE], "")
    assert not stranger.has("closed/round-0000")
    assert bed.server.refused == {"token": 2}
    assert bed.server.strangers == 0


def test_certificates_of_another_run_are_refused(bed: Bed) -> None:
    other = issue()
    worker, theirs = bed.worker, other.worker
    for stranger in (
        replace(worker, certificate=theirs.certificate, key=theirs.key),
        replace(worker, authority=other.authority),
    ):
        with pytest.raises(PayloadError, match="is not the driver of this worker's run, or refuses its cert"):
            stranger.put("updates/a", [LARGE], "")
    assert bed.server.strangers >= 2
    assert bed.server.take_counts() == (0, 0)


def test_the_drivers_own_certificate_is_no_workers(bed: Bed) -> None:
    own = bed.certificates.driver
    with pytest.raises(PayloadError, match="refuses its certificate"):
        replace(bed.worker, certificate=own.certificate, key=own.key).put("updates/a", [LARGE], "")


@pytest.mark.parametrize("kind", ["plaintext", "no certificate"])
def test_others_do_not_even_get_to_ask(bed: Bed, kind: str) -> None:
    address, options = bed.worker.address, [("grpc.ssl_target_name_override", frames.DRIVER_NAME)]
    secure = grpc.ssl_channel_credentials(bed.worker.authority.encode())
    channel: Any = (
        grpc.insecure_channel(address)
        if kind == "plaintext"
        else grpc.secure_channel(address, secure, options)
    )
    with channel, pytest.raises(grpc.RpcError, match="UNAVAILABLE"):
        channel.unary_unary(frames.HAS)(
            frames.header(name="x"), timeout=5, metadata=((frames.TOKEN, "token"),)
        )
    assert bed.server.strangers == 1


def test_a_driver_that_is_gone_is_named_with_the_cure(bed: Bed) -> None:
    bed.server.close()
    with pytest.raises(PayloadError, match=f"cannot reach the driver at {bed.worker.address}: .*`address`"):
        bed.worker.put("updates/a", [LARGE], "")


def test_an_upload_that_stalls_loses_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("parslfl.transport.grpc_server._STALLED", 0.0)
    monkeypatch.setattr("parslfl.transport.grpc_server._LOOK", 0.05)
    let_go = threading.Event()

    def messages() -> Iterator[bytes]:
        yield frames.header(name="updates/a", size=10, checksum="")
        let_go.wait(20)

    with grpc_bed(tmp_path) as bed:
        call = grpc_client._channel(bed.worker).stream_stream(frames.PUT)
        replies = call(messages(), metadata=grpc_client._token(bed.worker))
        with pytest.raises(grpc.RpcError, match="CANCELLED"):
            list(replies)
        let_go.set()


def test_the_secrets_do_not_show(bed: Bed) -> None:
    assert "token" not in repr(bed.worker)
    assert "PRIVATE" not in repr(bed.certificates)
