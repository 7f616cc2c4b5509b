"""Models kept on a node for all workers there: one fetches, the others wait, and all map its file.

A run has a folder of its own in the temporary folder. Each process that uses it holds a shared lock
on it for as long as it lives; a folder that nobody holds is of a run that is over, and the next run
on that node removes it. A file's name ends in the checksum of its content, which is checked at
every use: a damaged file is fetched again.

Does not know: where models come from.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path

from parslfl.errors import PayloadError
from parslfl.messages import Ref
from parslfl.params import checksum
from parslfl.transport.file import File

#: Files kept: a model and, of some strategies, a state; a straggler may still want those before.
_KEPT = 4


def kept(run: str, ref: Ref, fetch: Callable[[int], None]) -> memoryview:
    """The bytes behind `ref`, mapped; `fetch` writes them to a descriptor if no worker here has yet.

    Raises:
        PayloadError: they cannot be had, or another user is in the folder's place.
    """
    try:
        folder = _joined(run)
        with _alone(folder):
            found = _found(folder, ref)
            return _fetched(folder, ref, fetch) if found is None else found
    except OSError as error:
        raise PayloadError(_unusable(run_folder(run), error.strerror or str(error))) from None


def held(run: str, ref: Ref) -> memoryview | None:
    """The bytes behind `ref` if they are here already: for who is just filling this folder (`kept`)."""
    return _found(run_folder(run), ref)


def run_folder(run: str) -> Path:
    """Where the models of `run` are kept on this node."""
    return Path(tempfile.gettempdir(), f"parslfl-{os.geteuid()}", run)


def forget(run: str) -> None:
    """Remove what this node keeps of `run`: views of it stay whole."""
    with contextlib.suppress(PayloadError, OSError):
        _require_own(run_folder(run).parent)
        shutil.rmtree(run_folder(run), ignore_errors=True)


def _found(folder: Path, ref: Ref) -> memoryview | None:
    """The model, if it is here and undamaged."""
    for path in folder.glob(f"{_stem(ref)}.*"):
        with contextlib.suppress(PayloadError):
            data = File(str(folder)).get(Ref(ref.size, "", path=path.name))
            if checksum([data]) == path.suffix[1:]:
                return data
        path.unlink(missing_ok=True)
    return None


def _fetched(folder: Path, ref: Ref, fetch: Callable[[int], None]) -> memoryview:
    part = folder / "part"
    descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    try:
        fetch(descriptor)
    except PayloadError as error:
        (folder / "refused").write_text(str(error))
        raise
    finally:
        os.close(descriptor)
    data = File(str(folder)).get(Ref(ref.size, "", path=part.name))
    part.replace(folder / f"{_stem(ref)}.{checksum([data])}")
    models = sorted(folder.glob("*.*"), key=lambda path: path.stat().st_mtime_ns)
    for old in models[:-_KEPT]:
        old.unlink(missing_ok=True)
    return data


def _stem(ref: Ref) -> str:
    return checksum([f"{ref.path} {ref.size} {ref.checksum}".encode()])


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, unless the worker that held it before has just been refused.

    Raises:
        PayloadError: it was: sixty workers need not wait for the same refusal one after the other.
    """
    began, refused = time.time(), folder / "refused"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if refused.exists() and refused.stat().st_mtime > began:
            raise PayloadError(refused.read_text())
        yield


@lru_cache(maxsize=4)
def _joined(run: str) -> Path:
    """The folder of `run`, which stays as long as this process lives; those of ended runs go."""
    folder = run_folder(run)
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _require_own(folder.parent)
    while True:
        folder.mkdir(mode=0o700, exist_ok=True)
        held = _locked(folder, fcntl.LOCK_SH)
        if held is not None:
            break
    for other in folder.parent.iterdir():
        if other != folder and (lock := _locked(other, fcntl.LOCK_EX | fcntl.LOCK_NB)) is not None:
            shutil.rmtree(other, ignore_errors=True)
            os.close(lock)
    return folder


def _locked(folder: Path, kind: int) -> int | None:
    """A lock on `folder`, held until it is closed; None: it is another's, or was removed meanwhile."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    with contextlib.suppress(OSError):
        fcntl.flock(descriptor, kind)
        if os.path.samestat(os.fstat(descriptor), folder.stat()):
            return descriptor
    os.close(descriptor)
    return None


def _require_own(folder: Path) -> None:
    """Refuse a folder that others could have filled.

    Raises:
        PayloadError: it is another user's, open to others, or no folder.
    """
    seen = folder.lstat()
    if not stat.S_ISDIR(seen.st_mode) or seen.st_uid != os.geteuid() or seen.st_mode & 0o077:
        raise PayloadError(_unusable(folder, "it is not a folder of this user alone (mode 0700)"))


def _unusable(folder: Path, why: str) -> str:
    return f"cannot keep models in {folder}: {why}. Set TMPDIR, in the site's worker_init, to another folder"
