"""What a round costs beyond its work: parslfl beside a bare loop, interleaved in one run.

    python benchmarks/overhead.py [empty] [small] [scale] [train] [startup]

Each line is one piece of work, done in turn by a bare loop (`bare.py`: two processes, shared
memory, no framework) and by parslfl through real HighThroughputExecutor workers, encrypted, as
users run it. Figures are medians over rounds after the first; CPU seconds and memory are the
operating system's.

empty    20 clients x 11.2 M parameters, no training      small    100 clients x 62 k parameters
scale    the same model with 20 and 200 clients           train    20 clients, 833 CIFAR-10 images,
startup  command to the end of the first round                     1 epoch of the `cnn`
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import psutil
from bare import Bare, Train, Vector
from empty_model import Empty, buffer

from parslfl.data.cifar10 import Cifar10
from parslfl.data.folder import resolve_folder
from parslfl.data.partition import Classes, Iid
from parslfl.data.synthetic import Synthetic
from parslfl.experiment import Experiment
from parslfl.learning import LocalWork
from parslfl.messages import RoundReport
from parslfl.models.cnn import Cnn
from parslfl.orchestrator import rounds
from parslfl.sites import Federation, Site
from parslfl_executors.local import Local

HERE = Path(__file__).resolve().parent
WORK = LocalWork(epochs=1)


def federation(clients: int) -> Federation:
    init = f"export PYTHONPATH={HERE}"
    site = Site(name="here", clients=clients, executor=Local(workers=2, worker_init=init))
    return Federation(name="bench", sites=(site,))


def empty_bare(scalars: int) -> Train:
    out = buffer(scalars)

    def train(model: Vector, _client: int) -> Vector:
        return np.add(model, np.float32(1), out=out)

    return train


def cifar_bare(clients: int) -> Train:
    """Plain PyTorch on the same network, images, batch size and learning rate."""
    import torch
    from torch.nn.functional import cross_entropy

    torch.set_num_threads(1)
    network = Cnn().build(Cifar10().shape, 10).to(memory_format=torch.channels_last)
    weights = list(network.parameters())
    folder = resolve_folder(None)
    parts = Classes().split(Cifar10().labels(folder), clients, 0)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (Cifar10().train(folder, parts[0][:1]).mean, Cifar10().train(folder, parts[0][:1]).std))
    out = np.empty(sum(w.numel() for w in weights), np.float32)

    def train(model: Vector, client: int) -> Vector:
        samples = Cifar10().train(folder, parts[client])
        x = ((torch.from_numpy(samples.x).float() / 255 - mean) / std).to(memory_format=torch.channels_last)
        y = torch.from_numpy(samples.y)
        torch.nn.utils.vector_to_parameters(torch.from_numpy(model.copy()), weights)
        optimizer = torch.optim.SGD(weights, lr=WORK.lr)
        for rows in torch.randperm(len(y)).split(WORK.batch_size):
            optimizer.zero_grad()
            cross_entropy(network(x[rows]), y[rows]).backward()
            optimizer.step()
        out[:] = torch.nn.utils.parameters_to_vector(weights).detach().numpy()
        return out

    return train


class Meter:
    """Wall and CPU seconds of one side's rounds. The first is left out: it warms up."""

    def __init__(self, pids: Callable[[], set[int]]) -> None:
        self.pids = pids
        self.wall: list[float] = []
        self.cpu: list[float] = []

    def run(self, work: Callable[[], object]) -> None:
        before, start = self._spent(), time.perf_counter()
        work()
        self.wall.append(time.perf_counter() - start)
        self.cpu.append(self._spent() - before)

    def _spent(self) -> float:
        return sum(sum(psutil.Process(pid).cpu_times()[:2]) for pid in self.pids())

    def median(self) -> tuple[float, float]:
        return statistics.median(self.wall[1:]), statistics.median(self.cpu[1:])


def our_processes() -> set[int]:
    """This process and all that serve its run; workers are not its children, their guard names it."""
    me = str(psutil.Process().pid)
    guarded = [p for p in psutil.process_iter(["cmdline"]) if _guards(p.info["cmdline"] or [], me)]
    return {int(me), *(q.pid for p in guarded for q in [p, *p.children(recursive=True)])}


def _guards(command: list[str], driver: str) -> bool:
    return "parslfl_executors.guard" in command and driver in command


def compare(name: str, experiment: Experiment, clients: int, scalars: int, make: Callable[[], Train]) -> list[str]:
    """One table row: the same rounds by both sides, in turn."""
    bare = Bare(scalars, make)
    everyone = list(range(clients))
    with tempfile.TemporaryDirectory() as folder, closing(_rounds(experiment, clients, folder)) as ours:
        plain, framed = Meter(lambda: set(bare.pids())), Meter(our_processes)
        for _ in range(experiment.rounds):
            plain.run(lambda: bare.round(everyone, [1.0] * clients))
            framed.run(lambda: next(ours))
    bare.close()
    (bare_wall, bare_cpu), (wall, cpu) = plain.median(), framed.median()
    return [
        name,
        f"{bare_wall:.2f}",
        f"{wall:.2f}",
        f"{wall / bare_wall:.2f}",
        f"{1000 * wall / clients:.1f}",
        f"{bare_cpu:.2f}",
        f"{cpu:.2f}",
    ]


def _rounds(experiment: Experiment, clients: int, folder: str) -> Iterator[RoundReport]:
    return rounds(federation(clients), experiment, Path(folder, "run"))


def empty(name: str, clients: int, scalars: int, turns: int) -> list[str]:
    experiment = Experiment(
        dataset=Synthetic(),
        partition=Iid(),
        model=Empty(scalars),
        rounds=turns,
        per_round=clients,
        eval_every=0,
    )
    return compare(name, experiment, clients, scalars, partial(empty_bare, scalars))


def train(turns: int) -> list[str]:
    experiment = Experiment(
        dataset=Cifar10(),
        partition=Classes(),
        model=Cnn(),
        rounds=turns,
        per_round=20,
        epochs=WORK.epochs,
        batch_size=WORK.batch_size,
        lr=WORK.lr,
        eval_every=0,
    )
    model = Cnn().init(Cifar10().shape, 10, 0)
    scalars = sum(array.size for array in model.values())
    # 60 clients hold 833 images each; both sides train the first 20 of them in effect
    return compare("train 20 x 833 images", experiment, 60, scalars, partial(cifar_bare, 60))


def scale(clients: int) -> tuple[int, float]:
    """Peak memory of the driver in MB, in a process of its own."""
    code = f"import overhead; overhead.empty_alone({clients})"
    done = subprocess.run([sys.executable, "-c", code], cwd=HERE, check=True, capture_output=True, text=True)
    return clients, float(done.stdout.split()[-1])


def empty_alone(clients: int) -> None:
    """Three rounds of nothing; prints the driver's peak memory in MB."""
    import resource

    experiment = Experiment(
        dataset=Synthetic(), partition=Iid(), model=Empty(11_200_000), rounds=3, per_round=clients, eval_every=0
    )
    with tempfile.TemporaryDirectory() as folder, closing(_rounds(experiment, clients, folder)) as ours:
        for _ in ours:
            pass
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
