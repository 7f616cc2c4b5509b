"""The run directory alone: begun, taken up, damaged."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from parslfl.codecs.topk import TopK
from parslfl.errors import RunError
from parslfl.folding import checkpoints
from parslfl.reports import RoundReport
from parslfl.rundir import journal
from parslfl.rundir.journal import RunDir

CONTENT = {"federation": {"sites": []}, "experiment": {"name": "x"}}
REPORT = RoundReport(0, "aa", (), (), 1.5, 80, 8, 0.5, 0.25, 2.0)


def begun(path: Path, rounds: int) -> None:
    """A run with so many rounds behind it."""
    run = RunDir.create(path, CONTENT)
    for round in range(rounds):
        run.finished(replace(REPORT, round=round), "")
        run.evaluated(replace(REPORT, round=round))
    run.close()


def test_a_run_is_not_begun_over_another(tmp_path: Path) -> None:
    begun(tmp_path, 1)
    with pytest.raises(RunError, match="already holds a run: continue it with --resume"):
        RunDir.create(tmp_path, CONTENT)
    assert len(journal.reports(tmp_path)) == 1


@pytest.mark.parametrize("left", ["journal.jsonl", "models/round-0002.plm"])
def test_what_is_left_of_a_run_without_its_description_is_not_taken_up(tmp_path: Path, left: str) -> None:
    begun(tmp_path, 1)
    (tmp_path / "run.yaml").unlink()
    if left != "journal.jsonl":
        (tmp_path / "journal.jsonl").unlink()
        (tmp_path / left).touch()
    with pytest.raises(RunError, match=r"but not its run.yaml: put that back, remove the directory"):
        RunDir.create(tmp_path, CONTENT)


def test_a_run_that_finished_no_round_is_begun_anew(tmp_path: Path) -> None:
    begun(tmp_path, 0)
    (tmp_path / "models" / "round-0000.plm").touch()
    (tmp_path / "metrics.jsonl").write_text("old")
    (tmp_path / "journal.jsonl").write_text('{"event": "fini')
    RunDir.create(tmp_path, {**CONTENT, "experiment": {"name": "new"}}).close()
    assert journal.described(tmp_path)["experiment"] == {"name": "new"}
    assert (tmp_path / "journal.jsonl").read_text() == (tmp_path / "metrics.jsonl").read_text() == ""
    assert list((tmp_path / "models").iterdir()) == []


def test_a_run_in_use_is_not_looked_at(tmp_path: Path) -> None:
    running = RunDir.create(tmp_path, CONTENT)
    with pytest.raises(RunError, match="being run by another process"):
        RunDir.create(tmp_path, CONTENT)
    running.close()


def test_a_refusal_releases_the_lock(tmp_path: Path) -> None:
    begun(tmp_path, 1)
    with pytest.raises(RunError):
        RunDir.create(tmp_path, CONTENT)
    RunDir.open(tmp_path).close()


def test_the_metrics_are_made_to_agree_with_the_journal(tmp_path: Path) -> None:
    begun(tmp_path, 3)
    before = (tmp_path / "metrics.jsonl").read_text()
    (tmp_path / "metrics.jsonl").write_text('{"round": 7}\n{"rou')
    RunDir.open(tmp_path).close()
    assert (tmp_path / "metrics.jsonl").read_text() == before
    assert [json.loads(line)["round"] for line in before.splitlines()] == [0, 1, 2]


@pytest.mark.parametrize("line", [b"\xff\xfe\n", b"{}\n", b"[]\n", b'{"event": "finished"}\n'])
def test_a_damaged_line_is_named(tmp_path: Path, line: bytes) -> None:
    begun(tmp_path, 1)
    with (tmp_path / "journal.jsonl").open("ab") as stream:
        stream.write(line)
    with pytest.raises(RunError, match=r"journal.jsonl:3 is damaged"):
        journal.reports(tmp_path)
    with pytest.raises(RunError, match=r"journal.jsonl:3 is damaged"):
        RunDir.open(tmp_path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\x80\x81\x00", "cannot be read"),
        (b"experiment: null\nfederation: {}\n", "is damaged"),
        (b"[1]", "is damaged"),
        (b"a: [", "cannot be read"),
    ],
)
def test_a_damaged_description_is_named(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "run.yaml").write_bytes(content)
    with pytest.raises(RunError, match=rf"run.yaml {said}"):
        journal.described(tmp_path)


def test_a_file_in_a_folders_place_is_named(tmp_path: Path) -> None:
    begun(tmp_path, 1)
    (tmp_path / "updates").write_text("")
    with pytest.raises(RunError, match=r"cannot write the run directory .*/updates: File exists"):
        RunDir.open(tmp_path)


def test_a_directory_that_goes_away_is_not_made_again(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path / "run", CONTENT)
    shutil.rmtree(run.path)
    with pytest.raises(RunError, match="is gone: it was removed while the run went on"):
        run.finished(REPORT, "")
    run.path.mkdir()
    with pytest.raises(RunError, match="is gone"):
        run.finished(REPORT, "")
    run.close()


def test_a_damaged_model_says_how_to_go_back(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path, CONTENT)
    run.finished(REPORT, "")
    good = checkpoints.write(run.model_path(1), {"w": np.ones(3, np.float32)})
    run.close()
    assert run.at(1, good, "").load()[0]["w"].tolist() == [1, 1, 1]
    with pytest.raises(RunError, match=r"round-0002.plm.*round-0001.plm is still there.*delete the last"):
        run.at(2, good, "").load()
    with pytest.raises(RunError, match=r"round-0001.plm: checksum [^.]*$"):
        run.at(1, "0", "").load()


def test_a_checkpoint_has_what_a_downlink_codec_left_out(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path, CONTENT)
    out = run.outgoing(1, TopK(), 7)
    assert out is not None
    assert run.outgoing(1, None, 7) is None
    model = checkpoints.write(run.model_path(1), {"w": np.ones(3, np.float32)})
    left = checkpoints.write(out.residual, {"w": np.zeros(3, np.float32)})
    checkpoints.write(run.model_path(0), {})
    run.finished(replace(REPORT, round=0, model=model), "", left)
    start = run.checkpoint()
    assert start is not None
    assert (start.round, start.residual) == (1, left)
    assert start.load()[2]["w"].tolist() == [0, 0, 0]
    run.forget(before=1)
    assert out.residual.exists()
    out.residual.write_bytes(out.residual.read_bytes()[:-1] + b"X")
    with pytest.raises(RunError, match=r"round-0001.residual: checksum"):
        start.load()
    run.forget(before=2)
    assert not out.residual.exists()
    run.close()
