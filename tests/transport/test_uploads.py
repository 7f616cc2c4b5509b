"""Uploads into the run directory: one writer a name, exact sizes, and no part kept for ever."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from parslfl.errors import PayloadError
from parslfl.transport import uploads
from parslfl.transport.file import File
from parslfl.transport.uploads import Uploads

A = "updates/a"


@pytest.fixture
def home(tmp_path: Path) -> File:
    return File(str(tmp_path))


def files(home: File) -> list[str]:
    return sorted(path.name for path in Path(home.root, "updates").iterdir())


def test_a_broken_upload_goes_on_where_it_ended(home: File) -> None:
    taken = Uploads(home)
    assert taken.begin(A, 6, "c", "first") == 0
    taken.write(A, "first", b"one")
    assert taken.begin(A, 6, "c", "second") == 3
    taken.write(A, "second", b"two")
    assert taken.finish(A, "second") == 6
    assert home.path(A).read_bytes() == b"onetwo"
    assert files(home) == ["a"]


def test_the_earlier_writer_is_turned_away(home: File) -> None:
    taken = Uploads(home)
    taken.begin(A, 6, "c", "first")
    taken.begin(A, 6, "c", "second")
    for act in (lambda: taken.write(A, "first", b"x"), lambda: taken.finish(A, "first")):
        with pytest.raises(PayloadError, match="taken over by another worker"):
            act()
    taken.write(A, "second", b"onetwo")
    taken.finish(A, "second")
    with pytest.raises(PayloadError, match="taken over"):
        taken.write(A, "first", b"x")
    assert home.path(A).read_bytes() == b"onetwo"


def test_another_content_begins_anew(home: File) -> None:
    taken = Uploads(home)
    taken.begin(A, 6, "c", 1)
    taken.write(A, 1, b"one")
    assert taken.begin(A, 6, "d", 2) == 0
    taken.write(A, 2, b"ONETWO")
    taken.finish(A, 2)
    assert home.path(A).read_bytes() == b"ONETWO"


def test_sizes_are_exact(home: File) -> None:
    taken = Uploads(home)
    taken.begin(A, 3, "", 1)
    taken.write(A, 1, b"on")
    with pytest.raises(PayloadError, match="more than the 3 bytes"):
        taken.write(A, 1, b"ee")
    with pytest.raises(PayloadError, match="ended after 2 of 3 bytes"):
        taken.finish(A, 1)
    assert not home.has(A)


def test_a_longer_spare_file_is_cut(home: File) -> None:
    home.drop(home.put("updates/old", [bytes(2 << 20)], ""))
    taken = Uploads(home)
    assert taken.begin(A, 3, "", 1) == 0
    taken.write(A, 1, b"one")
    taken.finish(A, 1)
    assert home.path(A).read_bytes() == b"one"
    assert list(Path(home.root, "spare").iterdir()) == []


def test_a_part_is_given_up_when_its_sender_stays_away(home: File, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = Uploads(home)
    taken.begin(A, 3, "", 1)
    taken.write(A, 1, b"on")
    monkeypatch.setattr(uploads, "PATIENCE", -1.0)
    taken.begin("updates/b", 1, "", 2)
    assert files(home) == [".b.part"]
    taken.clear()
    assert files(home) == []


@pytest.fixture
def full(tmp_path: Path) -> Iterator[File]:
    """A disk of 1 MiB."""
    if os.geteuid():
        pytest.skip("only root may mount a small disk")
    (tmp_path / "small").mkdir()
    disk = str(tmp_path / "small")
    mounted = subprocess.run(
        ["/bin/mount", "-t", "tmpfs", "-o", "size=1m", "none", disk], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("a small disk cannot be mounted here")
    yield File(disk)
    subprocess.run(["/bin/umount", "-l", disk], check=True)


def test_a_full_disk_is_told_before_anything_is_written(full: File) -> None:
    with pytest.raises(PayloadError, match="No space left on device. Free space there, then resume"):
        Uploads(full).begin(A, 2 << 20, "", 1)
    assert files(full) == []


def test_a_disk_that_fills_up_on_the_way(full: File) -> None:
    taken = Uploads(full)
    taken.begin(A, 900_000, "", 1)
    full.put("other", [bytes(500_000)], "")
    with pytest.raises(PayloadError, match="No space left on device"):
        taken.write(A, 1, bytes(900_000))
    assert files(full) == []
    taken.begin("updates/b", 1000, "", 2)
    taken.write("updates/b", 2, bytes(1000))
    assert taken.finish("updates/b", 2) == 1000
