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
