"""Whole rounds on a Kubernetes site: pods are lost, or never come, and the run goes on."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kube_bed import Bed
from looking import task_seeds, wait_until
from mischief import Mischief

from parslfl.channels import File, Inline
from parslfl.errors import QuorumError, RunError
from parslfl.experiment import Experiment
from parslfl.graph import submit
from parslfl.launch import kernel
from parslfl.orchestrator import rounds
from parslfl.sites import Federation, Site
from parslfl_executors.htex import NoWorkersError
from parslfl_executors.kube_pod import marks

Make = Callable[..., Federation]
PLAIN = {
    "dataset": "digits",
    "model": "softmax",
    "partition": "iid",
    "rounds": 2,
    "per_round": 4,
    "epochs": 1,
}


@pytest.fixture
def federation(bed: Bed) -> Make:
    """One site of 4 clients on pods; models go by a claim that the pods mount, where there is one."""

    def make(**changes: object) -> Federation:
        transport = File(path=str(bed.shared)) if bed.shared else Inline()
        sooner = {"heartbeat_threshold": 10}  # twice as soon as a real site would
        grace = {"terminationGracePeriodSeconds": 1}
        executor = bed.settings(**{"parsl": sooner, "pod": grace, **changes})
        site = Site(name="cloud", clients=4, executor=executor, transport=transport)
        return Federation(name="kube", sites=(site,))

    return make


def experiment(**changes: object) -> Experiment:
    return Experiment.model_validate({**PLAIN, **changes})


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.WARNING, "parslfl_executors"):
        yield caplog


def test_a_pod_is_deleted_under_a_task_and_the_round_is_whole(
    bed: Bed, federation: Make, tmp_path: Path, log: pytest.LogCaptureFixture
) -> None:
    """Round 1 of 2: its first client hangs, its pod is deleted, and another pod takes it over."""
    here = federation()
    cluster = here.sites[0].executor.cluster()
    mark = tmp_path / "mark" if not bed.shared else bed.shared / "mark"
    labels = marks(tmp_path / "run/parsl", "cloud")
    model = Mischief("hang-once", task_seeds(1, 0), str(mark), seconds=100)

    def delete() -> None:
        assert wait_until(mark.exists, 60)
        for name in cluster.pods(labels):
            cluster.delete_pod(name)

    if bed.kube:
        threading.Thread(target=delete, daemon=True).start()
    reports = list(rounds(here, experiment(model=model if bed.kube else "softmax"), tmp_path / "run"))
    assert [(len(r.updates), r.failures) for r in reports] == [(4, ()), (4, ())]
    assert not bed.kube or "deleted (by hand, a drain or a preemption" in log.text
    assert wait_until(lambda: cluster.pods(labels) == {}, 15)


def test_a_pod_that_is_lost_for_good_is_a_failure_with_its_cause(
    bed: Bed, federation: Make, tmp_path: Path
) -> None:
    kube = bed.levers()
    mark = (bed.shared or tmp_path) / "evicted"
    site = federation().sites[0].model_copy(update={"retries": 0})
    here = Federation(name="kube", sites=(site,))
    model = Mischief("hang-once", task_seeds(0, 3), str(mark), seconds=100)

    def evict() -> None:
        assert wait_until(mark.exists, 60)
        for name in kube.names():
            kube.evict(name)

    threading.Thread(target=evict, daemon=True).start()
    (report,) = rounds(here, experiment(model=model, rounds=1, quorum=1), tmp_path / "run")
    lost = [f for f in report.failures if "Evicted: The node was low on resource: memory." in f.reason]
    assert lost
    assert {f.kind for f in report.failures} == {"lost"}
    assert "ManagerLost" in lost[0].reason


def test_a_broken_image_stops_the_run_with_its_cause(bed: Bed, federation: Make, tmp_path: Path) -> None:
    bed.levers()
    broken = federation(worker_init="echo there is no parsl here; exit 7")
    with pytest.raises((QuorumError, RunError), match="exit code 7; it said: there is no parsl here"):
        list(rounds(broken, experiment(evaluate_on="cloud"), tmp_path / "run"))


def test_a_cluster_that_is_full_gives_its_reason(bed: Bed, federation: Make, tmp_path: Path) -> None:
    """No node for as long as a pod may wait: tasks are given up with the scheduler's words, not hung."""
    kube = bed.levers()
    kube.hold = True
    full = federation(pending_timeout=2)
    with pytest.raises((QuorumError, RunError), match="Unschedulable: 0/1 nodes are available"):
        list(rounds(full, experiment(), tmp_path / "run"))


def test_pods_that_were_asked_for_one_after_the_other_are_given_up_together(
    bed: Bed, federation: Make, tmp_path: Path
) -> None:
    """Else each would be replaced while the next one still pends, for ever. No task is tried again."""
    kube = bed.levers()
    kube.hold = True
    full = federation(pending_timeout=6, max_blocks=2)
    with kernel(full.sites, "driver", tmp_path / "run/parsl") as running:
        first = submit(running, "cloud", time.sleep, 0)
        time.sleep(3)
        second = submit(running, "cloud", time.sleep, 0)
        for task in (first, second):
            with pytest.raises(NoWorkersError, match="Unschedulable: 0/1 nodes are available"):
                task.result(60)
        assert len(running.executors["cloud"].provider.resources) == 2
        assert wait_until(lambda: not kube.pods, 20)


#: A driver that hangs with a pod at work; its arguments: the federation, and the run's logs.
DRIVER = """
import sys, time
from pathlib import Path
from parslfl.graph import submit
from parslfl.launch import kernel
from parslfl.sites import Federation

federation = Federation.model_validate_json(Path(sys.argv[1]).read_text())
with kernel(federation.sites, "driver", Path(sys.argv[2])) as running:
    submit(running, "cloud", time.sleep, 0).result(60)
    print("up", flush=True)
    submit(running, "cloud", time.sleep, 600).result()
"""


def test_nothing_outlives_a_killed_driver(bed: Bed, federation: Make, tmp_path: Path) -> None:
    kube, logs, here = bed.levers(), tmp_path / "run/parsl", federation()
    (tmp_path / "federation.json").write_text(here.model_dump_json())
    command = [sys.executable, "-c", DRIVER, str(tmp_path / "federation.json"), str(logs)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as driver:
        assert driver.stdout
        assert driver.stdout.readline() == "up\n"
        assert kube.processes()
        driver.kill()
    assert wait_until(lambda: not kube.processes(), 25)
    assert here.sites[0].executor.clean("cloud", logs) == []
    assert wait_until(lambda: not kube.pods, 5)
    assert kube.secrets == {}
