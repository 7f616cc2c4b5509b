"""Whole rounds whose models ride in tasks and whose updates ride in results, on real workers."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from parslfl import fitting
from parslfl.channels import Inline
from parslfl.errors import QuorumError, RunError
from parslfl.experiment import Experiment
from parslfl.messages import Ref, Update
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


@pytest.mark.usefixtures("uncollected")
def test_the_bits_of_a_file_run_and_no_bytes_in_results(
    plain: list[RoundReport], inline: Federation, experiment: Make, tmp_path: Path
) -> None:
    """Of the references that came, which Parsl holds until the collector runs, none has its bytes."""
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

    with pytest.raises(QuorumError, match=r"the driver cannot store updates in .*/run: File exists\. Free"):
        list(rounds(inline, experiment(dataset=LARGE), tmp_path / "run", watch=spoil))


def test_a_model_too_large_for_tasks_is_refused_before_clients_train(
    inline: Federation, experiment: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting, "LARGEST", 160_000)
    heard: list[Event] = []
    with pytest.raises(RunError, match=r"here: the model has 164,\d+ bytes, more than the 160,000 that"):
        next(rounds(inline, experiment(dataset=LARGE), tmp_path / "run", watch=heard.append))
    assert not any(isinstance(event, RoundStarted) for event in heard)
