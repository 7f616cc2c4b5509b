"""The global model as differences, in whole runs on real workers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from parslfl import journal
from parslfl.experiment import Experiment
from parslfl.orchestrator import rounds
from parslfl.sites import Federation

Make = Callable[..., Experiment]
#: Images whose model, of 41 KB, is large beside a header.
LARGE = "synthetic:side=32"
SPARSE = "topk:ratio=0.05+quantize:bits=4+zstd"


def test_rounds_from_differences(federation: Federation, experiment: Make, tmp_path: Path) -> None:
    fields = {"dataset": LARGE, "downlink_codec": SPARSE, "rounds": 4}
    made = list(rounds(federation, experiment(**fields), tmp_path / "run"))
    for report in made:
        print(
            report.round,
            report.model,
            report.bytes_down,
            [u.notes for u in report.updates],
            report.failures,
            [u.bytes_down for u in report.updates],
        )
    print(
        sorted(
            p.name
            for p in (tmp_path / "run").rglob("*")
            if p.is_file() and "parsl" not in str(p.relative_to(tmp_path / "run"))
        )
    )
    assert 0
