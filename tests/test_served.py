"""A site over gRPC: where it is listened on, what its workers may do in which round."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from parslfl.channels import Grpc
from parslfl.errors import PayloadError, RunError
from parslfl.messages import Client
from parslfl.served import Served, _addresses, serve
from parslfl.sites import Site
from parslfl.transport.file import File
from parslfl.transport.grpc import RIDES
from parslfl.transport.grpc import Grpc as WorkersEnd
from parslfl_executors.kubernetes import Kubernetes
from parslfl_executors.local import Local

CLIENTS = [Client(3, "here"), Client(4, "here")]
LARGE = bytes(RIDES + 1)
OWN = "127.0.0.1"


def site(**transport: Any) -> Site:
    return Site(name="here", clients=2, executor=Local(), transport=Grpc(**transport))


WHERE = [
    ({"address": OWN}, (OWN, 0, "127.0.0.1:0")),
    ({"address": OWN, "port": 5000}, (OWN, 5000, "127.0.0.1:5000")),
    ({"address": "gate.example.org", "port": 443}, ("gate.example.org", 443, "0.0.0.0:443")),
    (
        {"address": "gate.example.org", "port": 443, "listen": "0.0.0.0:54001"},
        ("gate.example.org", 443, "0.0.0.0:54001"),
    ),
    ({"address": "gate.example.org", "listen": ":54001"}, ("gate.example.org", 0, "0.0.0.0:54001")),
    ({"address": "2001:db8::1", "port": 7}, ("2001:db8::1", 7, "[::]:7")),
]


@pytest.mark.parametrize(("transport", "where"), WHERE)
def test_where_workers_come_and_where_the_driver_listens(
    transport: dict[str, Any], where: tuple[str, int, str]
) -> None:
    assert _addresses(site(**transport)) == where


def test_the_executors_address_is_the_transports_too() -> None:
    pods = Kubernetes(image="parslfl:1", address="gate.example.org")
    there = Site(name="here", clients=1, executor=pods, transport=Grpc(port=5))
    assert _addresses(there) == ("gate.example.org", 5, "0.0.0.0:5")


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "node"))
    made = serve(site(address=OWN), CLIENTS, File(str(tmp_path)))
    yield made
    made.close()


def test_before_the_first_round_only_the_first_model_may_come(served: Served) -> None:
    worker = served.transport
    worker.put("updates/initial", [LARGE], "")
    with pytest.raises(PayloadError, match="no update that this site owes"):
        worker.put("updates/round-0000-client-00003", [LARGE], "")


def test_a_round_takes_its_own_updates_and_no_others(served: Served) -> None:
    served.open_round(1, 1000)
    worker = served.transport
    worker.put("updates/round-0001-client-00004", [LARGE], "")
    for name in ("updates/round-0000-client-00004", "updates/round-0001-client-00005", "updates/initial"):
        with pytest.raises(PayloadError, match="no update that this site owes"):
            worker.put(name, [LARGE], "")
    most = 4 * 1000 + (1 << 20)
    with pytest.raises(PayloadError, match=f"an update of {most + 1} bytes, where {most} are the most"):
        worker.put("updates/round-0001-client-00003", [bytes(most + 1)], "")
    assert served.take_counts() == (0, len(LARGE))


def test_the_newest_files_are_served(served: Served, tmp_path: Path) -> None:
    home = File(str(tmp_path))
    refs = [home.put(f"models/{letter}", [letter.encode()], "") for letter in "abcde"]
    for ref in refs:
        served.offer(ref.path, ref.size)
    assert [bytes(served.transport.get(ref)) for ref in refs[1:]] == [b"b", b"c", b"d", b"e"]
    with pytest.raises(PayloadError, match="offers no model 'models/a'"):
        served.transport.get(refs[0])


def test_differences_do_not_drive_models_out(served: Served, tmp_path: Path) -> None:
    home = File(str(tmp_path))
    model = home.put("models/a", [b"model"], "")
    served.offer(model.path, model.size)
    refs = [home.put(f"differences/{number}", [b"d"], "") for number in range(9)]
    for ref in [*refs, refs[-1]]:
        served.offer(ref.path, ref.size)
    assert bytes(served.transport.get(model)) == b"model"
    assert [bytes(served.transport.get(ref)) for ref in refs[1:]] == [b"d"] * 8
    with pytest.raises(PayloadError, match="offers no model 'differences/0'"):
        served.transport.get(refs[0])


def test_an_address_that_is_not_ours_is_no_place_to_listen(tmp_path: Path) -> None:
    wrong = site(address="gate.example.org", listen="192.0.2.99:5000")
    with pytest.raises(RunError, match="here: cannot listen on 192.0.2.99:5000: .*must be this machine's"):
        serve(wrong, CLIENTS, File(str(tmp_path)))


@pytest.fixture
def without_grpc(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the extra is not installed."""
    for name in ("grpc_client", "grpc_server"):
        monkeypatch.delitem(sys.modules, f"parslfl.transport.{name}", raising=False)
        monkeypatch.delattr(f"parslfl.transport.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "grpc", None)


@pytest.mark.usefixtures("without_grpc")
def test_a_missing_package_names_the_extra(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"here: .*pip install 'parslfl\[grpc\]'"):
        serve(site(address=OWN), CLIENTS, File(str(tmp_path)))
    with pytest.raises(PayloadError, match=r"this worker cannot use gRPC: .*in the site's environment"):
        WorkersEnd("127.0.0.1:1", "", "", "", "").has("closed/round-0000")
