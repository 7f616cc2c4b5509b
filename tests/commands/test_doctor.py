"""`parslfl doctor` and `parslfl cleanup` on this machine."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import yaml
from looking import guarded_by, wait_until
from rich.console import Console

from parslfl.cli import main
from parslfl.commands.doctor import Findings
from parslfl_executors.checks import Check, failed, ok

WORDS = ["--dataset", "digits", "--partition", "iid", "--model", "softmax"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a site file of one local worker, and nothing else."""
    monkeypatch.chdir(tmp_path)
    site = {"name": "here", "clients": 2, "executor": {"kind": "local", "workers": 1, "threads": 1}}
    (tmp_path / "s.yaml").write_text(yaml.safe_dump({"name": "s", "sites": [site]}))
    return tmp_path


def test_nothing_is_started_or_left(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--site", "s.yaml", *WORDS]) == 0
    out = capsys.readouterr().out
    assert "here: data: ok: digits, which needs no files, 719 to 719 examples a client" in out
    assert "nothing failed; --probe starts a short job at each site" in out
    assert not (here / "runs").exists()


@pytest.mark.parametrize("kind", ["file", "grpc"])
def test_a_probe_says_what_the_worker_found(
    here: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    transport = f"sites.here.transport={{kind: {kind}}}"
    assert main(["doctor", "--site", "s.yaml", *WORDS, "--probe", "--set", transport]) == 0
    out = capsys.readouterr().out
    told = ("worker: ok: on ", "Python: ok: 3.", "data there: ok: 719 examples", f"link: ok: {kind}: ",
            "training: ok: softmax: ", "signals: ok: 1 running")  # fmt: skip
    for line in told:
        assert f"here: {line}" in out
    assert not (here / "runs").exists()


def test_a_probe_finds_what_the_driver_cannot_see(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Workers with another parslfl, and a data set that is not where the site file says."""
    fake = here / "fake/parslfl-9.9.9.dist-info"
    fake.mkdir(parents=True)
    (fake / "METADATA").write_text("Metadata-Version: 2.1\nName: parslfl\nVersion: 9.9.9\n")
    init = f"sites.here.executor.worker_init=export PYTHONPATH={here / 'fake'}:$PYTHONPATH"
    words = ["doctor", "--site", "s.yaml", "--data-dir", str(here), "--model", "softmax", "--set", init]
    assert main([*words, "--probe"]) == 1
    out = capsys.readouterr().out
    assert "here: Python: failed: parslfl 9.9.9 (here " in out
    assert "here: data there: failed: " in out
    assert "-> put it there, or set sites.here.data to where it is" in out
    assert "2 checks failed, at here" in out


def test_a_port_that_is_taken_is_told(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "doctor",
        "--site",
        "s.yaml",
        *WORDS,
        "--set",
        "sites.here.transport={kind: grpc, address: 127.0.0.1",
    ]
    assert main([*words[:-1], f"{words[-1]}}}"]) == 0
    assert (
        "here: exchange: ok: gRPC: can listen; workers are told to call 127.0.0.1:" in capsys.readouterr().out
    )
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main([*words[:-1], f"{words[-1]}, port: {port}}}"]) == 1
    out = capsys.readouterr().out
    assert f"here: exchange: failed: here: cannot listen on 127.0.0.1:{port}" in out
    assert "set another address or port" in out


def test_a_wait_that_is_no_time_is_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--site", "s.yaml", "--probe", "--wait", "soon"]) == 2
    assert "--wait soon: expected a duration" in capsys.readouterr().err


def test_a_terminal_gets_a_table() -> None:
    console = Console(width=90, force_terminal=True, color_system=None)
    findings = Findings(console)
    with console.capture() as capture, findings.shown():
        findings.add("hpc", ok("nodes", "4 of 4"))
        findings.add("hpc", failed("job", "refused", "ask less"))
        findings.add("hpc", Check("image", "unknown", "x"))
    last = [" ".join(line.split()) for line in capture.get().splitlines()][-6:]
    assert "hpc job failed refused" in last
    assert "-> ask less" in last
    assert findings.failed == {"hpc": 1}


#: A driver that hangs with a worker at work; its argument: the run's directory.
DRIVER = """
import sys
from looking import task_seeds
from mischief import Mischief
from parslfl.experiment import Experiment
from parslfl.orchestrator import rounds
from parslfl.sites import Federation, Site
from parslfl_executors.local import Local

site = Site(name="here", clients=1, executor=Local(workers=1))
model = Mischief("sleep", task_seeds(0, 0), seconds=600)
wanted = Experiment(dataset="digits", model=model, partition="iid", rounds=1, per_round=1, epochs=1)
list(rounds(Federation(sites=(site,)), wanted, sys.argv[1]))
"""


def test_a_killed_drivers_processes_and_folders_are_removed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    run, workers = tmp_path / "runs/one", str(Path(__file__).parents[1] / "workers")
    paths = ":".join((workers, os.environ.get("PYTHONPATH", "")))
    environment = {**os.environ, "PYTHONPATH": paths, "TMPDIR": str(scratch)}
    command = [sys.executable, "-c", DRIVER, str(run)]
    with subprocess.Popen(command, env=environment, start_new_session=True) as driver:
        assert wait_until(lambda: (run / "parsl/here/block-0").exists() or driver.poll() is not None, 30)
        left = guarded_by(driver.pid)
        assert main(["cleanup", str(run)]) == 1
        assert "is being run by another process" in capsys.readouterr().err
        pool = next(p for p in left if "process_worker_pool" in " ".join(p.cmdline()))
        pool.send_signal(signal.SIGSTOP)  # it cannot see that its driver is gone
        driver.kill()
    (folder,) = scratch.glob("parslfl-*")
    monkeypatch.chdir(tmp_path)
    assert main(["cleanup"]) == 0
    assert f"ended process {pool.pid}, folder {folder}" in capsys.readouterr().out
    assert list(scratch.glob("parslfl-*")) == []
    assert wait_until(lambda: not any(p.is_running() and p.status() != "zombie" for p in left), 5)


def test_there_must_be_a_run_to_clean_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cleanup", str(tmp_path)]) == 1
    assert "holds no run" in capsys.readouterr().err
