"""`parslfl cleanup` on a Kubernetes site whose driver was killed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from kube_bed import Bed
from looking import wait_until

from parslfl.channels import File
from parslfl.cli import main
from parslfl.sites import Federation, Site

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
model = Mischief("sleep", task_seeds(0, 0, 1), seconds=600)
experiment = Experiment(dataset="digits", model=model, partition="iid", rounds=1, per_round=2, epochs=1)
list(rounds(federation, experiment, path / "run"))
"""


def start(path: Path, federation: Federation) -> subprocess.Popen[str]:
    (path / "federation.json").write_text(federation.model_dump_json())
    places = [str(Path(__file__).parents[1] / "workers"), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": ":".join(places)}
    command = [sys.executable, "-c", DRIVER, str(path)]
    return subprocess.Popen(
        command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def test_a_killed_drivers_pods_and_secrets_are_ended(
    bed: Bed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kube = bed.levers()
    transport = File(path=str(bed.shared))
    site = Site(name="cloud", clients=2, executor=bed.settings(), transport=transport)
    run = tmp_path / "run"
    with start(tmp_path, Federation(name="kube", sites=(site,))) as driver:
        assert wait_until(lambda: bool(kube.processes()) or driver.poll() is not None, 40)
        assert driver.poll() is None, driver.communicate()[1]
        (pod,) = kube.names()
        assert main(["cleanup", str(run)]) == 1
        assert "is being run by another process" in capsys.readouterr().err
        assert kube.names() == [pod]
        driver.kill()
        driver.communicate(timeout=20)
    assert (len(kube.secrets), len(list(bed.shared.glob("parslfl-*")) if bed.shared else [])) == (1, 1)
    kube.fail(500)
    assert main(["cleanup", str(run)]) == 1
    assert "cloud: not cleaned up: HTTP 500: injected; try again" in capsys.readouterr().err
    kube.denied = frozenset({("delete", "pods")})
    assert main(["cleanup", str(run)]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert f"cloud: still there: pod {pod}, secret parslfl-run-" in said.err
    kube.denied = frozenset()
    assert main(["cleanup", str(run)]) == 0
    assert f"cloud: ended pod {pod}" in capsys.readouterr().out
    assert kube.names() == []
    assert kube.secrets == {}
    assert list(bed.shared.glob("parslfl-*") if bed.shared else []) == []
    assert main(["cleanup", str(run)]) == 0
    assert "cloud: nothing was left" in capsys.readouterr().out
