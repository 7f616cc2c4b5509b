"""What a round costs beyond its work: parslfl beside a bare loop, interleaved in one run.

    python benchmarks/overhead.py [empty] [small] [train] [startup] [scale]

Each piece of work is done in turn by a bare loop (`bare.py`: two processes, shared memory, no
framework) and by parslfl through real HighThroughputExecutor workers, encrypted and guarded, as
users run it. Figures are medians over rounds after the first two; CPU seconds are those of all
processes involved, memory is the driver's peak, both the operating system's.

empty    20 clients x 11.2 M parameters, training replaced by one addition
small    100 clients x 62 k parameters, the same
train    20 clients of 833 CIFAR-10 images, 1 epoch of the `cnn`
startup  from the command to the end of round 1 of `train`
scale    the driver's peak memory with 20 and with 200 clients of `empty`

Does not know: what anyone else measured; the README says where other frameworks' figures are from.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import psutil
from bare import Bare, Train, Vector
from empty_model import Empty, buffer
from rich.console import Console
from rich.table import Table

from parslfl.data.cifar10 import Cifar10
from parslfl.data.folder import resolve_folder
from parslfl.data.partition import Classes, Iid
from parslfl.data.synthetic import Synthetic
from parslfl.experiment import Experiment
from parslfl.models.cnn import Cnn
from parslfl.orchestrator import rounds
from parslfl.reports import RoundReport
from parslfl.sites import Federation, Site
from parslfl_executors.local import Local

HERE = Path(__file__).resolve().parent
LARGE, SMALL = 11_181_642, 62_006
#: Rounds that warm up: the first loads, the second is the first at full speed.
WARM = 2


def federation(clients: int) -> Federation:
    """One local site with two workers, which can import the benchmark's own model."""
    executor = Local(workers=2, worker_init=f"export PYTHONPATH={HERE}")
    return Federation(name="bench", sites=(Site(name="here", clients=clients, executor=executor),))


def empty(clients: int, scalars: int, turns: int) -> Experiment:
    return Experiment(
        dataset=Synthetic(),
        partition=Iid(),
        model=Empty(scalars),
        rounds=turns,
        per_round=clients,
        eval_every=0,
        name="empty",
    )


def training(turns: int) -> Experiment:
    return Experiment(rounds=turns, per_round=20, epochs=1, eval_every=0, name="train")


def empty_bare(scalars: int) -> Train:
    out = buffer(scalars)

    def train(model: Vector, _client: int) -> Vector:
        return np.add(model, np.float32(1), out=out)

    return train


def cifar_bare() -> Train:
    """Plain PyTorch on the same network, images, batch size and learning rate."""
    import torch
    from torch.nn.functional import cross_entropy
    from torch.nn.utils import parameters_to_vector, vector_to_parameters

    torch.set_num_threads(1)
    work, folder = training(1).work(), resolve_folder(None)
    network = Cnn().build(Cifar10().shape, 10)
    parts = Classes().split(Cifar10().labels(folder), 60, 0)

    def train(model: Vector, client: int) -> Vector:
        samples = Cifar10().train(folder, parts[client])
        mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (samples.mean, samples.std))
        pixels = torch.from_numpy(samples.x).contiguous(memory_format=torch.channels_last)
        x, y = (pixels.float() / 255 - mean) / std, torch.from_numpy(samples.y)
        vector_to_parameters(torch.from_numpy(model.copy()), network.parameters())
        optimizer = torch.optim.SGD(network.parameters(), lr=work.lr, momentum=work.momentum)
        for rows in torch.randperm(len(y)).split(work.batch_size):
            optimizer.zero_grad()
            cross_entropy(network(x[rows]), y[rows]).backward()
            optimizer.step()
        trained: Vector = parameters_to_vector(network.parameters()).detach().numpy()
        return trained

    return train


class Meter:
    """Wall and CPU seconds of one side's rounds."""

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

    def row(self, name: str, clients: int) -> list[str]:
        wall, cpu = (statistics.median(v[WARM:]) for v in (self.wall, self.cpu))
        return [name, f"{wall:.3f}", f"{1000 * wall / clients:.1f}", f"{cpu:.2f}"]


def our_processes() -> set[int]:
    """This process and all that serve its run: workers are not its children, but name it."""
    me = str(psutil.Process().pid)
    guarded = [p for p in psutil.process_iter(["cmdline"]) if _guards(p.info["cmdline"] or [], me)]
    return {int(me), *(q.pid for p in guarded for q in [p, *p.children(recursive=True)])}


