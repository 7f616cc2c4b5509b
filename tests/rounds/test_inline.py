"""Whole rounds whose models ride in tasks and whose updates ride in results, on real workers."""

from __future__ import annotations

import gc
import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from looking import task_seeds
from mischief import Mischief
from parsl.dataflow.dflow import DataFlowKernel
from parsl.dataflow.futures import AppFuture

from parslfl import fitting, graph
from parslfl.channels import Inline
from parslfl.errors import QuorumError, RunError
from parslfl.experiment import Experiment
from parslfl.messages import Ref, TrainTask, Update
from parslfl.orchestrator import rounds
from parslfl.reports import ClientSettled, Event, RoundReport, RoundStarted
from parslfl.rundir import journal
from parslfl.sites import Federation

Make = Callable[..., Experiment]
#: Images whose model, of 164 KB, is too large to stay in a result.
LARGE = "synthetic:samples=80,side=64"


@pytest.fixture
def inline(federation: Federation) -> Federation:
    return Federation(sites=(federation.sites[0].model_copy(update={"transport": Inline()}),))


@pytest.fixture(scope="module")
def plain(federation: Federation, tmp_path_factory: pytest.TempPathFactory) -> list[RoundReport]:
    """The run over files."""
    fields = {"model": "softmax", "partition": "iid", "rounds": 2, "per_round": 4, "epochs": 1}
    path = tmp_path_factory.mktemp("file") / "run"
    return list(rounds(federation, Experiment.model_validate({**fields, "dataset": LARGE}), path))


@pytest.fixture
def uncollected() -> Iterator[None]:
    """Python's cycle collector does not run."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


class Sent:
    """Train tasks in the order in which Parsl was given them, and the most that were not done."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clients: list[int] = []
        self.most, self._open, self._submit = 0, list[AppFuture](), graph.submit
        monkeypatch.setattr(graph, "submit", self.submit)

    def submit(
        self, kernel: DataFlowKernel, label: str, function: Callable[..., object], *args: object
    ) -> AppFuture:
        future = self._submit(kernel, label, function, *args)
        if isinstance(args[0], TrainTask):
            self.clients.append(args[0].client.index)
            self._open.append(future)
            self.most = max(self.most, sum(not one.done() for one in self._open))
        return future


@pytest.mark.usefixtures("uncollected")
def test_the_bits_of_a_file_run_and_no_bytes_in_results(
    plain: list[RoundReport],
    inline: Federation,
    experiment: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of the references that came, which Parsl holds until the collector runs, none has its bytes."""
    monkeypatch.setattr(graph, "AHEAD", 1)  # or all four go at once
    sent = Sent(monkeypatch)
    heard: list[Event] = []
    made = list(rounds(inline, experiment(dataset=LARGE), tmp_path / "run", watch=heard.append))
    assert [(r.model, r.accuracy) for r in made] == [(r.model, r.accuracy) for r in plain]
    assert [(r.bytes_down, r.bytes_up) for r in made] == [(r.bytes_down, r.bytes_up) for r in plain]
    assert made[0].bytes_up > 4 * 160_000
    assert journal.reports(tmp_path / "run") == made
    came = [e.outcome for e in heard if isinstance(e, ClientSettled) and isinstance(e.outcome, Update)]
    assert len(came) == 8
    assert all(update.ref.path.startswith("updates/round-000") for update in came)
    digests = {update.ref.checksum for update in came}
    left = [one for one in gc.get_objects() if type(one) is Ref and one.checksum in digests]
    assert len(left) > len(came)  # or nothing would have been looked at
    assert not any(one.data for one in left)
    assert (len(sent.clients), sent.most) == (8, 2)


def test_a_client_whose_worker_dies_makes_room_and_the_tasks_keep_their_order(
    inline: Federation, experiment: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = Sent(monkeypatch)
    model = Mischief("die", task_seeds(0, 0), str(tmp_path / "mark"))
    lone = Federation(sites=(inline.sites[0].model_copy(update={"retries": 0}),))
    (report,) = rounds(lone, experiment(model=model, rounds=1, per_round=8), tmp_path / "run")
    assert [(f.client.index, f.kind) for f in report.failures] == [(0, "lost")]
    assert (sent.clients, sent.most) == (list(range(8)), 4)
    assert (len(report.updates), report.incidents) == (7, ())


def test_what_had_no_turn_when_the_round_closed_is_not_sent(
    inline: Federation,
    experiment: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The last seven of eight clients sleep; the first one does not, and its update is enough."""
    sent = Sent(monkeypatch)
    model = Mischief("sleep", task_seeds(0, *range(1, 8)), seconds=2)
    (report,) = rounds(
        inline, experiment(model=model, rounds=1, per_round=8, fastest=1, quorum=1), tmp_path / "run"
    )
    assert sent.clients == [0, 1, 2, 3]
    assert {(f.kind, f.reason) for f in report.failures} == {("late", "not among the fastest 1")}
    assert len(report.failures) == 7
    assert journal.reports(tmp_path / "run") == [report]
    assert [one.message for one in caplog.records if one.levelno >= logging.WARNING] == []


def test_what_a_killed_driver_left_is_cleared_and_the_run_ends_with_the_same_bits(
    plain: list[RoundReport], inline: Federation, experiment: Make, tmp_path: Path
) -> None:
    updates, left = tmp_path / "run/updates", "round-0001-client-00000"
    with closing(rounds(inline, experiment(dataset=LARGE), tmp_path / "run")) as running:
        next(running)
    updates.mkdir()
    (updates / left).write_bytes(b"half of one")
    seen: list[bool] = []

    def look(event: Event) -> None:
        if isinstance(event, RoundStarted):
            seen.append((updates / left).exists())

    (last,) = rounds(inline, experiment(dataset=LARGE), tmp_path / "run", resume=True, watch=look)
    assert (last.model, last.bytes_up, seen) == (plain[1].model, plain[1].bytes_up, [False])
    assert not updates.exists()


def test_a_run_directory_that_cannot_be_written_costs_its_clients_and_no_patience(
    inline: Federation, experiment: Make, tmp_path: Path
) -> None:
    def spoil(event: Event) -> None:
        if isinstance(event, RoundStarted):
            shutil.rmtree(tmp_path / "run/updates")
            (tmp_path / "run/updates").touch()

    with pytest.raises(QuorumError, match=r"the driver cannot store updates in .*/run: File exists\. Mend"):
        list(rounds(inline, experiment(dataset=LARGE), tmp_path / "run", watch=spoil))


def test_a_model_too_large_for_tasks_is_refused_before_clients_train(
    inline: Federation, experiment: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting, "LARGEST", 160_000)
    heard: list[Event] = []
    with pytest.raises(RunError, match=r"here: the model has 164,\d+ bytes, more than the 160,000 that"):
        next(rounds(inline, experiment(dataset=LARGE), tmp_path / "run", watch=heard.append))
    assert not any(isinstance(event, RoundStarted) for event in heard)
