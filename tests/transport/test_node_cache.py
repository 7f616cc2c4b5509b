"""Models on a node: fetched once, checked at every use, nobody else's, and gone with their run."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from parslfl.errors import PayloadError
from parslfl.messages import Ref
from parslfl.transport import node_cache
from parslfl.transport.node_cache import forget, kept, run_folder

DATA = b"parameters" * 1000
REF = Ref(len(DATA), "c", path="models/a")


@pytest.fixture(autouse=True)
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    node_cache._joined.cache_clear()
    return tmp_path


def fetcher(data: bytes = DATA) -> tuple[Callable[[int], None], list[int]]:
    calls: list[int] = []

    def fetch(descriptor: int) -> None:
        calls.append(os.write(descriptor, data))

    return fetch, calls


def model(run: str) -> Path:
    (path,) = run_folder(run).glob("*.*")
    return path


def test_it_is_fetched_once() -> None:
    fetch, calls = fetcher()
    assert bytes(kept("run", REF, fetch)) == bytes(kept("run", REF, fetch)) == DATA
    assert calls == [len(DATA)]


def test_a_damaged_file_is_fetched_again() -> None:
    fetch, calls = fetcher()
    kept("run", REF, fetch)
    model("run").write_bytes(DATA[:-1] + b"X")
    assert bytes(kept("run", REF, fetch)) == DATA
    model("run").write_bytes(b"short")
    assert bytes(kept("run", REF, fetch)) == DATA
    assert len(calls) == 3


def test_the_newest_files_are_kept() -> None:
    fetch, calls = fetcher()
    refs = [Ref(len(DATA), "c", path=f"models/{number}") for number in range(6)]
    for ref in refs:
        kept("run", ref, fetch)
    assert len(list(run_folder("run").glob("*.*"))) == 4
    kept("run", refs[5], fetch)
    assert len(calls) == 6


def test_a_folder_that_others_can_write_is_refused(node: Path) -> None:
    (node / f"parslfl-{os.geteuid()}").mkdir()
    (node / f"parslfl-{os.geteuid()}").chmod(0o777)
    with pytest.raises(PayloadError, match="not a folder of this user alone .* Set TMPDIR"):
        kept("run", REF, fetcher()[0])


def test_a_folder_of_another_user_is_refused(node: Path) -> None:
    if os.geteuid():
        pytest.skip("only root can give a folder away")
    folder = node / f"parslfl-{os.geteuid()}"
    folder.mkdir(mode=0o700)
    os.chown(folder, 65534, 65534)
    with pytest.raises(PayloadError, match="not a folder of this user alone"):
        kept("run", REF, fetcher()[0])


def test_a_link_is_refused(node: Path) -> None:
    (node / "elsewhere").mkdir(mode=0o700)
    (node / f"parslfl-{os.geteuid()}").symlink_to(node / "elsewhere")
    with pytest.raises(PayloadError, match="not a folder of this user alone"):
        kept("run", REF, fetcher()[0])


def test_a_refusal_is_not_kept() -> None:
    def refuse(_descriptor: int) -> None:
        raise PayloadError("not now")

    with pytest.raises(PayloadError, match="not now"):
        kept("run", REF, refuse)
    assert bytes(kept("run", REF, fetcher()[0])) == DATA


HOLD = """
import sys, tempfile
from parslfl.transport import node_cache
tempfile.tempdir = sys.argv[1]
node_cache._joined(sys.argv[2])
print("held", flush=True)
sys.stdin.read()
"""


def test_the_next_run_removes_what_an_ended_one_left(node: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(node), "living"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "held\n"
        (run_folder("dead")).mkdir()
        (run_folder("dead") / "model.c").write_bytes(DATA)
        kept("new", REF, fetcher()[0])
        assert sorted(path.name for path in run_folder("new").parent.iterdir()) == ["living", "new"]
        holder.kill()
    node_cache._joined.cache_clear()
    kept("newer", REF, fetcher()[0])
    assert "living" not in [path.name for path in run_folder("new").parent.iterdir()]


def test_what_is_mapped_outlives_the_folder() -> None:
    data = kept("run", REF, fetcher()[0])
    forget("run")
    assert not run_folder("run").exists()
    assert bytes(data) == DATA
