"""Federated dropout in whole runs on real workers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from parslfl.errors import ConfigError
from parslfl.experiment import Experiment
from parslfl.orchestrator import rounds
from parslfl.sites import Federation

Make = Callable[..., Experiment]
SPEC = {"model": "cnn:width=16,hidden=32", "epochs": 2, "lr": 0.1, "per_round": 8, "partition": "iid"}


def test_half_the_units_learn_and_send_a_quarter(
    federation: Federation, experiment: Make, tmp_path: Path
) -> None:
    made = experiment(**SPEC, federated_dropout=0.5, rounds=8)
    reports = list(rounds(federation, made, tmp_path / "run"))
    assert not [failure for report in reports for failure in report.failures]
    whole = sum(a.nbytes for a in made.model.init(made.dataset.shape, made.dataset.classes, 0).values())
    sizes = {update.raw_bytes for report in reports for update in report.updates}
    assert max(sizes) < 0.35 * whole
    assert all(update.ref.size < 0.4 * whole for report in reports for update in report.updates)
    first, last = reports[0].accuracy or 0, reports[-1].accuracy or 0
    assert last > 0.5
    assert last > first + 0.2


def test_resumed_with_error_feedback_it_gives_the_same_bits(
    federation: Federation, experiment: Make, tmp_path: Path
) -> None:
    fields = {**SPEC, "federated_dropout": 0.5, "codec": "topk:ratio=0.1+quantize", "rounds": 3}
    whole = list(rounds(federation, experiment(**fields), tmp_path / "whole"))
    running = rounds(federation, experiment(**fields), tmp_path / "run")
    first = next(running)
    running.close()
    rest = list(rounds(federation, experiment(**fields), tmp_path / "run", resume=True))
    assert [report.model for report in whole] == [first.model, *(report.model for report in rest)][-3:]
    assert not [note for report in whole for update in report.updates for note in update.notes]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": "softmax"}, "softmax has no hidden units"),
        ({"strategy": "median"}, "median.* needs updates of the whole model"),
        ({"strategy": "scaffold"}, "scaffold.* needs updates of the whole model"),
    ],
)
def test_what_cannot_be_cut_is_told_before_the_run(
    federation: Federation, experiment: Make, tmp_path: Path, changes: dict[str, str], words: str
) -> None:
    made = experiment(**{**SPEC, **changes}, federated_dropout=0.5)
    with pytest.raises(ConfigError, match=f"federated_dropout: {words}"):
        next(rounds(federation, made, tmp_path / "run"))
