"""Models as files: whole, verified, and written over only where that is allowed."""

from __future__ import annotations

import resource
from pathlib import Path

import numpy as np
import pytest

from parslfl.errors import RunError
from parslfl.folding import checkpoints

OLD, NEW = {"w": np.arange(9, dtype=np.float32)}, {"w": np.ones(3, np.float32)}


def test_what_is_written_is_read(tmp_path: Path) -> None:
    digest = checkpoints.write(tmp_path / "m", NEW)
    assert checkpoints.read(tmp_path / "m", digest)["w"].tolist() == [1, 1, 1]
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


def test_a_spare_file_is_written_over_to_the_same_bytes(tmp_path: Path) -> None:
    checkpoints.write(tmp_path / "old", OLD)
    checkpoints.write(tmp_path / "plain", NEW)
    inode = (tmp_path / "old").stat().st_ino
    digest = checkpoints.write(tmp_path / "new", NEW, tmp_path / "old")
    assert (tmp_path / "new").stat().st_ino == inode
    assert (tmp_path / "new").read_bytes() == (tmp_path / "plain").read_bytes()
    assert not (tmp_path / "old").exists()
    assert checkpoints.read(tmp_path / "new", digest)["w"].tolist() == [1, 1, 1]


def test_a_spare_that_is_gone_is_not_missed(tmp_path: Path) -> None:
    digest = checkpoints.write(tmp_path / "new", NEW, tmp_path / "gone")
    assert checkpoints.read(tmp_path / "new", digest)["w"].tolist() == [1, 1, 1]


def test_another_checksum_than_expected_is_refused(tmp_path: Path) -> None:
    checkpoints.write(tmp_path / "m", NEW)
    with pytest.raises(RunError, match="cannot use the checkpoint"):
        checkpoints.read(tmp_path / "m", "0" * 16)


def test_what_is_not_mapped_goes_through_a_file_that_is_gone_at_once(tmp_path: Path) -> None:
    found = checkpoints.mapped(OLD, tmp_path / "held")
    assert found["w"].tolist() == OLD["w"].tolist()
    assert not found["w"].flags.writeable
    assert list(tmp_path.iterdir()) == []


def test_what_is_mapped_or_has_no_place_stays_as_it_is(tmp_path: Path) -> None:
    found = checkpoints.read(tmp_path / "m", checkpoints.write(tmp_path / "m", NEW))
    assert checkpoints.mapped(found, tmp_path / "held") is found
    assert checkpoints.mapped(OLD, None) is OLD


def test_a_disk_that_is_full_gets_no_half_a_file(tmp_path: Path) -> None:
    """What the system says of a file that is too large is said as of a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, hard))
    try:
        with pytest.raises(RunError, match=r"cannot write .*/model: File too large\. Mend that, then resume"):
            checkpoints.write(tmp_path / "model", {"w": np.ones(1 << 16, np.float32)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())
