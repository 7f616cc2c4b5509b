"""What a worker finds where it runs: the machine, its Python, the data, the link, one client's speed.

Plain functions, sent to workers by reference. What cannot be found out is said, never raised.

Does not know: what is made of it, or how the driver sees the same things.
"""

from __future__ import annotations

import os
import platform
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from parslfl.learning import LocalWork, Samples
from parslfl.messages import Ref, Source
from parslfl.params import checksum
from parslfl.protocols import Model, Transport
from parslfl.tasks import reason

#: Packages whose versions should agree with the driver's.
PACKAGES = ("parslfl", "parsl", "numpy", "torch")


@dataclass(frozen=True)
class ProbeTask:
    """Look around, read `payload`, send it back as `reply`, and train `client` for `seconds`."""

    model: Model
    source: Source
    client: int
    work: LocalWork
    seed: int
    payload: Ref
    reply: str
    transport: Transport
    seconds: float = 3.0


@dataclass(frozen=True)
class Machine:
    """What a process has: cores, bytes of memory, its accelerator ("" for none), Python and packages."""

    host: str
    cores: int
    memory: int
    accelerator: str
    python: str
    packages: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Findings:
    """What a worker found. `data`, `link`, `training`: what is wrong with each, or "".

    `samples`: of the client. `read`, `sent`: seconds to get the payload, and to send it back.
    `reply`: the same bytes, sent back. `steps` of training took `trained` seconds.
    """

    machine: Machine
    data: str = ""
    samples: int = 0
    link: str = ""
    read: float = 0.0
    sent: float = 0.0
    reply: Ref | None = field(default=None, repr=False)
    training: str = ""
    steps: int = 0
    trained: float = 0.0


def nothing() -> None:
    """Do nothing: how long that takes is the latency of a task."""


def take(payload: Ref) -> None:
    """Be sent a payload: how long that takes is the link of tasks themselves."""


def give(size: int) -> bytes:
    """Send so many bytes back."""
    return bytes(size)


def probe(task: ProbeTask) -> Findings:
    """All that a worker can tell in about `task.seconds`."""
    found: dict[str, object] = {"machine": machine()}
    samples: Samples | None = None
    try:
        samples = _samples(task)
        found["samples"] = len(samples)
    except Exception as error:  # noqa: BLE001 - said, not raised
        found["data"] = reason(error)
    try:
        found["read"], found["sent"], found["reply"] = _echo(task)
    except Exception as error:  # noqa: BLE001 - the same
        found["link"] = reason(error)
    try:
        if samples is not None:
            found["steps"], found["trained"] = _speed(task, samples)
    except Exception as error:  # noqa: BLE001 - the same
        found["training"] = reason(error)
    return Findings(**found)  # type: ignore[arg-type]  # each is what its field says


def machine() -> Machine:
    """What this process has."""
    return Machine(
        socket.gethostname(), _cores(), _memory(), _accelerator(), platform.python_version(), packages()
    )


def packages() -> tuple[tuple[str, str], ...]:
    """The versions that this process has of packages that matter."""
    return tuple((name, _version(name)) for name in PACKAGES)


def _cores() -> int:
    """Cores of this process, of its container if that has fewer."""
    own = len(os.sched_getaffinity(0))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(own, round(int(quota) / int(period))))
    except (OSError, ValueError):  # no cgroup, or no limit ("max")
        return own


def _memory() -> int:
    whole = int(psutil.virtual_memory().total)
    try:
        return min(whole, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):
        return whole


def _accelerator() -> str:
    try:
        import torch
    except ImportError:
        return ""
    if not torch.cuda.is_available():
        return ""
    known = torch.cuda.get_device_properties(0)
    return f"{torch.cuda.device_count()} x {known.name}, {known.total_memory / 1e9:.0f} GB"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _samples(task: ProbeTask) -> Samples:
    """The client's own examples, read as a task would."""
    source, folder = task.source, Path(task.source.folder)
    parts = source.partition.split(source.dataset.labels(folder), source.clients, source.seed)
    return source.dataset.train(folder, parts[task.client])


def _echo(task: ProbeTask) -> tuple[float, float, Ref]:
    """Seconds to read the payload to its last byte, and to send it back; and the same bytes on their way."""
    began = time.perf_counter()
    view = task.transport.get(task.payload)
    found = checksum([view])
    seconds = time.perf_counter() - began
    began = time.perf_counter()
    reply: Ref = task.transport.put(task.reply, [bytes(view)], found)
    return seconds, time.perf_counter() - began, reply


def _speed(task: ProbeTask, samples: Samples) -> tuple[int, float]:
    """Steps of training, and the seconds they took, after one that does not count."""
    params = task.model.init(task.source.dataset.shape, task.source.dataset.classes, task.seed)
    looks: Sequence[bool] = [False]
    rest = iter(looks)
    task.model.train(params, samples, task.work, task.seed, lambda: next(rest, True))
    began = time.perf_counter()
    end = began + task.seconds
    made = task.model.train(params, samples, task.work, task.seed, lambda: time.perf_counter() > end)
    return int(made.steps), time.perf_counter() - began
