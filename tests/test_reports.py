"""What the log gets of a run's events where its program has no listener."""

from __future__ import annotations

import pytest

from parslfl.messages import RoundPlan
from parslfl.reports import RoundStarted, RunStarted, SiteWaits, log


def test_what_a_person_might_act_on_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    log(RunStarted(("median needs all updates", "fp16 saves nothing")))
    log(RoundStarted(RoundPlan(0, (), quorum=1, close_at=1)))
    log(SiteWaits("hpc", "slurm job 7 PENDING (Priority)"))
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "median needs all updates"),
        ("WARNING", "fp16 saves nothing"),
        ("WARNING", "hpc waits: slurm job 7 PENDING (Priority)"),
    ]