def _guards(command: list[str], driver: str) -> bool:
    return "parslfl_executors.guard" in command and driver in command


def compare(
    name: str, experiment: Experiment, clients: int, scalars: int, make: Callable[[], Train]
) -> list[list[str]]:
    """Two table rows and their ratio: the same rounds by both sides, in turn."""
    bare = Bare(scalars, make)
    chosen = list(range(experiment.per_round))
    with tempfile.TemporaryDirectory() as folder, closing(_run(experiment, clients, folder)) as ours:
        plain, framed = Meter(lambda: set(bare.pids())), Meter(our_processes)
        for _ in range(experiment.rounds):
            plain.run(lambda: bare.round(chosen, [1.0] * len(chosen)))
            framed.run(lambda: next(ours))
    bare.close()
    ratios = [ours / theirs for ours, theirs in zip(framed.wall[WARM:], plain.wall[WARM:], strict=True)]
    return [
        plain.row(f"{name}, bare", len(chosen)),
        [*framed.row(f"{name}, parslfl", len(chosen)), f"{statistics.median(ratios):.2f}"],
    ]


def _run(experiment: Experiment, clients: int, folder: str) -> Generator[RoundReport]:
    return rounds(federation(clients), experiment, Path(folder, "run"))


def startup(turns: int = 5) -> list[list[str]]:
    """Seconds from starting Python to the end of round 1 of `train`, and without a round's own work."""
    rows = []
    for side in ("bare", "parslfl"):
        times = [_timed(f"import overhead; overhead.begin_{side}()") for _ in range(turns)]
        first = statistics.median(t[0] for t in times)
        ready = statistics.median(t[0] - (t[1] - t[0]) for t in times)
        rows.append([f"startup, {side}: to the end of round 1", f"{first:.2f}"])
        rows.append([f"startup, {side}: the same less a round", f"{ready:.2f}"])
    return rows


def begin_bare() -> None:
    """Two rounds; prints when each ended."""
    bare = Bare(_cnn_scalars(), cifar_bare)
    for _ in range(2):
        bare.round(list(range(20)), [1.0] * 20)
        print(time.time(), flush=True)
    bare.close()


def begin_parslfl() -> None:
    """The same; a third round would follow, since the last is always evaluated."""
    with tempfile.TemporaryDirectory() as folder, closing(_run(training(3), 60, folder)) as ours:
        for _, _ in zip(range(2), ours, strict=False):
            print(time.time(), flush=True)


def _timed(code: str) -> list[float]:
    """Seconds from now to each time that `code` prints."""
    start = time.time()
    return [float(line) - start for line in _alone(code).split()]


def scale() -> list[list[str]]:
    return [
        [f"driver's peak memory, {n} clients", *[""] * 4, _alone(f"import overhead; overhead.peak({n})")]
        for n in (20, 200)
    ]


def peak(clients: int) -> None:
    """Three rounds of nothing; prints the driver's peak memory in MB."""
    with tempfile.TemporaryDirectory() as folder:
        for _ in _run(empty(clients, LARGE, 3), clients, folder):
            pass
    # not getrusage: its figure begins at the size of the process that started this one
    status = Path("/proc/self/status").read_text()
    print(f"{int(status.partition('VmHWM:')[2].split()[0]) * 1024 / 1e6:.0f}")


def _alone(code: str) -> str:
    """What `code` prints, run in a process of its own."""
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=HERE, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def _cnn_scalars() -> int:
    return sum(array.size for array in Cnn().init(Cifar10().shape, 10, 0).values())


WORK: dict[str, Callable[[], list[list[str]]]] = {
    "empty": lambda: compare("empty", empty(20, LARGE, 22), 20, LARGE, partial(empty_bare, LARGE)),
    "small": lambda: compare("small", empty(100, SMALL, 22), 100, SMALL, partial(empty_bare, SMALL)),
    "train": lambda: compare("train", training(10), 60, _cnn_scalars(), cifar_bare),
    "startup": startup,
    "scale": scale,
}


def main() -> None:
    table = Table("work", "s / round", "ms / client", "CPU s / round", "x bare", "MB")
    for name in sys.argv[1:] or WORK:
        for row in WORK[name]():
            table.add_row(*row)
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
