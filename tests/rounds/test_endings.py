"""However a driver ends, no process outlives it and no finished round is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from looking import guarded_by, task_seeds, wait_until
from mischief import Mischief

from parslfl.channels import File, Grpc
from parslfl.experiment import Experiment
from parslfl.orchestrator import rounds
from parslfl.rundir import journal
from parslfl.sites import Federation

Make = Callable[..., Experiment]

#: A driver as a user would write it; its argument is the run directory.
DRIVER = """
import sys
from pathlib import Path
from parslfl.experiment import Experiment
from parslfl.orchestrator import rounds
from parslfl.sites import Federation, File, Grpc
from looking import task_seeds
from mischief import Mischief

path = Path(sys.argv[1])
federation = Federation.model_validate_json((path / "federation.json").read_text())
model = Mischief("sleep", task_seeds(2, *range(8)), seconds=60)
experiment = Experiment(dataset="digits", model=model, partition="iid", rounds=4, per_round=4, epochs=1)
for report in rounds(federation, experiment, path / "run", resume=(path / "run").exists()):
    print(report.round, report.model, flush=True)
"""


def start(federation: Federation, path: Path) -> subprocess.Popen[str]:
    """A driver that has two rounds behind it and hangs in the third."""
    (path / "federation.json").write_text(federation.model_dump_json())
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "workers")}
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(path)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert wait_until(lambda: len(finished(path)) == 2 or driver.poll() is not None, 60)
    assert driver.poll() is None, driver.communicate()[1]
    assert len(guarded_by(driver.pid)) >= 4  # interchange, worker pool, workers
    return driver


def finished(path: Path) -> list[int]:
    return [r.round for r in journal.reports(path / "run")]


@pytest.mark.parametrize("signals", [[signal.SIGINT], [signal.SIGINT, signal.SIGINT], [signal.SIGKILL]])
def test_nothing_outlives_the_driver(federation: Federation, tmp_path: Path, signals: list[int]) -> None:
    driver = start(federation, tmp_path)
    there = guarded_by(driver.pid)
    for number in signals:
        os.killpg(driver.pid, number)  # as a terminal does: to the whole group
        time.sleep(0.3)
    driver.communicate(timeout=30)
    assert wait_until(lambda: not any(_lives(p) for p in there), 15), [
        p.cmdline() for p in there if _lives(p)
    ]
    assert guarded_by(driver.pid) == []
    assert finished(tmp_path) == [0, 1]


@pytest.mark.parametrize("transport", [File(), Grpc()])
def test_a_killed_driver_is_resumed_to_the_same_model(
    federation: Federation, experiment: Make, tmp_path: Path, transport: File | Grpc
) -> None:
    site = federation.sites[0].model_copy(update={"transport": transport})
    driver = start(Federation(sites=(site,)), tmp_path)
    os.kill(driver.pid, signal.SIGKILL)
    driver.communicate(timeout=30)
    resumed = experiment(
        model=Mischief("sleep", task_seeds(2, *range(8)), seconds=0.1), rounds=4, partition="iid"
    )
    straight = list(rounds(federation, resumed, tmp_path / "straight"))
    described = (tmp_path / "run" / "run.yaml").read_text()
    (tmp_path / "run" / "run.yaml").write_text(described.replace("seconds=60", "seconds=0.1"))
    rest = list(rounds(Federation(sites=(site,)), resumed, tmp_path / "run", resume=True))
    assert [r.round for r in rest][-2:] == [2, 3]
    assert rest[-1].model == straight[-1].model


def test_closing_the_iterator_stops_everything(
    federation: Federation, experiment: Make, tmp_path: Path
) -> None:
    running = rounds(federation, experiment(rounds=50), tmp_path / "run")
    next(running)
    there = guarded_by(os.getpid())
    assert len(there) >= 4
    running.close()
    assert wait_until(lambda: not any(_lives(p) for p in there), 10)
    next(rounds(federation, experiment(rounds=50), tmp_path / "run", resume=True))


def _lives(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
