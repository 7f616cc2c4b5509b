"""The shared folder: whole files only, and none outside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from parslfl.errors import PayloadError
from parslfl.messages import Ref
from parslfl.transport.file import File


@pytest.mark.parametrize("path", ["/etc/hostname", "../secret", "updates/../../secret", ""])
def test_a_reference_out_of_the_folder_is_refused(tmp_path: Path, path: str) -> None:
    (tmp_path / "secret").write_bytes(b"1234")
    folder = File(str(tmp_path / "shared"))
    ref = Ref(size=4, checksum="", path=path)
    for act in (folder.get, folder.drop):
        with pytest.raises(PayloadError, match="leads out of the shared folder"):
            act(ref)
    assert (tmp_path / "secret").exists()


def test_a_missing_file_names_the_folder(tmp_path: Path) -> None:
    with pytest.raises(PayloadError, match="same folder for driver and workers"):
        File(str(tmp_path)).get(Ref(size=4, checksum="", path="gone"))


def test_nothing_but_the_file_is_left(tmp_path: Path) -> None:
    folder = File(str(tmp_path))
    ref = folder.put("updates/a", [b"data"], "")
    assert [p.name for p in (tmp_path / "updates").iterdir()] == ["a"]
    assert folder.has("updates/a")
    folder.drop(ref)
    assert not folder.has("updates/a")
    assert list((tmp_path / "updates").iterdir()) == []


def test_the_file_of_a_dropped_update_is_written_over(tmp_path: Path) -> None:
    folder = File(str(tmp_path))
    large = bytes(2 << 20)
    first = folder.put("updates/a", [large], "")
    inode = (tmp_path / "updates/a").stat().st_ino
    folder.drop(first)
    second = folder.put("updates/b", [b"x" * (1 << 20), b"y"], "")
    assert (tmp_path / "updates/b").stat().st_ino == inode
    assert bytes(folder.get(second)) == b"x" * (1 << 20) + b"y"
    assert not folder.has("updates/a")
    third = folder.put("updates/c", [large], "")
    assert bytes(folder.get(third)) == large
    assert bytes(folder.get(second)) == b"x" * (1 << 20) + b"y"


def test_models_are_never_written_over(tmp_path: Path) -> None:
    """A worker may still have one mapped."""
    folder = File(str(tmp_path))
    model = folder.put("models/a", [bytes(2 << 20)], "")
    seen = folder.get(model)
    folder.drop(model)
    folder.put("updates/b", [b"z" * (2 << 20)], "")
    assert bytes(seen) == bytes(2 << 20)
