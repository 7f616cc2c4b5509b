"""What training one client takes, with and without federated dropout, in a process of its own.

    python benchmarks/sweep_memory.py MODEL DROPOUT

Memory is the operating system's peak (VmHWM) of a fresh process: Python, torch and the mapped files of
the data set and the global model included, as in a worker, and what it takes to find and build the
smaller network. Its peak before training is given too. The seconds are those of training once more, when
all is loaded. Prints one line of JSON.

Does not know: runs, rounds or workers.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from parslfl import specs
from parslfl.checkpoints import read, write
from parslfl.data.cifar10 import Cifar10
from parslfl.data.folder import resolve_folder
from parslfl.learning import LocalWork
from parslfl.models.names import MODELS

#: Four batches of 32: the peak is reached in the first, and ResNet-18 takes seconds a batch.
EXAMPLES = 128


@dataclass(frozen=True)
class Footprint:
    """MB before training and at the peak, seconds for `EXAMPLES` examples."""

    before: float
    peak: float
    seconds: float


def measured(model: str, dropout: float) -> Footprint:
    """What a fresh process with one CPU thread says."""
    command = [sys.executable, __file__, model, str(dropout)]
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return Footprint(**json.loads(said))


def _train(name: str, dropout: float) -> Footprint:
    import torch

    torch.set_num_threads(1)
    model, data, folder = specs.parse(name, MODELS, "model"), Cifar10(), resolve_folder(None)
    samples = data.train(folder, np.arange(EXAMPLES))
    with tempfile.TemporaryDirectory() as room:
        params = read(Path(room, "model"), _made_elsewhere(name, room))
        before = _peak()
        work = LocalWork(epochs=1, device="cpu", keep=1 - dropout)
        model.train(params, samples, work, 0, lambda: False)
        peak, began = _peak(), time.perf_counter()
        model.train(params, samples, work, 1, lambda: False)
    return Footprint(before, peak, time.perf_counter() - began)


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


def _peak() -> float:
    """Of this process in MB; getrusage's would begin at that of the process which started this one."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e6


if __name__ == "__main__":
    print(json.dumps(asdict(_train(sys.argv[1], float(sys.argv[2])))))
