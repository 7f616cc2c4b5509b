"""Starting a run's processes, interrupted while they start."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from looking import wait_until
from parsl.dataflow.dflow import DataFlowKernel

from parslfl import launch
from parslfl.errors import RunError
from parslfl.sites import Site
from parslfl_executors.local import Local


def _blocked(pid: int) -> bool:
    """Whether process `pid` does not hear Ctrl-C, which a terminal sends to its whole group."""
    status = Path(f"/proc/{pid}/status").read_text()
    mask = int(next(line.split()[1] for line in status.splitlines() if line.startswith("SigBlk")), 16)
    return bool(mask & 1 << signal.SIGINT - 1)


def test_ctrl_c_while_the_kernel_starts_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is heard once the kernel is whole, which is then stopped as always."""
    made: list[DataFlowKernel] = []
    held: list[bool] = []

    def interrupted(config: Any) -> DataFlowKernel:
        os.kill(os.getpid(), signal.SIGINT)
        made.append(DataFlowKernel(config))
        held.append(_blocked(made[0].executors["here"].interchange_proc.pid))
        return made[0]

    monkeypatch.setattr(launch, "DataFlowKernel", interrupted)
    before = set(psutil.Process().children(recursive=True))
    site = Site(name="here", clients=1, executor=Local(workers=1))
    with pytest.raises(KeyboardInterrupt), launch.kernel([site], "driver", tmp_path / "parsl"):
        pytest.fail("it was interrupted before")
    assert made[0].cleanup_called
    assert held == [True]
    assert wait_until(lambda: set(psutil.Process().children(recursive=True)) <= before, 10)


def test_an_interchange_that_cannot_start_says_so_at_once(tmp_path: Path) -> None:
    """Parsl would wait for two minutes; the one that had started ends too."""
    before = set(psutil.Process().children(recursive=True))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        good = Site(name="good", clients=1, executor=Local(workers=1))
        bad = Site(name="bad", clients=1, executor=Local(workers=1, parsl={"worker_port": port}))
        began = time.monotonic()
        with pytest.raises(RunError) as caught, launch.kernel([good, bad], "driver", tmp_path / "parsl"):
            pytest.fail("a port was taken")
    assert time.monotonic() - began < 100
    said = str(caught.value)
    assert said.startswith("bad: Parsl's interchange process ended (exit code 1): zmq.error.ZMQError: ")
    assert f"Address already in use (addr='tcp://127.0.0.1:{port}')" in said
    assert wait_until(lambda: set(psutil.Process().children(recursive=True)) <= before, 10)
