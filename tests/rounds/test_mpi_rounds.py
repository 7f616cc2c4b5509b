"""Whole runs with an MPI site: four ranks on this machine."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from counting import Counting
from looking import guarded_by, no_rank_left, task_seeds, wait_until

from parslfl.errors import RunError
from parslfl.experiment import Experiment
from parslfl.folding import checkpoints
from parslfl.orchestrator import rounds
from parslfl.rundir import journal
from parslfl.sites import Federation, Site

WORKERS = Path(__file__).parents[1] / "workers"
Make = Callable[..., Experiment]

pytestmark = pytest.mark.usefixtures("_mpi")


@pytest.fixture(scope="module")
def _mpi() -> None:
    pytest.importorskip("mpi4py")


def site(clients: int = 4, transport: str = "file", **executor: Any) -> Site:
    init = f"export PYTHONPATH={WORKERS}:{os.environ.get('PYTHONPATH', '')}"
    given = {"kind": "mpi", "ranks_per_node": 4, "worker_init": init, **executor}
    return Site.model_validate(
        {"name": "mpi", "clients": clients, "executor": given, "transport": {"kind": transport}}
    )


def counted(**changes: object) -> Experiment:
    given = {"dataset": "synthetic:samples=40", "model": Counting(), "partition": "iid", "rounds": 2}
    return Experiment.model_validate({**given, "per_round": 4, **changes})


def test_rounds_on_four_ranks_beside_a_site_of_workers(federation: Federation, tmp_path: Path) -> None:
    """Eight clients of ten examples each add (10, 1, 0.1), so their mean does."""
    (here,) = federation.sites
    both = Federation(sites=(here.model_copy(update={"clients": 4}), site()))
    experiment = counted(dataset="synthetic:samples=80", per_round=8)
    reports = list(rounds(both, experiment, tmp_path / "run"))
    model = checkpoints.read(tmp_path / "run/models/round-0002.plm", reports[-1].model)
    assert model["w"].tolist() == pytest.approx([20, 2, 0.2])
    for report in reports:
        assert len(report.updates) == 8
        assert len({u.spent.pid for u in report.updates if u.client.site == "mpi"}) == 4
        (partial,) = report.partials
        assert (partial.site, partial.updates) == ("mpi", 4)
        apart = [u.ref.size for u in report.updates if u.client.site == "here"]
        assert report.bytes_up == sum(apart) + partial.bytes_up
        size = report.bytes_down // 5  # four workers read the model, and one rank for all
        assert report.bytes_down == 5 * size
    assert journal.reports(tmp_path / "run") == reports
    assert guarded_by(os.getpid()) == []
    assert no_rank_left()


def test_a_dead_rank_costs_one_round_s_sum_and_the_next_round_works(
    federation: Federation, tmp_path: Path
) -> None:
    (here,) = federation.sites
    both = Federation(sites=(here.model_copy(update={"clients": 4}), site()))
    dies = Counting(mark=str(tmp_path / "mark"), victim=task_seeds(0, 6)[0])
    experiment = counted(dataset="synthetic:samples=80", per_round=8, quorum=4, model=dies)
    first, second = rounds(both, experiment, tmp_path / "run")
    assert [f.client.index for f in first.failures] == [4, 5, 6, 7]
    assert {f.kind for f in first.failures} == {"lost"}
    assert "Killed (signal 9)" in first.failures[0].reason
    assert first.partials == ()
    assert len(second.updates) == 8
    assert second.partials[0].updates == 4
    assert no_rank_left()


def test_resumed_is_bit_for_bit_the_same(tmp_path: Path, experiment: Make) -> None:
    alone = Federation(sites=(site(transport="inline"),))
    whole = list(rounds(alone, experiment(rounds=2, dataset="synthetic:samples=400"), tmp_path / "whole"))
    running = rounds(alone, experiment(rounds=2, dataset="synthetic:samples=400"), tmp_path / "run")
    first = next(running)
    running.close()
    assert wait_until(no_rank_left, 10)
    rest = list(
        rounds(alone, experiment(rounds=2, dataset="synthetic:samples=400"), tmp_path / "run", resume=True)
    )
    assert [first.model, rest[-1].model] == [report.model for report in whole]
    fewer = Federation(sites=(site(transport="inline", ranks_per_node=2),))
    with pytest.raises(RunError, match="was 4 at mpi in 1 x 4 ranks .* now 4 at mpi in 1 x 2 ranks"):
        next(
            rounds(
                fewer, experiment(rounds=3, dataset="synthetic:samples=400"), tmp_path / "run", resume=True
            )
        )


def test_the_model_is_that_of_workers_up_to_rounding(
    federation: Federation, experiment: Make, tmp_path: Path
) -> None:
    """By the driver, at the site, by ranks: with state at the site, and two sums of each update."""
    (here,) = federation.sites
    worker = here.model_copy(update={"name": "mpi", "clients": 4})
    given = {"driver": worker, "site": worker.model_copy(update={"merge": "site"}), "ranks": site()}
    asked = experiment(rounds=2, dataset="synthetic:samples=400", strategy="scaffold")
    models = []
    for name, one in given.items():
        *_, report = rounds(Federation(sites=(one,)), asked, tmp_path / name)
        models.append(checkpoints.read(tmp_path / name / "models/round-0002.plm", report.model))
    for other in models[1:]:
        assert all(np.allclose(models[0][k], other[k], rtol=1e-4, atol=1e-6) for k in models[0])


def test_ranks_reach_the_driver_over_grpc_too(experiment: Make, tmp_path: Path) -> None:
    """Small sums ride in the result, large ones are sent: here as large as a network's."""
    pytest.importorskip("grpc")
    asked = experiment(rounds=1, dataset="synthetic:samples=40,side=128", model="softmax")
    models = []
    for kind in ("file", "grpc"):
        (report,) = rounds(Federation(sites=(site(transport=kind),)), asked, tmp_path / kind)
        (partial,) = report.partials
        assert report.bytes_up >= partial.bytes_up > 600_000
        models.append(report.model)
    assert models[0] == models[1]


def test_a_deadline_takes_what_ranks_have_done_by_then(tmp_path: Path) -> None:
    alone = Federation(sites=(site(),))
    slow = Counting(seconds=120)
    (report,) = rounds(alone, counted(rounds=1, model=slow, deadline=20, quorum=1), tmp_path / "run")
    assert len(report.updates) == 4
    assert report.seconds < 30
