"""This machine looked at before workers, or ranks, start on it.

Does not know: what they are asked to do.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from parslfl_executors.checks import Check, Needs, failed, nearest, ok, unknown

if TYPE_CHECKING:
    from parslfl_executors.local import Local

#: Bytes that a worker takes before it has any data: Python, numpy and torch.
_WORKER = 350e6
#: Where devices of NVIDIA and AMD show.
_DEVICES = ("/dev/nvidia[0-9]*", "/dev/dri/renderD*")


@dataclass(frozen=True)
class Load:
    """What is to run here at once: as many processes as the field `name` says, of `threads` CPU threads."""

    name: str
    count: int
    threads: int
    accelerators: int | Sequence[str] = 0


def checks(site: Local, folder: Path, needs: Needs) -> Iterator[Check]:
    """Cores, memory, accelerators and where logs go."""
    load = Load("workers", site.workers_per_node(), site.threads_per_worker(), site.accelerators)
    return loaded(load, folder, needs)


def loaded(load: Load, folder: Path, needs: Needs) -> Iterator[Check]:
    """The same, of this machine under `load`."""
    cores = len(os.sched_getaffinity(0))
    detail = f"{load.name} x threads: {load.count} x {load.threads}, on {cores} cores"
    if load.count * load.threads > cores:
        yield failed("cores", detail, _fewer(load, cores))
    else:
        yield ok("cores", detail)
    yield _memory(load)
    if load.accelerators:
        yield _accelerators(load.accelerators)
    yield _folder("run directory", folder, "name another one (--run-dir)")
    written = (one for one in needs.folders if one.written)
    yield from (_folder(one.name, one.here(), f"set {one.field} to another one") for one in written)
    yield ok("Python", f"{sys.version.partition(' ')[0]}, the driver's own")


def memory() -> int:
    """Bytes that this process may still take: of the machine, or of its container."""
    free = int(psutil.virtual_memory().available)
    try:
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
    except (OSError, ValueError):  # no cgroup, or no limit ("max")
        return free
    return max(0, min(free, limit - used))


def _fewer(load: Load, cores: int) -> str:
    """How the cores suffice. Ranks have no number of their own that could be left to this machine."""
    if load.name == "workers":
        return f"leave workers and threads out, or set threads: {max(1, cores // load.count)}"
    threads = min(load.threads, cores)
    return f"set {load.name}: {cores // threads}" + (f" and threads: {threads}" if threads > 1 else "")


def _memory(load: Load) -> Check:
    free = memory()
    detail = f"{free / 1e9:.1f} GB free, {load.name}: {load.count}"
    if free < load.count * _WORKER:
        cure = f"set {load.name}: {max(1, int(free / _WORKER))}, or end other programs"
        return failed("memory", f"{detail}: each takes {_WORKER / 1e9:g} GB before any data", cure)
    return ok("memory", detail)


def _accelerators(wanted: int | Sequence[str]) -> Check:
    there = [str(path) for pattern in _DEVICES for path in Path("/").glob(pattern[1:])]
    most = wanted if isinstance(wanted, int) else len(set(wanted))
    if len(there) >= most:
        return ok("accelerators", f"{most} asked for; {', '.join(sorted(there))}")
    if not there:
        return failed("accelerators", f"{most} asked for, none is here", "set accelerators: 0")
    return unknown("accelerators", f"{most} asked for; seen: {', '.join(sorted(there))}; --probe tells")


def _folder(name: str, folder: Path, cure: str) -> Check:
    there = nearest(folder)
    if not os.access(there, os.W_OK):
        return failed(name, f"{there} cannot be written", cure)
    return ok(name, f"{psutil.disk_usage(str(there)).free / 1e9:.1f} GB free on {there}")
