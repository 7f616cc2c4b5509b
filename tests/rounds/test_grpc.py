"""Whole rounds over gRPC: the same bits as over files, no secret on disk, and resumption."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from parslfl.channels import Grpc
from parslfl.errors import RunError
from parslfl.experiment import Experiment
from parslfl.orchestrator import rounds
from parslfl.served import Served
from parslfl.sites import Federation

Make = Callable[..., Experiment]
#: Images whose model, of 41 KB, is too large to ride in a result.
LARGE = "synthetic:side=32"


@pytest.fixture
def over_grpc(federation: Federation) -> Federation:
    site = federation.sites[0].model_copy(update={"transport": Grpc()})
    return Federation(name="test", sites=(site,))


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Served]:
    """What the runs of a test listen with."""
    from parslfl import exchange

    opened: list[Served] = []
    serve = exchange.serve

    def remember(*args: object) -> Served:
        opened.append(serve(*args))  # type: ignore[arg-type]
        return opened[-1]

    monkeypatch.setattr(exchange, "serve", remember)
    return opened


def test_the_bits_of_a_file_run_and_one_download_a_node(
    federation: Federation, over_grpc: Federation, experiment: Make, tmp_path: Path
) -> None:
    plain = list(rounds(federation, experiment(dataset=LARGE), tmp_path / "file"))
    made = list(rounds(over_grpc, experiment(dataset=LARGE), tmp_path / "grpc"))
    assert [r.model for r in made] == [r.model for r in plain]
    assert [r.accuracy for r in made] == [r.accuracy for r in plain]
    assert [r.bytes_up for r in made] == [r.bytes_up for r in plain]
    assert [r.bytes_up > 4 * 40_000 for r in made] == [True, True]
    assert [4 * r.bytes_down for r in made] == [r.bytes_down for r in plain]


def test_a_strategys_state_reaches_the_clients_too(
    federation: Federation, over_grpc: Federation, experiment: Make, tmp_path: Path
) -> None:
    scaffold = experiment(dataset=LARGE, strategy="scaffold")
    plain = list(rounds(federation, scaffold, tmp_path / "file"))
    kept = over_grpc.sites[0].model_copy(update={"state": str(tmp_path / "kept")})
    made = list(rounds(Federation(sites=(kept,)), scaffold, tmp_path / "grpc"))
    assert [(r.model, r.failures) for r in made] == [(r.model, ()) for r in plain]
    assert [4 * r.bytes_down for r in made] == [r.bytes_down for r in plain]


def test_a_run_resumes_with_a_new_server_and_leaves_no_secret(
    over_grpc: Federation, experiment: Make, tmp_path: Path, served: list[Served]
) -> None:
    whole = [r.model for r in rounds(over_grpc, experiment(dataset=LARGE), tmp_path / "whole")]
    with closing(rounds(over_grpc, experiment(dataset=LARGE), tmp_path / "run")) as running:
        next(running)
    resumed = list(rounds(over_grpc, experiment(dataset=LARGE), tmp_path / "run", resume=True))
    assert resumed[-1].model == whole[-1]
    assert len(served) == len({one.transport.token for one in served}) == 3
    secrets = [text.encode() for one in served for text in (one.transport.token, one.transport.key)]
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert not any(secret in path.read_bytes() for secret in secrets), path
    for one in served:
        host, _, port = one.transport.address.rpartition(":")
        with pytest.raises(OSError, match="refused"):
            socket.create_connection((host, int(port)), timeout=5)


def test_strangers_are_told_of(
    over_grpc: Federation, experiment: Make, tmp_path: Path, served: list[Served],
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    with closing(rounds(over_grpc, experiment(), tmp_path / "run")) as running:
        next(running)
        host, _, port = served[0].transport.address.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=5) as stranger:
            stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
            while stranger.recv(100):
                pass
        with caplog.at_level(logging.WARNING, "parslfl"):
            list(running)
    assert f"here: 1 connections to {host}:{port} showed no certificate of this run" in caplog.text


def test_a_port_that_is_taken_is_told_before_anything_starts(
    over_grpc: Federation, experiment: Make, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        site = over_grpc.sites[0].model_copy(update={"transport": Grpc(address="127.0.0.1", port=port)})
        with pytest.raises(RunError, match=f"here: cannot listen on 127.0.0.1:{port}: .*name a free one"):
            list(rounds(Federation(sites=(site,)), experiment(), tmp_path / "run"))
