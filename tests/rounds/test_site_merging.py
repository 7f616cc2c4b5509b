"""Sites that add their clients' updates up themselves, on real workers."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from faltering import Faltering
from looking import guarded_by, task_seeds
from mischief import Mischief
from pydantic import ValidationError

from parslfl.errors import ConfigError, RunError
from parslfl.experiment import Experiment
from parslfl.orchestrator import rounds
from parslfl.reports import RoundReport
from parslfl.rundir import journal
from parslfl.sites import Federation, Site
from parslfl.strategies.fedavg import FedAvg

Make = Callable[..., Experiment]


@pytest.fixture(scope="module")
def two(federation: Federation) -> Callable[..., Federation]:
    """A site whose driver merges and one that merges itself, four clients and a worker each."""
    (site,) = federation.sites

    def make(east: str = "driver", west: str = "site") -> Federation:
        executor = site.executor.model_copy(update={"workers": 1})
        changes = {"clients": 4, "executor": executor}
        return Federation(
            sites=tuple(
                site.model_copy(update={**changes, "name": name, "merge": where})
                for name, where in (("east", east), ("west", west))
            )
        )

    return make


@pytest.fixture(scope="module")
def whole(
    two: Callable[..., Federation], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[RoundReport]]:
    path = tmp_path_factory.mktemp("whole") / "run"
    return path, list(rounds(two(), plain(), path))


def plain(**changes: object) -> Experiment:
    given = {"dataset": "synthetic:samples=800", "model": "softmax", "partition": "classes:k=2", "rounds": 3}
    return Experiment.model_validate({**given, "per_round": 8, "epochs": 1, **changes})


def test_only_one_sum_of_a_merging_site_comes_to_the_driver(
    whole: tuple[Path, list[RoundReport]],
) -> None:
    path, reports = whole
    for report in reports:
        assert len(report.updates) == 8
        (partial,) = report.partials
        assert (partial.site, partial.updates) == ("west", 4)
        east = sum(u.ref.size for u in report.updates if u.client.site == "east")
        assert report.bytes_up == east + partial.bytes_up
        assert partial.bytes_there == east
        assert partial.bytes_up * 4 == partial.bytes_there  # one of four updates of its size
    assert journal.reports(path) == reports
    assert not list(path.glob("updates*"))
    assert guarded_by(os.getpid()) == []


def test_resumed_is_bit_for_bit_the_same(
    whole: tuple[Path, list[RoundReport]], two: Callable[..., Federation], tmp_path: Path
) -> None:
    running = rounds(two(), plain(), tmp_path / "run")
    first = next(running)
    running.close()
    rest = list(rounds(two(), plain(), tmp_path / "run", resume=True))
    assert [first.model, *(r.model for r in rest)][-3:] == [r.model for r in whole[1]][-3:]


def test_merging_elsewhere_is_another_run(
    whole: tuple[Path, list[RoundReport]], two: Callable[..., Federation]
) -> None:
    with pytest.raises(RunError, match=r"clients: was .*4 at west, merged there, now .*4 at west\n"):
        next(rounds(two(west="driver"), plain(rounds=4), whole[0], resume=True))


def test_failures_of_every_kind_at_a_merging_site(two: Callable[..., Federation], tmp_path: Path) -> None:
    """In round 1 a client dies with its worker, twice; in round 2 one sends NaN."""
    site = two().sites[1]
    alone = Federation(sites=(site,))
    dies = Mischief("die", task_seeds(0, 1), str(tmp_path / "mark"))
    (first,) = rounds(alone, plain(rounds=1, per_round=4, model=dies), tmp_path / "dies")
    assert [(f.client.index, f.kind) for f in first.failures] == [(1, "lost")]
    assert first.partials[0].updates == len(first.updates) == 3
    nan = Mischief("nan", task_seeds(0, 2))
    (second,) = rounds(alone, plain(rounds=1, per_round=4, model=nan), tmp_path / "nan")
    assert [(f.client.index, f.kind) for f in second.failures] == [(2, "refused")]
    assert "NaN or Inf" in second.failures[0].reason
    assert second.partials[0].updates == 3


def test_a_merge_whose_worker_dies_is_tried_again_and_lost_for_good_costs_the_site(
    whole: tuple[Path, list[RoundReport]], two: Callable[..., Federation], tmp_path: Path
) -> None:
    once = Faltering(mark=str(tmp_path / "mark"))
    (report,) = rounds(two(), plain(rounds=1, strategy=once), tmp_path / "once")
    assert (tmp_path / "mark").exists()
    assert report.model == whole[1][0].model
    always = Faltering(mark=str(tmp_path / "mark"), always=True)
    (report,) = rounds(two(), plain(rounds=1, strategy=always), tmp_path / "always")
    assert [u.client.site for u in report.updates] == ["east"] * 4
    assert [(f.client.site, f.kind) for f in report.failures] == [("west", "lost")] * 4
    assert report.failures[0].reason.startswith("its site's merge was lost: WorkerLost")
    assert not list((tmp_path / "always").glob("updates/*"))


def test_the_fastest_alone_are_in_the_sum(two: Callable[..., Federation], tmp_path: Path) -> None:
    alone = Federation(sites=(two().sites[1],))
    (report,) = rounds(alone, plain(rounds=1, per_round=4, fastest=2, quorum=2), tmp_path / "run")
    assert len(report.updates) == report.partials[0].updates == 2
    assert [f.kind for f in report.failures] == ["late", "late"]


def test_a_deadline_closes_a_round_of_a_merging_site(two: Callable[..., Federation], tmp_path: Path) -> None:
    alone = Federation(sites=(two().sites[1],))
    deaf = Mischief("deaf", task_seeds(0, 3), seconds=10)
    experiment = plain(rounds=1, per_round=4, model=deaf, deadline=8, quorum=1)
    (report,) = rounds(alone, experiment, tmp_path / "run")
    assert [(f.client.index, f.kind) for f in report.failures] == [(3, "late")]
    assert report.partials[0].updates == 3
    assert report.seconds < 20


@dataclass(frozen=True)
class Median(FedAvg):
    """Needs all updates."""

    def combine(self, *_: object) -> None:
        """Only asked whether it is there."""


def test_a_strategy_that_must_see_every_update_is_refused(
    two: Callable[..., Federation], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"strategy: .*must see every update.*sites\.west\.merge=driver"):
        next(rounds(two(), plain(strategy=Median()), tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_site_without_a_shared_folder_cannot_merge() -> None:
    with pytest.raises(ValidationError, match="the transport 'inline' sends them to the driver"):
        Site.model_validate(
            {
                "name": "far",
                "clients": 1,
                "executor": {"kind": "local"},
                "transport": {"kind": "inline"},
                "merge": "site",
            }
        )
