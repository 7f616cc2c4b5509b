"""What whole rounds take of the driver: 20 updates of 11.2 M float32, from their files to the next model.

    python benchmarks/driver_memory.py

With strategies that keep state, with parts of the model, with updates of codecs and with a downlink codec, in
turn. Seconds are the least of five turns; MB is what the process's own memory (not mapped files) grows by at
its peak, and how many models of 44.7 MB that is. All memory is new in each round.

Does not know: networks; files are local.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from aggregation import DIFFERENT, RAW, SCALARS, Kept, grouped, measured, merged_lane, written
from rich.console import Console
from rich.table import Table

from parslfl.codecs import compiled, wire
from parslfl.codecs.chain import Chain
from parslfl.codecs.quantize import Quantize
from parslfl.codecs.topk import TopK
from parslfl.codecs.zstd import Zstd
from parslfl.downlink import Outgoing
from parslfl.folding import checkpoints
from parslfl.folding.desk import Desk
from parslfl.folding.finishing import finish
from parslfl.folding.folding import Folding
from parslfl.learning import LocalWork
from parslfl.messages import Assignment, Client, RoundPlan, Update, update_name
from parslfl.protocols import Codec, Strategy
from parslfl.strategies.fedavg import FedAvg
from parslfl.strategies.fedopt import FedAdam, FedAvgM
from parslfl.strategies.scaffold import Scaffold
from parslfl.submodel import KEY, describe
from parslfl.transport.buffers import POOL

#: A matrix of about as many numbers, half of whose rows and columns a part of it has.
SIDE = 3344
CODECS: tuple[Codec, ...] = TopK(0.01), Chain((TopK(0.3), Zstd())), Zstd()


def rounds(folder: Path, updates: list[Update]) -> Table:
    """What whole rounds take."""
    made = Table(f"rounds of {DIFFERENT} updates", "s", "x the first", "MB", "models")
    size, parts = 4 * SCALARS / 1e6, _parts(folder / "parts")
    sparse, heavy, packed = (written(folder / str(number), codec) for number, codec in enumerate(CODECS))
    compared = {
        "fedavg": _round(folder, updates, FedAvg()),
        "fedavgm": _round(folder, updates, FedAvgM()),
        "fedadam": _round(folder, updates, FedAdam()),
        "scaffold": _round(folder, updates, Scaffold()),
        "federated dropout, half": _round(folder / "parts", parts, FedAvg(), keep=0.5),
        "fedavg, topk:ratio=0.01": _round(folder / "0", sparse, FedAvg(), codec=CODECS[0]),
        "fedadam, topk:ratio=0.01": _round(folder / "0", sparse, FedAdam(), codec=CODECS[0]),
        "fedavg, topk:ratio=0.3+zstd": _round(folder / "1", heavy, FedAvg(), codec=CODECS[1]),
        "fedavg, zstd": _round(folder / "2", packed, FedAvg(), codec=CODECS[2]),
        "scaffold, zstd": _round(folder / "2", packed, Scaffold(), codec=CODECS[2]),
        "downlink int8": _round(folder, updates, FedAvg(), downlink=Quantize(8)),
        "downlink topk:ratio=0.05": _round(folder, updates, FedAvg(), downlink=TopK(0.05)),
        "downlink topk:ratio=0.3": _round(folder, updates, FedAvg(), downlink=TopK(0.3)),
    }
    for once in compared.values():  # loops are compiled, which takes memory of its own
        once()
    costs = measured(compared, DIFFERENT)
    for name, (seconds, _, memory) in costs.items():
        ratio = f"{seconds / costs['fedavg'].seconds:.2f}"
        made.add_row(name, f"{seconds:.3f}", ratio, f"{memory:.0f}", f"{memory / size:.1f}")
    return made


def _parts(folder: Path) -> list[Update]:
    """Updates of a quarter of a matrix."""
    random, transport, found = np.random.default_rng(0), Kept(str(folder)), []
    for index in range(DIFFERENT):
        client = Client(index, "here")
        at = tuple(np.sort(random.choice(SIDE, SIDE // 2, replace=False)) for _ in range(2))
        part = {"w": random.standard_normal((SIDE // 2, SIDE // 2), np.float32)}
        packed = wire.pack(part, {KEY: describe({"w": at})})
        ref = transport.put(update_name(0, client), packed.buffers, packed.checksum)
        found.append(Update(client, 0, ref, 100, 10, 10, 1.0, 1.0, SCALARS))
    return found


def _round(
    folder: Path,
    updates: list[Update],
    strategy: Strategy,
    keep: float = 1.0,
    codec: Codec = RAW,
    downlink: Codec | None = None,
) -> Callable[[], object]:
    """A round as a run has it: the model and the state it starts from are mapped files, all memory is new."""
    shape = (SIDE, SIDE) if keep < 1 else SCALARS
    work, clients = LocalWork(keep=keep), [update.client for update in updates]
    plan = RoundPlan(0, tuple(Assignment(c, work, codec) for c in clients), 1, len(clients))
    where = Path(tempfile.mkdtemp(dir=folder))
    new = {"w": np.zeros(shape, np.float32)}
    like = checkpoints.read(where / "model", checkpoints.write(where / "model", new))
    begun = strategy.start(new)
    state = checkpoints.read(where / "state", checkpoints.write(where / "state", begun)) if begun else {}

    def work_through() -> None:
        POOL.forget()
        job = Folding(
            strategy,
            dict.fromkeys(clients, codec),
            {"here": Kept(str(folder))},
            Desk(like=like, state=state),
            time.monotonic(),
            works=dict.fromkeys(clients, work),
            clients=len(clients),
            spill=where,
            downlink=None if downlink is None else _outgoing(downlink, where),
        )
        dealt = [grouped(updates)[lane :: job.lanes] for lane in range(job.lanes)]
        with ThreadPoolExecutor(job.lanes) as both:
            notes = list(both.map(lambda lane: merged_lane(job, lane, dealt[lane]), range(job.lanes)))
        finish(job, plan, where / "next", where / "next state", None, *notes)

    return work_through


def _outgoing(codec: Codec, folder: Path) -> Outgoing:
    return Outgoing(codec, 0, folder / "differences" / "1", folder / "residual")


def main() -> None:
    compiled.FIRST = 0
    with tempfile.TemporaryDirectory() as folder:
        where = Path(folder)
        Console(width=100).print(rounds(where, written(where)))


if __name__ == "__main__":
    main()
