"""Whole rounds over a store of ProxyStore's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from parslfl.channels import ProxyStore
from parslfl.experiment import Experiment
from parslfl.orchestrator import rounds
from parslfl.sites import Federation


def test_the_bits_of_a_file_run_and_nothing_left_in_the_store(
    federation: Federation, experiment: Callable[..., Experiment], tmp_path: Path
) -> None:
    transport = ProxyStore(connector="file", options={"store_dir": str(tmp_path / "store")})
    site = federation.sites[0].model_copy(update={"transport": transport})
    made = list(rounds(Federation(sites=(site,)), experiment(), tmp_path / "run"))
    plain = list(rounds(federation, experiment(), tmp_path / "plain"))
    assert [(r.model, r.bytes_up, r.bytes_down) for r in made] == [
        (r.model, r.bytes_up, r.bytes_down) for r in plain
    ]
    assert list((tmp_path / "store").iterdir()) == []
