"""What several tests share: where the repository and the real data sets are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def repository() -> Path:
    """The repository's root."""
    return ROOT


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder with real data sets; the test is skipped where there is none."""
    folder = Path(os.environ.get("PARSLFL_DATA") or ROOT.parent / "shared/data").resolve()
    if not folder.is_dir():
        pytest.skip(f"no real data: {folder} is not a folder (name one in PARSLFL_DATA)")
    return folder
