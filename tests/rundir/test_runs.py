"""Which run directory is used, and what may differ when its run goes on."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml

from parslfl.errors import RunError
from parslfl.experiment import Experiment
from parslfl.reports import RoundReport
from parslfl.rundir import journal
from parslfl.rundir.runs import finished, fresh_path, open_run
from parslfl.sites import Federation, Site
from parslfl_executors.local import Local


def federation(threads: int | None = 2) -> Federation:
    executor = Local(workers=1, threads=threads)
    return Federation(sites=(Site(name="here", clients=4, executor=executor),))


def edited(path: Path, **changes: object) -> None:
    content = yaml.safe_load((path / "run.yaml").read_text())
    (path / "run.yaml").write_text(yaml.safe_dump({**content, **changes}))


def test_callers_at_the_same_time_get_folders_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        paths = list(pool.map(lambda _: fresh_path("mine"), range(24)))
    assert len(set(paths)) == 24
    assert all(path.is_dir() for path in paths)


def test_a_file_called_runs_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").touch()
    with pytest.raises(RunError, match="runs"):
        fresh_path("mine")


def test_how_a_round_closes_may_change(tmp_path: Path) -> None:
    open_run(tmp_path, federation(), Experiment(per_round=4), resume=False).close()
    changed = Experiment(per_round=4, quorum=1, deadline=60, fastest=2, rounds=3)
    open_run(tmp_path, federation(), changed, resume=True).close()
    assert journal.described(tmp_path)["experiment"]["rounds"] == 3  # what a later resume goes on with
    with pytest.raises(RunError, match="device: was 'auto', now 'cpu'"):
        open_run(tmp_path, federation(), Experiment(per_round=4, device="cpu"), resume=True)


def test_the_cpu_threads_are_kept_and_must_be_the_same(tmp_path: Path) -> None:
    open_run(tmp_path, federation(2), Experiment(), resume=False).close()
    assert journal.described(tmp_path)["resolved"] == {"here": {"threads": 2}}
    said = r"here: was 2, now 3: --set sites.here.executor.threads=2"
    with pytest.raises(RunError, match=said):
        open_run(tmp_path, federation(3), Experiment(), resume=True)
    open_run(tmp_path, federation(2), Experiment(), resume=True).close()


def test_a_run_that_does_not_say_its_threads_goes_on(tmp_path: Path) -> None:
    open_run(tmp_path, federation(2), Experiment(), resume=False).close()
    edited(tmp_path, resolved=None)
    open_run(tmp_path, federation(3), Experiment(), resume=True).close()


def test_other_versions_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    open_run(tmp_path, federation(), Experiment(), resume=False).close()
    open_run(tmp_path, federation(), Experiment(), resume=True).close()
    assert caplog.text == ""
    edited(tmp_path, versions={"numpy": "1.0", "parsl": "0"})
    open_run(tmp_path, federation(), Experiment(), resume=True).close()
    assert "numpy was 1.0, now " in caplog.text
    assert "parsl was" not in caplog.text


def test_a_spec_written_shorter_is_the_same(tmp_path: Path) -> None:
    open_run(tmp_path, federation(), Experiment(), resume=False).close()
    before = {**Experiment().resolved(), "partition": "classes", "strategy": "fedavg"}
    edited(tmp_path, experiment=before)
    open_run(tmp_path, federation(), Experiment(), resume=True).close()


def test_a_description_without_sites_is_damaged(tmp_path: Path) -> None:
    open_run(tmp_path, federation(), Experiment(), resume=False).close()
    edited(tmp_path, federation={"sites": [3]})
    with pytest.raises(RunError, match=r"run.yaml is damaged: its federation has no sites"):
        open_run(tmp_path, federation(), Experiment(), resume=True)


def test_a_look_refuses_what_a_run_would_and_writes_nothing(tmp_path: Path) -> None:
    path, asked = tmp_path / "run", Experiment(per_round=4)
    assert finished(path, federation(), asked, resume=False) == []
    with pytest.raises(RunError, match="holds no run"):
        finished(path, federation(), asked, resume=True)
    assert not path.exists()
    run = open_run(path, federation(), asked, resume=False)
    done = RoundReport(0, "ab", (), (), 1.0, 0, 0, 2.0)
    run.finished(done, "")
    run.close()
    assert finished(path, federation(), asked, resume=True) == [done]
    with pytest.raises(RunError, match="already holds a run"):
        finished(path, federation(), asked, resume=False)
    with pytest.raises(RunError, match="lr: was 0.05, now 0.1"):
        finished(path, federation(), Experiment(per_round=4, lr=0.1), resume=True)
    with pytest.raises(RunError, match="here: was 2, now 3"):
        finished(path, federation(3), asked, resume=True)
