"""Compressed updates in whole runs on real workers: what they cost, and what error feedback gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from parslfl.data.digits import Digits
from parslfl.data.partition import Quantity
from parslfl.experiment import Experiment
from parslfl.learning import Evidence
from parslfl.orchestrator import rounds
from parslfl.reports import RoundReport
from parslfl.rundir import journal
from parslfl.seeding import derive
from parslfl.sites import Federation
from parslfl.strategies.fedavg import FedAvg

Make = Callable[..., Experiment]
#: 1 % of softmax's 650 numbers: 6 a client and round.
SPARSE = "topk:ratio=0.01"


def best(reports: list[RoundReport]) -> float:
    return max(report.accuracy or 0 for report in reports[-3:])


@pytest.fixture(scope="module")
def curves(federation: Federation, tmp_path_factory: pytest.TempPathFactory) -> dict[bool, list[RoundReport]]:
    """25 rounds of all 8 clients, with error feedback and without."""
    found = {}
    for feedback in (True, False):
        experiment = Experiment.model_validate(
            {
                "dataset": "digits",
                "model": "softmax",
                "partition": "classes:k=2",
                "rounds": 25,
                "per_round": 8,
                "epochs": 1,
                "lr": 0.1,
                "eval_every": 1,
                "codec": SPARSE,
                "error_feedback": feedback,
            }
        )
        path = tmp_path_factory.mktemp("feedback") / "run"
        found[feedback] = list(rounds(federation, experiment, path))
    return found


def test_top_1_percent_learns_clearly_better_with_error_feedback(
    curves: dict[bool, list[RoundReport]],
) -> None:
    assert best(curves[True]) > best(curves[False]) + 0.1


def test_killed_and_resumed_gives_the_same_bits(
    federation: Federation, experiment: Make, tmp_path: Path
) -> None:
    """Round 2 is begun twice: its clients have saved their residuals once when the driver dies."""
    fields = {"codec": "topk:ratio=0.05+quantize:bits=4+zstd", "per_round": 8, "rounds": 4}
    whole = list(rounds(federation, experiment(**fields), tmp_path / "whole"))
    running = rounds(federation, experiment(**fields), tmp_path / "run")
    first = [next(running), next(running)]
    running.close()
    lines = (tmp_path / "run" / "journal.jsonl").read_text().splitlines(keepends=True)
    kept = [number for number, line in enumerate(lines) if '"round": 2' in line and "finished" in line]
    (tmp_path / "run" / "journal.jsonl").write_text("".join(lines[: kept[0]] if kept else lines))
    rest = list(rounds(federation, experiment(**fields), tmp_path / "run", resume=True))
    done = {report.round: report.model for report in [*first, *rest]}
    assert [done[report.round] for report in whole] == [report.model for report in whole]
    assert not any(update.notes for report in rest for update in report.updates)


def test_all_bytes_are_counted_as_they_crossed(
    federation: Federation, experiment: Make, tmp_path: Path
) -> None:
    few = list(rounds(federation, experiment(rounds=1, codec="topk:ratio=0.05+zstd"), tmp_path / "few"))
    (report,) = journal.reports(tmp_path / "few")
    start = (tmp_path / "few" / "models" / "round-0000.plm").stat().st_size
    assert report == few[0]
    assert report.bytes_up == sum(update.ref.size for update in report.updates) < 4 * 650 * 4 / 4
    assert report.bytes_down == sum(update.bytes_down for update in report.updates) == 4 * start
    assert {update.raw_bytes for update in report.updates} == {650 * 4}


@dataclass(frozen=True)
class Refusing(FedAvg):
    """FedAvg that finds the weight of `samples` examples impossible the second time it sees them."""

    samples: int = 0
    seen: list[int] = field(default_factory=list, hash=False)

    def weight(self, evidence: Evidence) -> float:
        self.seen.append(evidence.samples)
        second = self.seen.count(self.samples) == 2 and evidence.samples == self.samples
        return -1.0 if second else float(evidence.samples)


def test_a_refused_update_rolls_its_client_back_and_its_bytes_are_counted(
    federation: Federation, experiment: Make, tmp_path: Path
) -> None:
    labels = Digits().labels(tmp_path)
    sizes = [len(part) for part in Quantity().split(labels, 8, derive(0, "partition"))]
    unlucky = next(index for index, size in enumerate(sizes) if sizes.count(size) == 1)
    strategy = Refusing(samples=sizes[unlucky])
    fields = {"codec": "topk:ratio=0.1+zstd", "partition": "quantity", "per_round": 8, "rounds": 3}
    reports = list(rounds(federation, experiment(strategy=strategy, **fields), tmp_path / "run"))
    assert [len(report.updates) for report in reports] == [8, 7, 8]
    (failure,) = reports[1].failures
    assert (failure.client.index, failure.kind) == (unlucky, "refused")
    assert reports[1].bytes_up == failure.bytes_up + sum(update.ref.size for update in reports[1].updates)
    assert failure.bytes_up > 0
    for index in range(8):
        folder = tmp_path / "run" / "clients" / f"client-{index:05d}" / "residual"
        accepted = 0 if index == unlucky else 1
        names = {f"round-{accepted:04d}.plm", "round-0002.plm"}
        assert {path.name for path in folder.iterdir()} == names
    assert not any(update.notes for report in reports for update in report.updates)
