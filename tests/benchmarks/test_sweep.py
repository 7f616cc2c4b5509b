"""Sweeps on digits: what is killed goes on, and the page says what the journals say."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import sweep
import sweep_runs
from fewer import Fewer
from sweep_grid import CODECS, CUTS, TABLES, Cut, Run, Setting, chosen, runs
from sweep_plot import curve
from sweep_runs import Outcome, left
from sweep_scores import accuracy, below, bytes_and_times, over_seeds
from sweep_tables import liars, methods

from parslfl.data.digits import Digits
from parslfl.data.partition import Classes
from parslfl.fitting import check
from parslfl.learning import LocalWork
from parslfl.reports import RoundReport
from parslfl.seeding import derive

ROUNDS = 40
SMALL = f"dataset=digits,model=softmax,clients=4,per_round=2,every=10,rounds={ROUNDS}"
#: 650 numbers of 4 bytes and 152 bytes of header, from each of two clients a round.
RAW = ROUNDS * 2 * (650 * 4 + 152)


def command(repository: Path, room: Path) -> list[str]:
    words = ["codecs", "--seeds", "3", "--cut", SMALL, "--only", "raw;topk:ratio=0.1"]
    return [
        sys.executable,
        str(repository / "benchmarks/sweep.py"),
        *words,
        *("--work", str(room / "work"), "--out", str(room / "out")),
    ]


def journals(room: Path) -> dict[str, bytes]:
    found = (room / "work").glob("codecs/*/seed-3/journal.jsonl")
    return {path.parts[-3].partition("-")[0]: path.read_bytes() for path in found}


def test_a_killed_sweep_goes_on_and_its_page_has_the_exact_bytes(repository: Path, tmp_path: Path) -> None:
    with subprocess.Popen(command(repository, tmp_path), stdout=subprocess.PIPE, text=True) as first:
        until = time.monotonic() + 60
        while journals(tmp_path).get("topk", b"").count(b"\n") < 4 and time.monotonic() < until:
            time.sleep(0.01)
        first.send_signal(signal.SIGKILL)
    killed = journals(tmp_path)
    assert not (tmp_path / "out").exists()

    done = subprocess.run(command(repository, tmp_path), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "1 of 2 runs are finished" in done.stdout
    after = journals(tmp_path)
    assert after["raw"] == killed["raw"]
    whole = killed["topk"].rpartition(b"\n")[0]
    assert after["topk"].startswith(whole)
    assert 0 < whole.count(b'"finished"') < after["topk"].count(b'"finished"') == ROUNDS

    page = (tmp_path / "out/codecs.md").read_text()
    assert f"| raw | no | {RAW:,} | 1.0 |" in page
    assert "| topk:ratio=0.1 | yes |" in page
    assert str(tmp_path) not in page
    assert (tmp_path / "out/codecs.svg").read_text().startswith("<?xml")

    again = subprocess.run(command(repository, tmp_path), capture_output=True, text=True, timeout=60)
    assert "2 of 2 runs are finished" in again.stdout
    assert (tmp_path / "out/codecs.md").read_text().splitlines()[6:] == page.splitlines()[6:]
    assert journals(tmp_path) == after


def test_a_run_that_diverges_is_a_result(tmp_path: Path) -> None:
    cut = CUTS["codecs"].changed("dataset=digits,model=softmax,clients=4,per_round=2,rounds=3,lr=1e300")
    (run,) = runs("codecs", chosen("codecs", ["raw"]), cut, [0], tmp_path)
    went = sweep_runs.complete(run)
    assert "quorum" in went.stopped.lower() or "updates" in went.stopped
    assert not sweep_runs.finished(run)
    outcome = sweep_runs.outcome(run, went.stopped)
    assert over_seeds([outcome], "end") == "1 of 1 stopped"
    assert bytes_and_times([outcome], [outcome])[1] == "-"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["codecs", "--cut", "epoch=2"], "did you mean 'epochs'?"),
        (["codecs", "--cut", "epochs=x"], "'x' is no int"),
        (["codecs", "--cut", "examples=2"], "examples above 0 and at most 1"),
        (["codecs", "--rounds", "0"], "rounds, epochs, every, clients, per_round are at least 1"),
        (["codecs", "--cut", "clients=0"], "rounds, epochs, every, clients, per_round are at least 1"),
        (["codecs", "--rounds", "9999999"], "--cut: rounds: expected at most 1,000,000, got 9999999\n"),
        (["codecs", "--cut", "lr=nan"], "sweep: --cut: lr: expected a finite number, got nan\n"),
        (
            ["codecs", "--cut", "dataset=foo"],
            "sweep: --cut: dataset: unknown dataset 'foo' (allowed: cifar10",
        ),
        (
            ["codecs", "--cut", "per_round=70"],
            "sweep: per_round: 70 clients a round, but the federation has 60",
        ),
        (["codecs", "--seeds", "0,a"], "--seeds 0,a: expected whole numbers"),
        (["codecs", "--seeds=-1"], "--seeds -1: expected whole numbers from 0"),
        (["codecs", "--seeds", "1,1"], "--seeds 1,1: expected whole numbers from 0, each once"),
        (["methods", "--only", "fedavgg"], "did you mean 'fedavg'?"),
        (["methods", "--only", "nope"], "no 'nope' (allowed: ditto, dynamic, fedadagrad,"),
    ],
)
def test_a_wrong_flag_is_told_in_a_sentence(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep.main([*words, "--plan"]) == 2
    shown = capsys.readouterr()
    assert said in shown.err
    assert shown.err.count("\n") == 1
    assert shown.out == ""


def made(setting: Setting, seed: int, *percents: float, sent: int = 100, stopped: str = "") -> Outcome:
    """An outcome with one round for each of `percents`, each scored."""
    cut = Cut(rounds=len(percents), epochs=1, every=1)
    (run,) = runs("codecs", [setting], cut, [seed], Path("nowhere"))
    reports = (
        RoundReport(r, "ab", (), (), 1.0, 0, sent, 2.0, accuracy=p / 100) for r, p in enumerate(percents)
    )
    return Outcome(run, tuple(reports), stopped)


def test_scores_of_runs_over_seeds() -> None:
    raw, topk = CODECS[0], CODECS[4]
    plain = [made(raw, 0, 10, 40, 50, 60), made(raw, 1, 20, 40, 70, 40)]
    mine = [made(topk, 0, 10, 20, 60, 40, sent=20), made(topk, 1, 20, 30, 60, 60, sent=30)]
    long = made(raw, 0, 10, 20, 30, 90, 50, 60, 70, 40)
    scores = [accuracy(long, score) for score in ("best", "last", "end")]
    assert scores == pytest.approx([90.0, 40.0, 55.0])  # the last quarter: rounds 7 and 8
    assert over_seeds(plain, "last") == "50.0 (40.0 to 60.0)"
    assert below(mine, plain, "best") == "+5.00"  # 60 - 60, 70 - 60
    assert below(mine[:1], plain, "last") == "+20.00"  # against the same seed alone
    assert bytes_and_times(mine, plain) == ["100", "4.0"]  # 400 of raw; 80 and 120
    assert curve(plain, against_bytes=False) == ([1, 2, 3, 4], pytest.approx([15, 40, 60, 50]))
    assert curve(mine, against_bytes=True)[0] == pytest.approx([25e-6, 50e-6, 75e-6, 100e-6])


def test_a_run_that_stopped_has_no_score() -> None:
    whole, early = made(CODECS[0], 0, 40.0), made(CODECS[0], 1, 50.0, stopped="round 1: no updates")
    assert over_seeds([whole, early], "best") == "40.0, 1 of 2 stopped"
    assert bytes_and_times([whole, early], [whole]) == ["100", "-"]


def test_strategies_are_rows_and_partitions_columns() -> None:
    avg = [s for s in TABLES["methods"] if s.name == "fedavg"]
    found = [made(avg[0], 0, 30.0), made(avg[1], 0, 40.0), made(avg[2], 0, 50.0)]
    assert "| fedavg | 30.0 | 40.0 | 50.0 |" in methods(found)[0]
    assert "SCAFFOLD 82.60" in "".join(methods(found))


def test_liars_are_held_against_the_mean_without_them() -> None:
    settings = {(s.name, s.attack): s for s in TABLES["liars"]}
    percents = {("fedavg", "no liars"): 50.0, ("fedavg", "x 100"): 10.0, ("median", "x 100"): 48.5}
    ends, lost, _ = liars([made(settings[key], 0, percent) for key, percent in percents.items()])
    assert "| strategy | iid, no liars | iid, x 100 |" in ends
    assert "| fedavg | 50.0 | 10.0 |" in ends
    assert "| fedavg | +0.00 | - | - | +40.00 |" in lost
    assert "| median | - | - | - | +1.50 |" in lost


def test_every_fifth_client_lies_in_every_round(tmp_path: Path) -> None:
    setting = next(s for s in TABLES["liars"] if s.attack == "turned, x 5")
    cut = CUTS["liars"].changed("dataset=digits,model=softmax,examples=1,rounds=2")
    (honest, lying) = (
        runs("liars", [s], cut, [0], tmp_path)[0] for s in (replace(setting, attack=""), setting)
    )
    start = honest.experiment.model.init((1, 8, 8), 10, 0)
    samples = Digits().train(Path(), np.arange(50))
    for client in range(cut.clients):
        seed = derive(0, "train", 1, client)
        told, meant = (
            run.experiment.model.train(start, samples, LocalWork(), seed, lambda: False).params["weight"]
            - start["weight"]
            for run in (lying, honest)
        )
        assert np.allclose(told, meant * (-5 if client in (3, 8) else 1), atol=1e-6), client
    assert lying.path != honest.path


def test_what_is_left_is_reckoned_by_setting_then_by_all() -> None:
    one, two, three = CODECS[:3]
    assert left([(one, 10), (one, 4)], [(one, 2.0)], 5.0) == 2 * 5 + 14 * 2
    assert left([(two, 10), (three, 1)], [(one, 2.0), (two, 4.0)], 1.0) == 2 + 10 * 4 + 3


def test_a_folder_is_another_when_the_cut_is() -> None:
    def path(cut: Cut, seed: int) -> Path:
        found: list[Run] = runs("codecs", CODECS[:1], cut, [seed], Path("w"))
        return found[0].path

    cut = CUTS["codecs"]
    assert path(cut, 0).parent == path(cut, 1).parent
    changed = [cut.changed(f"{key}=1") for key in ("rounds", "epochs", "every", "clients", "per_round", "lr")]
    folders = {path(one, 0) for one in [cut, *changed, cut.changed("examples=0.5")]}
    assert len(folders) == 1 + len([one for one in changed if one != cut]) + 1


@pytest.mark.parametrize("table", TABLES)
def test_every_run_of_a_table_can_begin(table: str) -> None:
    every = runs(table, TABLES[table], CUTS[table], [0, 1, 2], Path("w"))
    assert len({run.path for run in every}) == len(every) == 3 * len(TABLES[table])
    for run in every:
        check(run.federation, run.experiment)


def test_a_cut_can_take_another_partition() -> None:
    cut = CUTS["methods"].changed("split=dirichlet:alpha=1")
    every = runs("methods", chosen("methods", ["fedavg", "krum:hostile=4,keep=12"]), cut, [0], Path("w"))
    assert [(run.setting.name, run.setting.place) for run in every] == [
        ("fedavg", "dirichlet:alpha=1"),
        ("krum:hostile=4,keep=12", "dirichlet:alpha=1"),
    ]
    assert {str(run.experiment.partition) for run in every} == {
        "Fewer(partition=Dirichlet(alpha=1.0), share=0.4)"
    }


def test_fewer_keeps_each_clients_classes() -> None:
    labels = Digits().labels(Path())
    whole, some = Classes(k=2).split(labels, 10, 5), Fewer(Classes(k=2), 0.25).split(labels, 10, 5)
    assert [len(part) for part in some] == [round(len(part) / 4) for part in whole]
    assert all(set(part) <= set(all_of) for part, all_of in zip(some, whole, strict=True))
    assert all(list(part) == sorted(part) for part in some)
    assert {len(set(labels[part])) for part in some} == {2}
