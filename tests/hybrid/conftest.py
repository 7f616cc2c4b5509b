"""Both test beds at once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import hybrid_bed
import pytest
import slurm_bed
from kube_bed import Bed


@pytest.fixture
def bed(tmp_path: Path) -> Iterator[Bed]:
    """A real Slurm of four nodes and a loopback Kubernetes cluster; skips where they cannot be."""
    try:
        with hybrid_bed.beds(tmp_path / "kube") as both:
            yield both
    except slurm_bed.NoSlurmError as error:
        error.end_test()
