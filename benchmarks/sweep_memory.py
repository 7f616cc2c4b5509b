"""What training one client takes, with and without federated dropout, in a process of its own.

    python benchmarks/sweep_memory.py MODEL DROPOUT

Memory of a fresh process in three steps: its `base`, with Python, torch and its code, the mapped files of
the data set and of the global model, as in any worker; once the smaller network is found and built; once
it was trained. Each is a peak: in total the operating system's own (VmHWM), of which anonymous memory
(RssAnon, which is no file's that could be read again) is looked at every two milliseconds. The seconds are
those of a second client: to find and build its smaller network, and to train with that. Prints one line
of JSON.

Does not know: runs, rounds or workers.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from parslfl import specs
from parslfl.data.cifar10 import Cifar10
from parslfl.data.folder import resolve_folder
from parslfl.folding.checkpoints import read, write
from parslfl.learning import LocalWork
from parslfl.models.names import MODELS

#: Four batches of 32: the peak is reached in the first, and ResNet-18 takes seconds a batch.
EXAMPLES = 128
#: Seconds between two looks at the anonymous memory.
_LOOK = 0.002


@dataclass(frozen=True)
class Memory:
    """MB: the highest so far, in `total` and `anonymous`."""

    total: float
    anonymous: float


@dataclass(frozen=True)
class Footprint:
    """Memory in its three steps; seconds to `cut` a network, and of training on `EXAMPLES` examples, that
    included."""

    base: Memory
    cut: Memory
    peak: Memory
    cut_seconds: float
    seconds: float


def measured(model: str, dropout: float) -> Footprint:
    """What a fresh process with one CPU thread says."""
    command = [sys.executable, __file__, model, str(dropout)]
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return footprint(said)


def footprint(text: str) -> Footprint:
    """The footprint that was printed."""
    found = json.loads(text)
    base, cut, peak = (Memory(**found.pop(step)) for step in ("base", "cut", "peak"))
    return Footprint(base, cut, peak, **found)


def _train(name: str, dropout: float) -> Footprint:
    import torch

    torch.set_num_threads(1)
    model, data, folder = specs.parse(name, MODELS, "model"), Cifar10(), resolve_folder(None)
    samples = data.train(folder, np.arange(EXAMPLES))
    work = LocalWork(epochs=1, device="cpu", keep=1 - dropout)
    with tempfile.TemporaryDirectory() as room:
        params = read(Path(room, "model"), _made_elsewhere(name, room))
        _import_all(name)
        with _watched() as seen:
            base = seen.memory()
            _cut(name, dropout, 0)
            cut = seen.memory()
            model.train(params, samples, work, 0, lambda: False)
            peak = seen.memory()
        cut_seconds = _cut(name, dropout, 1)
        began = time.perf_counter()
        model.train(params, samples, work, 1, lambda: False)
    return Footprint(base, cut, peak, cut_seconds, time.perf_counter() - began)


def _import_all(name: str) -> None:
    """What training imports, with and without dropout: the base is the same for both."""
    importlib.import_module("parslfl.models._shrink")
    if name.startswith("resnet"):
        from parslfl.vision import load_torchvision

        load_torchvision()
        importlib.import_module("torchvision.models")


def _cut(name: str, dropout: float, seed: int) -> float:
    """Seconds to find and build a smaller network, which is then dropped; none without dropout."""
    if not dropout:
        return 0.0
    from parslfl.models._shrink import shrink

    began = time.perf_counter()
    model: Any = specs.parse(name, MODELS, "model")  # one that is a torch module
    shrink(model, Cifar10().shape, Cifar10().classes, 1 - dropout, seed)
    return time.perf_counter() - began


def _made_elsewhere(name: str, room: str) -> str:
    """The checksum of a first model that another process wrote: a worker maps what it did not make."""
    code = f"import sweep_memory; sweep_memory.make({name!r}, {room!r})"
    here = Path(__file__).resolve().parent
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=here, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def make(name: str, room: str) -> None:
    """Write a first model for CIFAR-10 and print its checksum."""
    data = Cifar10()
    params = specs.parse(name, MODELS, "model").init(data.shape, data.classes, 0)
    print(write(Path(room, "model"), params))


@dataclass
class _Seen:
    """The highest anonymous memory seen so far."""

    highest: float = 0.0
    over: threading.Event = field(default_factory=threading.Event)

    def look(self) -> None:
        self.highest = max(self.highest, _told("RssAnon"))

    def watch(self) -> None:
        while not self.over.wait(_LOOK):
            self.look()

    def memory(self) -> Memory:
        self.look()
        return Memory(_told("VmHWM"), self.highest)


@contextmanager
def _watched() -> Iterator[_Seen]:
    seen = _Seen()
    watcher = threading.Thread(target=seen.watch)
    watcher.start()
    try:
        yield seen
    finally:
        seen.over.set()
        watcher.join()


def _told(what: str) -> float:
    """Of this process in MB; getrusage's peak would begin at that of the process which started this one."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition(f"{what}:")[2].split()[0]) * 1024 / 1e6


if __name__ == "__main__":
    print(json.dumps(asdict(_train(sys.argv[1], float(sys.argv[2])))))
