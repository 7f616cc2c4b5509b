"""What comes in results, at the driver's end: in files, and in nothing else any more."""

from __future__ import annotations

import errno
import os
import pickle
from pathlib import Path

import pytest

from parslfl.errors import PayloadError
from parslfl.messages import Ref
from parslfl.transport.file import File
from parslfl.transport.inline import Inline
from parslfl.transport.landing import STAYS, Landing

LARGE = bytes(range(256)) * (STAYS // 256) + b"x"
NAME = "updates/a"


def sent(data: bytes) -> Ref:
    """A reference as it comes out of a task's result."""
    found: Ref = pickle.loads(pickle.dumps(Inline().put(NAME, [data], "0123")))
    return found


@pytest.fixture
def place(tmp_path: Path) -> Landing:
    (tmp_path / "updates").mkdir()
    return Landing(File(str(tmp_path)))


def files(place: Landing) -> list[str]:
    return [path.name for path in Path(place.home.root, "updates").iterdir()]


def test_what_is_kept_is_read_from_its_file_and_the_result_has_it_no_longer(place: Landing) -> None:
    came = sent(LARGE)
    ref = place.keep(NAME, came)
    assert ref == Ref(len(LARGE), "0123", path=NAME)
    assert came.data == b""
    assert bytes(place.get(ref)) == LARGE
    with pytest.raises(PayloadError, match=f"an inline payload has 0 bytes, announced {len(LARGE)}"):
        place.get(came)
    for _ in range(2):
        place.drop(ref)
        assert (files(place), place.names) == ([], set())


def test_a_small_one_stays_where_it_is(place: Landing) -> None:
    came = sent(LARGE[:STAYS])
    assert place.keep(NAME, came) is came
    assert bytes(place.get(came)) == LARGE[:STAYS]
    place.drop(came)
    assert files(place) == []


@pytest.mark.parametrize("data", [b"", LARGE])
def test_a_worker_s_path_leads_nowhere(place: Landing, data: bytes) -> None:
    """Though there is a file: only what was kept is read, or removed."""
    place.home.put(NAME, [LARGE], "0123")
    ref = place.keep(NAME, Ref(len(LARGE), "0123", NAME, data))
    with pytest.raises(PayloadError, match=f"an inline payload has 0 bytes, announced {len(LARGE)}"):
        place.get(ref)
    place.drop(ref)
    assert files(place) == ["a"]


def test_what_is_not_as_large_as_announced_is_not_kept(place: Landing) -> None:
    came = Ref(3, "", data=LARGE)
    with pytest.raises(PayloadError, match=f"an inline payload has {len(LARGE)} bytes, announced 3"):
        place.keep(NAME, came)
    assert (files(place), came.data) == ([], b"")


def test_a_full_disk_is_told_and_nothing_is_left(place: Landing, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write

    def full(descriptor: int, data: memoryview) -> int:
        if write(descriptor, data[:1000]):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return 0

    monkeypatch.setattr("os.write", full)
    came = sent(LARGE)
    with pytest.raises(PayloadError, match=r"cannot store updates in .*: No space left on device\. Free"):
        place.keep(NAME, came)
    assert (files(place), came.data, place.names) == ([], b"", set())
