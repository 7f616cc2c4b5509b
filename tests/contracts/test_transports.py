"""What every transport promises."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import pytest

from parslfl.errors import PayloadError
from parslfl.protocols import Transport
from parslfl.transport.file import File
from parslfl.transport.inline import Inline
from parslfl.transport.names import TRANSPORTS


@pytest.fixture(params=sorted(TRANSPORTS))
def transport(request: pytest.FixtureRequest, tmp_path: Path) -> Transport:
    return {"file": File(str(tmp_path)), "inline": Inline()}[request.param]


def test_what_is_put_comes_out(transport: Transport) -> None:
    ref = transport.put("updates/a", [b"one", memoryview(b"two")], "0123")
    assert bytes(transport.get(ref)) == b"onetwo"
    assert (ref.size, ref.checksum) == (6, "0123")


def test_the_other_side_reads_it_too(transport: Transport) -> None:
    ref = transport.put("a", [b"x" * 1000], "")
    there, sent = pickle.loads(pickle.dumps((transport, ref)))
    assert bytes(there.get(sent)) == b"x" * 1000


def test_putting_again_replaces(transport: Transport) -> None:
    transport.put("a", [b"old"], "")
    assert bytes(transport.get(transport.put("a", [b"new!"], ""))) == b"new!"


def test_nothing_is_also_something(transport: Transport) -> None:
    assert bytes(transport.get(transport.put("a", [], ""))) == b""


def test_a_wrong_size_is_refused(transport: Transport) -> None:
    ref = transport.put("a", [b"data"], "")
    with pytest.raises(PayloadError, match="4 bytes, announced 5"):
        transport.get(replace(ref, size=5))


def test_dropping_twice_is_fine(transport: Transport) -> None:
    ref = transport.put("a", [b"data"], "")
    transport.drop(ref)
    transport.drop(ref)


def test_what_is_read_cannot_be_written(transport: Transport) -> None:
    assert transport.get(transport.put("a", [b"data"], "")).readonly


def test_has_is_false_for_what_was_never_put(transport: Transport) -> None:
    assert not transport.has("closed/round-0000")
