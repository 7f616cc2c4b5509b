import socket
from pathlib import Path

import pytest

from parslfl.data.download import SILENCE, staging
from parslfl.errors import DataError


def test_the_room_is_inside_the_folder_and_gone_afterwards(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "data"
    with staging(folder, "file") as room:
        assert room.parent == folder
        (room / "file").write_text("whole")
        (room / "file").rename(folder / "file")
    assert [path.name for path in folder.iterdir()] == ["file"]


def test_waiting_is_bounded_only_inside(tmp_path: Path) -> None:
    before = socket.getdefaulttimeout()
    with staging(tmp_path, "file"):
        assert socket.getdefaulttimeout() == SILENCE
    assert socket.getdefaulttimeout() == before


def fail(folder: Path, reason: Exception) -> None:
    with staging(folder, "file") as room:
        (room / "half").touch()
        raise reason


@pytest.mark.parametrize("kind", [OSError, RuntimeError, ImportError])
def test_a_failure_leaves_nothing_behind(tmp_path: Path, kind: type[Exception]) -> None:
    with pytest.raises(DataError, match="found no file in .* and cannot download it .no route.: copy it"):
        fail(tmp_path, kind("no route"))
    assert list(tmp_path.iterdir()) == []
    assert socket.getdefaulttimeout() is None


def test_a_folder_that_cannot_be_made_is_a_data_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="Not a directory"), staging(tmp_path / "file" / "data", "file"):
        pass
