"""Whole runs: what comes out, what is written, and that the same seed gives the same bits."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from looking import guarded_by

from parslfl.errors import ConfigError, DataError, RunError
from parslfl.experiment import Experiment
from parslfl.folding import checkpoints
from parslfl.orchestrator import rounds
from parslfl.reports import ClientSettled, Evaluated, Event, RoundClosed, RoundReport, RoundStarted
from parslfl.rundir import journal
from parslfl.sites import Federation

Make = Callable[..., Experiment]


@pytest.fixture(scope="module")
def whole(
    federation: Federation, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[RoundReport], list[Event]]:
    """Four rounds in one go, and every event of them."""
    path = tmp_path_factory.mktemp("whole") / "run"
    events: list[Event] = []
    experiment = Experiment.model_validate(
        {
            "dataset": "digits",
            "model": "softmax",
            "partition": "classes:k=2",
            "rounds": 4,
            "per_round": 4,
            "epochs": 1,
        }
    )
    return path, list(rounds(federation, experiment, path, watch=events.append)), events


def test_the_model_learns(whole: tuple[Path, list[RoundReport], list[Event]]) -> None:
    _, reports, _ = whole
    assert [r.round for r in reports] == [0, 1, 2, 3]
    assert all(len(r.updates) == 4 and not r.failures for r in reports)
    accuracy = [r.accuracy or 0 for r in reports]
    assert accuracy[-1] > accuracy[0]
    assert accuracy[-1] > 0.3
    assert len({r.model for r in reports}) == 4


def test_bytes_are_counted_as_written(whole: tuple[Path, list[RoundReport], list[Event]]) -> None:
    path, reports, _ = whole
    model = path / "models" / "round-0004.plm"
    assert reports[-1].bytes_down == 4 * model.stat().st_size
    assert reports[-1].bytes_up == sum(u.ref.size for u in reports[-1].updates) > 4 * 650 * 4
    assert all(u.raw_bytes == 650 * 4 for u in reports[-1].updates)


def test_events_come_in_order(whole: tuple[Path, list[RoundReport], list[Event]]) -> None:
    _, reports, events = whole
    kinds = [type(e) for e in events]
    assert kinds.count(RoundStarted) == kinds.count(RoundClosed) == kinds.count(Evaluated) == 4
    assert kinds.count(ClientSettled) == 16
    assert [e.report for e in events if isinstance(e, Evaluated)] == reports


def test_the_run_directory_tells_all(whole: tuple[Path, list[RoundReport], list[Event]]) -> None:
    path, reports, _ = whole
    assert journal.reports(path) == reports
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    assert [line["accuracy"] for line in lines] == [r.accuracy for r in reports]
    assert lines[0]["updates"] == 4
    described = journal.described(path)
    assert described["experiment"]["partition"] in {"classes", "classes:k=2"}
    assert described["versions"]["parsl"] != "not installed"
    assert sorted(p.name for p in (path / "models").iterdir()) == ["round-0003.plm", "round-0004.plm"]
    checkpoints.read(path / "models" / "round-0004.plm", reports[-1].model)
    assert not list(path.glob("updates*"))
    assert not list(path.glob("closed*"))


def test_nothing_is_left_running(whole: tuple[Path, list[RoundReport], list[Event]]) -> None:
    import os

    assert guarded_by(os.getpid()) == []


def test_resumed_is_bit_for_bit_the_same(
    federation: Federation, whole: tuple[Path, list[RoundReport], list[Event]], tmp_path: Path
) -> None:
    _, reports, _ = whole
    two = Experiment.model_validate(
        {
            "dataset": "digits",
            "model": "softmax",
            "partition": "classes:k=2",
            "rounds": 2,
            "per_round": 4,
            "epochs": 1,
        }
    )
    first = list(rounds(federation, two, tmp_path / "run"))
    with (tmp_path / "run" / "journal.jsonl").open("a") as stream:
        stream.write('{"event": "finis')  # a driver died while it wrote
    rest = list(rounds(federation, two.model_copy(update={"rounds": 4}), tmp_path / "run", resume=True))
    assert [r.model for r in first + rest] == [r.model for r in reports]
    assert [r.accuracy for r in first + rest] == [r.accuracy for r in reports]
    assert [r.round for r in rest] == [2, 3]


def test_a_round_whose_evaluation_was_lost_is_evaluated_on_resume(
    federation: Federation, whole: tuple[Path, list[RoundReport], list[Event]]
) -> None:
    path, reports, _ = whole
    lines = (path / "journal.jsonl").read_text().splitlines(keepends=True)
    assert json.loads(lines[-1])["event"] == "evaluated"
    (path / "journal.jsonl").write_text("".join(lines[:-1]))
    experiment = Experiment.model_validate(journal.described(path)["experiment"])
    again = list(rounds(federation, experiment, path, resume=True))
    assert [(r.round, r.accuracy, r.model) for r in again] == [(3, reports[-1].accuracy, reports[-1].model)]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"lr": 0.5}, "lr: was 0.05, now 0.5"),
        ({"seed": 1}, "seed: was 0, now 1"),
        ({"model": "cnn"}, "now 'cnn'"),
    ],
)
def test_another_experiment_is_refused(
    federation: Federation,
    experiment: Make,
    whole: tuple[Path, list[RoundReport], list[Event]],
    changes: dict[str, object],
    said: str,
) -> None:
    other = experiment(partition="classes:k=2", rounds=4, **changes)
    with pytest.raises(RunError, match="holds another experiment") as caught:
        next(rounds(federation, other, whole[0], resume=True))
    assert said in str(caught.value)


def test_another_federation_is_refused(
    federation: Federation, experiment: Make, whole: tuple[Path, list[RoundReport], list[Event]]
) -> None:
    with pytest.raises(RunError, match="clients: was 8 at here, now 9 at here"):
        next(rounds(federation.with_clients(9), experiment(partition="classes:k=2"), whole[0], resume=True))


def test_a_run_is_not_overwritten(
    federation: Federation, experiment: Make, whole: tuple[Path, list[RoundReport], list[Event]]
) -> None:
    with pytest.raises(RunError, match="already holds a run: continue it with --resume"):
        next(rounds(federation, experiment(), whole[0]))


def test_there_must_be_a_run_to_resume(federation: Federation, experiment: Make, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="holds no readable run|holds no run"):
        next(rounds(federation, experiment(), tmp_path / "nowhere", resume=True))


def test_a_damaged_checkpoint_is_noticed(federation: Federation, experiment: Make, tmp_path: Path) -> None:
    one = experiment(rounds=1)
    list(rounds(federation, one, tmp_path / "run"))
    model = tmp_path / "run" / "models" / "round-0001.plm"
    damaged = bytearray(model.read_bytes())
    damaged[-70] ^= 1
    model.write_bytes(damaged)
    two = one.model_copy(update={"rounds": 2})
    with pytest.raises(RunError, match=r"cannot use the checkpoint .*round-0001.plm: checksum"):
        next(rounds(federation, two, tmp_path / "run", resume=True))
    model.unlink()
    with pytest.raises(RunError, match=r"round-0001.plm: .*No such file.*round-0000.plm is still there"):
        next(rounds(federation, two, tmp_path / "run", resume=True))


def test_more_clients_than_samples(federation: Federation, experiment: Make, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="8 clients"):
        next(rounds(federation, experiment(dataset="synthetic:samples=5"), tmp_path / "run"))


def test_more_clients_a_round_than_there_are(
    federation: Federation, experiment: Make, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="9 clients a round, but the federation has 8"):
        next(rounds(federation, experiment(per_round=9), tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_run_in_use_is_refused(federation: Federation, experiment: Make, tmp_path: Path) -> None:
    running = rounds(federation, experiment(rounds=1), tmp_path / "run")
    next(running)
    with pytest.raises(RunError, match="being run by another process"):
        next(rounds(federation, experiment(rounds=2), tmp_path / "run", resume=True))
    running.close()


def test_inline_transport_gives_the_same_model(
    federation: Federation, whole: tuple[Path, list[RoundReport], list[Event]], tmp_path: Path
) -> None:
    site = federation.sites[0].model_dump() | {"transport": {"kind": "inline"}}
    inline = Federation.model_validate({"sites": [site]})
    experiment = Experiment.model_validate(
        {
            "dataset": "digits",
            "model": "softmax",
            "partition": "classes:k=2",
            "rounds": 1,
            "per_round": 4,
            "epochs": 1,
        }
    )
    (report,) = rounds(inline, experiment, tmp_path / "run")
    assert report.model == whole[1][0].model
    assert journal.reports(tmp_path / "run") == [report]


def test_a_shared_folder_of_its_own_is_used_and_removed(
    federation: Federation, whole: tuple[Path, list[RoundReport], list[Event]], tmp_path: Path
) -> None:
    site = federation.sites[0].model_dump() | {
        "transport": {"kind": "file", "path": str(tmp_path / "scratch")}
    }
    shared = Federation.model_validate({"sites": [site]})
    experiment = Experiment.model_validate(
        {
            "dataset": "digits",
            "model": "softmax",
            "partition": "classes:k=2",
            "rounds": 2,
            "per_round": 4,
            "epochs": 1,
        }
    )
    running = rounds(shared, experiment, tmp_path / "run")
    first = next(running)
    (own,) = (tmp_path / "scratch").iterdir()
    assert own.name.startswith("parslfl-")
    second = next(running)
    assert next(running, None) is None
    assert [first.model, second.model] == [r.model for r in whole[1][:2]]
    assert list((tmp_path / "scratch").iterdir()) == []


def test_a_federation_of_two_sites_trains_on_both(
    federation: Federation, experiment: Make, tmp_path: Path
) -> None:
    site = federation.sites[0]
    one_worker = site.executor.model_copy(update={"workers": 1})
    sites = tuple(
        site.model_copy(update={"name": n, "clients": 3, "executor": one_worker}) for n in ("east", "west")
    )
    both = Federation(name="both", sites=sites)
    (report,) = rounds(both, experiment(rounds=1, per_round=6), tmp_path / "run")
    assert [str(u.client) for u in report.updates] == [
        "east/0",
        "east/1",
        "east/2",
        "west/3",
        "west/4",
        "west/5",
    ]
    assert len({u.spent.pid for u in report.updates}) == 2
    assert report.accuracy is not None
