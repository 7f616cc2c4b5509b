"""What a look at a site found before it is used, and what to do where it found a fault.

Does not know: any resource manager, or what the site is wanted for.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

#: File systems that machines share.
_SHARED = ("nfs", "lustre", "gpfs", "beegfs", "ceph", "panfs", "afs", "glusterfs", "orangefs", "wekafs",
           "cifs", "smb", "pvfs2", "fuse.glusterfs", "fuse.ceph", "fuse.daos", "fuse.juicefs")  # fmt: skip


@dataclass(frozen=True)
class Check:
    """What was looked at, what was found, and for a fault the cure.

    `unknown`: it cannot be told from here, or without starting a worker.
    """

    name: str
    verdict: Literal["ok", "failed", "unknown"]
    detail: str
    cure: str = ""


def ok(name: str, detail: str) -> Check:
    return Check(name, "ok", detail)


def failed(name: str, detail: str, cure: str) -> Check:
    return Check(name, "failed", " ".join(detail.split()), cure)


def unknown(name: str, detail: str, cure: str = "") -> Check:
    return Check(name, "unknown", " ".join(detail.split()), cure)


@dataclass(frozen=True)
class Folder:
    """A folder that workers need: what for, its path there, and the `field` that names it.

    `written`: they also write to it, and it may have to be made.
    """

    name: str
    path: str
    field: str
    written: bool = False

    def here(self) -> Path:
        """The path with `~` and `$VARIABLE` as they are on this machine."""
        path = Path(os.path.expandvars(self.path))
        return path.expanduser() if self.path.startswith("~/") else path


@dataclass(frozen=True)
class Call:
    """An address of the driver that workers call, besides the executor's own; the `field` that names it."""

    name: str
    address: str
    field: str


@dataclass(frozen=True)
class Needs:
    """What workers must find where they run: folders, packages in the versions that are here, the driver."""

    folders: tuple[Folder, ...] = ()
    packages: tuple[tuple[str, str], ...] = ()
    calls: tuple[Call, ...] = ()


def minor(python: str) -> str:
    """3.11 of 3.11.2: workers and driver must agree on so much."""
    return ".".join(python.split(".")[:2])


def differing(python: str, packages: Sequence[tuple[str, str]], here: Sequence[tuple[str, str]]) -> list[str]:
    """How a Python and its packages differ from those that are `here`, where that matters."""
    own = dict(here)
    odd = [f"{name} {said} (here {own[name]})" for name, said in packages if own.get(name, said) != said]
    if minor(python) != minor(platform.python_version()):
        odd.insert(0, f"Python {python} (here {platform.python_version()})")
    return odd


def on_nodes(folder: Folder, near: bool) -> Check:
    """Whether the nodes of a cluster have `folder`, as far as this machine tells, which may share it.

    `near`: the nodes are this machine.
    """
    name, path, cure = folder.name, folder.here(), f"set {folder.field} to a folder that the nodes have"
    if not os.path.exists(path):  # noqa: PTH110  Path.exists raises in a closed folder
        if folder.written and (near or os.access(nearest(path), os.W_OK)):
            return shared_folder(name, path, near)
        if near:
            return failed(name, f"{path} is not there, on the machine that all nodes are on", cure)
        return unknown(name, f"{path} is not seen from here; --probe tells whether a node sees it", cure)
    if not os.path.isdir(path):  # noqa: PTH112  the same
        return failed(name, f"{path} is no folder", cure)
    if folder.written:
        return shared_folder(name, path, near)
    if not os.access(path, os.R_OK | os.X_OK):
        return failed(name, f"{path} may not be read", f"chmod it, or {cure}")
    return _elsewhere(name, path, near)


def shared_folder(name: str, folder: Path, near: bool = False) -> Check:
    """Whether other machines see `folder` too, as far as its file system tells, and it can be written.

    `near`: those others are this machine.
    """
    there = nearest(folder)
    if not os.access(there, os.W_OK):
        return failed(name, f"{there} cannot be written", "name a folder that you may write (--run-dir)")
    return _elsewhere(name, folder, near)


def _elsewhere(name: str, path: Path, near: bool) -> Check:
    if near:
        return ok(name, f"{path} is on this machine, which all nodes are on")
    kind = file_system(path)
    if kind.startswith(_SHARED):
        return ok(name, f"{path} is on {kind}, which machines share")
    detail = f"{path} is on {kind}, which only this machine may have; --probe tells whether a node sees it"
    return unknown(name, detail, "name a folder on a file system that the nodes share")


def is_shared(path: Path) -> bool:
    """Whether `path` lies on a file system that machines share."""
    return file_system(path).startswith(_SHARED)


def nearest(path: Path) -> Path:
    """`path`, or the nearest of its parents that is there."""
    return next((one for one in (path, *path.parents) if os.path.exists(one)), Path("/"))  # noqa: PTH110


def file_system(path: Path) -> str:
    """The type of the file system that `path` is on, or would be."""
    real = nearest(path).resolve()
    inside = [part for part in psutil.disk_partitions(all=True) if real.is_relative_to(part.mountpoint)]
    inside.reverse()  # of several at one place the last one counts, as with automounts
    found = max(inside, key=lambda part: len(part.mountpoint), default=None)
    return str(found.fstype) if found else "an unknown file system"
