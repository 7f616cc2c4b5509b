"""Memory in files that have no name."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from parslfl.errors import RunError
from parslfl.folding import scratch
from parslfl.params import Params, is_mapped


def test_memory_of_a_file_is_as_any(tmp_path: Path) -> None:
    like: Params = {
        "a": np.ones((3, 4), np.float32),
        "b": np.ones((), np.float32),
        "c": np.ones(0, np.float32),
    }
    made = scratch.copied(like, tmp_path / "new")
    assert list(made) == list(like)
    for name, array in like.items():
        assert (made[name].shape, made[name].dtype) == (array.shape, array.dtype)
        assert np.array_equal(made[name], array)
        made[name] += 1
        assert np.array_equal(made[name], array + 1)
    assert is_mapped(made["a"])
    assert not list((tmp_path / "new").iterdir())  # it has no name
    mixed = scratch.empty_like({"a": np.ones(3, np.float16), "n": np.ones(2, np.int64)}, tmp_path)
    assert {name: array.dtype for name, array in mixed.items()} == {"a": np.float16, "n": np.int64}
    assert not any(is_mapped(array) for array in scratch.copied(like, None).values())


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file may have more than 64 KiB: what the system says is as of a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("small_files")
def test_a_disk_without_room_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=rf"cannot put 4 MB .* into a file in {tmp_path}: File too large"):
        scratch.empty_like({"w": np.empty(1_000_000, np.float32)}, tmp_path)
    assert not list(tmp_path.iterdir())


def test_many_arrays_of_several_dtypes_need_few_files(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    like: Params = {f"w{n}": np.full((2, n), n, np.float32) for n in range(300)}
    like |= {f"n{n}": np.full((), n, np.int64) for n in range(300)}
    made = scratch.copied(like, tmp_path)
    assert list(made) == list(like)
    assert all(np.array_equal(made[name], array) for name, array in like.items())
    assert [array.dtype for array in made.values()] == [array.dtype for array in like.values()]
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 2


def test_memory_goes_with_its_last_array(tmp_path: Path) -> None:
    def files() -> int:
        maps = Path("/proc/self/maps").read_text().splitlines()
        return sum(str(tmp_path) in line for line in maps)

    before = len(list(Path("/proc/self/fd").iterdir()))
    made = scratch.empty_like({"w": np.empty(1 << 20, np.float32)}, tmp_path)
    assert files() == 1
    del made
    assert files() == 0
    assert len(list(Path("/proc/self/fd").iterdir())) == before
