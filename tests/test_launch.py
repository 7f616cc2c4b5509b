"""Starting a run's processes, interrupted while they start."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest
from looking import wait_until
from parsl.dataflow.dflow import DataFlowKernel

from parslfl import launch
from parslfl.sites import Site
from parslfl_executors.local import Local


def test_ctrl_c_while_the_kernel_starts_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is heard once the kernel is whole, which is then stopped as always."""
    made: list[DataFlowKernel] = []

    def interrupted(config: Any) -> DataFlowKernel:
        os.kill(os.getpid(), signal.SIGINT)
        made.append(DataFlowKernel(config))
        return made[0]

    monkeypatch.setattr(launch, "DataFlowKernel", interrupted)
    before = set(psutil.Process().children(recursive=True))
    site = Site(name="here", clients=1, executor=Local(workers=1))
    with pytest.raises(KeyboardInterrupt), launch.kernel([site], "driver", tmp_path / "parsl"):
        pytest.fail("it was interrupted before")
    assert made[0].cleanup_called
    assert wait_until(lambda: set(psutil.Process().children(recursive=True)) <= before, 10)
