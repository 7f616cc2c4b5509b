"""However a driver on Slurm ends, its jobs end too."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from looking import wait_until

from parslfl.cli import main
from parslfl.sites import Federation, Site
from parslfl_executors.slurm_queue import Job, ask, cancel_labelled, label, read_jobs

Sites = Callable[..., Site]
Federate = Callable[..., Federation]

#: A driver whose first round never ends; its argument is the folder with its federation.
DRIVER = """
import sys
from pathlib import Path
from looking import task_seeds
from mischief import Mischief
from parslfl.experiment import Experiment
from parslfl.orchestrator import rounds
from parslfl.sites import Federation

path = Path(sys.argv[1])
federation = Federation.model_validate_json((path / "federation.json").read_text())
model = Mischief("sleep", task_seeds(0, *range(4)), seconds=600)
experiment = Experiment(dataset="digits", model=model, partition="iid", rounds=1, per_round=4, epochs=1)
list(rounds(federation, experiment, path / "run"))
"""


def jobs(path: Path) -> list[Job]:
    answer = ask(["squeue", "-h", "-o", "%i|%T|%r|%S|%L|%l|%N|%k"])
    ours = label(path / "run" / "parsl")
    return [job for job in read_jobs(answer.out) if job.comment == ours and job.alive]


def connected(block: Path) -> bool:
    """Whether its workers have spoken with the driver: Parsl's wait for ever for a first answer."""
    return any("Successfully connected" in log.read_text() for log in block.glob("*/manager.log"))


def start(federation: Federation, path: Path) -> subprocess.Popen[str]:
    """A driver with one block at work, and one that waits in the queue."""
    (path / "federation.json").write_text(federation.model_dump_json())
    places = [str(Path(__file__).parents[1] / "workers"), os.environ.get("PYTHONPATH", "")]
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(path)],
        env={**os.environ, "PYTHONPATH": ":".join(places)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    block = path / "run/parsl/hpc/block-0"
    at_work = wait_until(lambda: (connected(block) and len(jobs(path)) == 2) or driver.poll() is not None, 40)
    assert at_work, jobs(path)
    assert driver.poll() is None, driver.communicate()[1]
    assert sorted(job.state for job in jobs(path)) == ["PENDING", "RUNNING"]
    time.sleep(1)
    return driver


@pytest.fixture
def crowded(site: Sites, federation: Federate) -> Federation:
    """Two blocks of a whole node each, on one node: the second one pends."""
    return federation(site(cores_per_node=4, workers=1, scheduler_options="--nodelist=node4"))


def test_ctrl_c_cancels_running_and_pending_jobs(crowded: Federation, tmp_path: Path) -> None:
    driver = start(crowded, tmp_path)
    os.killpg(driver.pid, signal.SIGINT)
    driver.communicate(timeout=30)
    assert jobs(tmp_path) == []


def test_the_jobs_of_a_killed_driver_end_by_themselves_or_by_cleanup(
    crowded: Federation, tmp_path: Path
) -> None:
    driver = start(crowded, tmp_path)
    (running,) = (job.id for job in jobs(tmp_path) if job.state == "RUNNING")
    (pending,) = (job.id for job in jobs(tmp_path) if job.state == "PENDING")
    driver.kill()
    driver.communicate(timeout=30)
    # the heartbeat threshold, here 6 s: the running one ends, and the next one starts in its place
    assert wait_until(lambda: running not in [job.id for job in jobs(tmp_path)], 25)
    assert cancel_labelled(label(tmp_path / "run" / "parsl")) == [pending]
    assert jobs(tmp_path) == []


def test_a_killed_drivers_jobs_are_ended_by_the_command(
    crowded: Federation, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    driver = start(crowded, tmp_path)
    ids = sorted(job.id for job in jobs(tmp_path))
    assert main(["cleanup", str(tmp_path / "run")]) == 1
    assert "is being run by another process" in capsys.readouterr().err
    assert sorted(job.id for job in jobs(tmp_path)) == ids
    driver.kill()
    driver.communicate(timeout=30)
    assert main(["cleanup", str(tmp_path / "run")]) == 0
    assert f"hpc: ended slurm job {ids[0]}, slurm job {ids[1]}" in capsys.readouterr().out
    assert jobs(tmp_path) == []
