"""Each task says which of its client's updates was the last to be folded, also after a resume."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from mischief import Mischief

from parslfl import closing, graph
from parslfl.experiment import Experiment
from parslfl.messages import TrainTask
from parslfl.orchestrator import rounds
from parslfl.rundir import journal
from parslfl.seeding import derive
from parslfl.sites import Federation

Make = Callable[..., Experiment]


@pytest.fixture
def tasks(monkeypatch: pytest.MonkeyPatch) -> list[TrainTask]:
    """Every train task that is submitted."""
    seen: list[TrainTask] = []
    submit = graph.submit_round

    def record(kernel: object, job: graph.Round, closing: closing.Closing) -> graph.Flight:
        seen.extend(job.train_tasks)
        return submit(kernel, job, closing)  # type: ignore[arg-type]

    monkeypatch.setattr(graph, "submit_round", record)
    return seen


def test_a_task_names_the_last_round_that_took_its_clients_update(
    federation: Federation, experiment: Make, tasks: list[TrainTask], tmp_path: Path
) -> None:
    failing = derive(0, "train", 1, 0)  # client 0 in round 1
    model = Mischief("raise", (failing,))
    fields = {"model": model, "error_feedback": True, "per_round": 8}
    list(rounds(federation, experiment(rounds=2, **fields), tmp_path / "run"))
    list(rounds(federation, experiment(rounds=3, **fields), tmp_path / "run", resume=True))
    told = [[task.accepted for task in tasks if task.round == round] for round in range(3)]
    assert told == [[-1] * 8, [0] * 8, [0] + [1] * 7]
    assert {task.store for task in tasks} == {str(tmp_path / "run" / "clients")}
    assert [f.client.index for r in journal.reports(tmp_path / "run") for f in r.failures] == [0]


def test_where_nobody_keeps_state_no_task_names_a_store(
    federation: Federation, experiment: Make, tasks: list[TrainTask], tmp_path: Path
) -> None:
    list(rounds(federation, experiment(rounds=1), tmp_path / "run"))
    assert {task.store for task in tasks} == {""}
