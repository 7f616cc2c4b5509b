"""What every transport promises: workers read what the driver puts, and the driver what they put."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from grpc_bed import grpc_bed

from parslfl.errors import PayloadError
from parslfl.messages import Ref
from parslfl.protocols import Transport
from parslfl.transport.file import File
from parslfl.transport.inline import Inline
from parslfl.transport.landing import Landing
from parslfl.transport.names import TRANSPORTS
from parslfl.transport.proxystore import ProxyStore


@dataclass(frozen=True)
class Ends:
    """The driver's and the workers' end; `publish` makes the driver put a model."""

    driver: Transport
    worker: Transport
    publish: Callable[[bytes], Ref]


def store(folder: Path) -> ProxyStore:
    return ProxyStore("file", json.dumps({"store_dir": str(folder)}))


@pytest.fixture(params=sorted(TRANSPORTS))
def ends(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ends]:
    if request.param != "grpc":
        home = File(str(tmp_path))
        driver: Transport = {"file": home, "inline": Landing(home), "proxystore": store(tmp_path)}[
            request.param
        ]
        worker: Transport = Inline() if request.param == "inline" else driver
        yield Ends(driver, worker, lambda data: driver.put("models/a", [data], ""))  # type: ignore[no-any-return]
        return
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "node"))
    with grpc_bed(tmp_path / "driver") as bed:
        yield Ends(bed.home, bed.worker, bed.publish)


def test_what_a_worker_puts_comes_out(ends: Ends) -> None:
    ref = ends.worker.put("updates/a", [b"one", memoryview(b"two")], "0123")
    assert bytes(ends.driver.get(ref)) == b"onetwo"
    assert (ref.size, ref.checksum) == (6, "0123")


def test_the_other_side_reads_it_too(ends: Ends) -> None:
    sent = pickle.loads(pickle.dumps((ends.worker, ends.publish(b"x" * 1000))))
    there, ref = sent
    assert bytes(there.get(ref)) == b"x" * 1000


def test_putting_again_replaces(ends: Ends) -> None:
    ends.worker.put("updates/a", [b"old"], "")
    assert bytes(ends.driver.get(ends.worker.put("updates/a", [b"new!"], ""))) == b"new!"


def test_nothing_is_also_something(ends: Ends) -> None:
    assert bytes(ends.driver.get(ends.worker.put("updates/a", [], ""))) == b""
    assert bytes(ends.worker.get(ends.publish(b""))) == b""


def test_a_wrong_size_is_refused(ends: Ends) -> None:
    ref = ends.worker.put("updates/a", [b"data"], "")
    with pytest.raises(PayloadError, match="4 bytes, announced 5"):
        ends.driver.get(replace(ref, size=5))
    with pytest.raises(PayloadError, match="5"):
        ends.worker.get(replace(ends.publish(b"data"), size=5))


def test_dropping_twice_is_fine(ends: Ends) -> None:
    ref = ends.worker.put("updates/a", [b"data"], "")
    for end in (ends.driver, ends.driver, ends.worker):
        end.drop(ref)


def test_what_is_read_cannot_be_written(ends: Ends) -> None:
    assert ends.driver.get(ends.worker.put("updates/a", [b"data"], "")).readonly
    assert ends.worker.get(ends.publish(b"data")).readonly


def test_has_is_false_for_what_was_never_put(ends: Ends) -> None:
    assert not ends.worker.has("closed/round-0000")
    assert not ends.driver.has("closed/round-0000")
