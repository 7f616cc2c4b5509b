"""How fast updates become a model: 11.2 M float32 parameters, in turn with one plain copy of them all.

    python benchmarks/aggregation.py [8] [20] [60] [500] [codecs] [robust] [--numpy]

Seconds are the least of five turns, or of more where there are few updates, taken in turn in one process:
other work on a machine only adds. MB is what the process's own memory (not mapped files) grows by at its
peak, in a first turn. "processor" is the time of all cores together: where other work has most of a
machine, only this one says what the work itself took.

copy     every update copied once into one buffer: reading them cannot take less
fold     every update added to one running sum, four at a time as in a run; two: groups of four dealt to
         two sums in two threads. As in a run, the sums' memory is kept from turn to turn
merge    what a run does: map, verify, check, fold, in two threads
codecs   the same merge of 8, 20, 60 and 500 updates as some codecs make them, with and without the mean that
         comes after the last (that compares like with like: without it, sparse ones that wait for it are only
         opened), and adding alone, into sums, which a run spares few sparse ones; beside reading the bytes of
         int8 and one pass over the sum for each, and beside what no mean is made without: an array
         set to zeros, once for all updates. "x raw" is to the same point. In two threads too. Loops are
         compiled where numba is installed, but not with --numpy
flower   Flower's `aggregate` on the same arrays, all in memory, as it wants them (where it is installed:
         PARSLFL_FLOWER, see tests/strategies/test_flower.py; `make test` leaves it in .venv/flower)
robust   each strategy that needs all updates, on 20 of them, from their files to the mean

There are 20 different updates, read again and again beyond that.

Does not know: networks; files are local.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import math
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from parslfl.codecs import compiled, wire
from parslfl.codecs.pieces import opened, private
from parslfl.codecs.quantize import Quantize
from parslfl.codecs.raw import Raw
from parslfl.codecs.sparse import TOGETHER, is_sparse
from parslfl.codecs.topk import TopK
from parslfl.folding.desk import Desk
from parslfl.folding.folding import Folding
from parslfl.folding.merging import SHARE, Merged, merge, merge_on
from parslfl.learning import Cohort, Evidence, LocalWork
from parslfl.messages import Client, Ref, Update, update_name
from parslfl.params import Params, fold_all
from parslfl.protocols import Codec, NeedsAll
from parslfl.stack import Stack
from parslfl.strategies.fedavg import FedAvg
from parslfl.strategies.robust import GeometricMedian, Krum, Median, MedianClip, TrimmedMean
from parslfl.transport.file import COPIED, File

SCALARS, DIFFERENT, TURNS = 11_181_642, 20, 5
#: Turns of a few milliseconds are disturbed more: so many updates are gone over at least.
ENOUGH = 200
#: Tables that are no single number of updates.
PARTS = "codecs", "robust"
#: Of how many updates the tables of codecs are.
CODED_NUMBERS = 8, 20, 60, 500
#: Updates in one merge app, and chains of these apps, as in a run.
GROUP, LANES = 4, 2
RAW = Raw()
CODED: dict[str, Codec] = {
    "topk:ratio=0.01": TopK(0.01),
    "quantize:bits=8": Quantize(8),
    "quantize:bits=8,block=0": Quantize(8, block=0),
}
T = TypeVar("T")


class Cost(NamedTuple):
    """`processor`: seconds of all cores together; `memory`: MB that it grew by at its peak."""

    seconds: float
    processor: float
    memory: float


@dataclass(frozen=True)
class Kept(File):
    """Files that may be read again."""

    def drop(self, ref: Ref) -> None:
        """Keep it."""


def written(folder: Path, codec: Codec = RAW) -> list[Update]:
    """Updates of one array each, as files."""
    random, transport, found = np.random.default_rng(0), Kept(str(folder)), []
    for index in range(DIFFERENT):
        client = Client(index, "here")
        packed = wire.pack(*codec.encode({"w": random.standard_normal(SCALARS, np.float32)}, index))
        ref = transport.put(update_name(0, client), packed.buffers, packed.checksum)
        found.append(Update(client, 0, ref, 100, 10, 10, 1.0, 1.0, 4 * SCALARS))
    return found


def mapped(folder: Path, updates: list[Update]) -> list[Params]:
    return [wire.unpack(File(str(folder)).get(update.ref))[0] for update in updates]


def anonymous() -> float:
    """MB of the process's own memory."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0]) / 1e3


def cost(work: Callable[[], object]) -> Cost:
    began, used = time.perf_counter(), time.process_time()
    work()
    return Cost(time.perf_counter() - began, time.process_time() - used, 0.0)


def watched(work: Callable[[], object]) -> Cost:
    """What `work` adds to the process's own memory. Who watches takes time, so that none is told."""
    gc.collect()  # what compiling left, and free memory that the allocator keeps, would go meanwhile
    ctypes.CDLL(None).malloc_trim(0)
    before, peak, done = anonymous(), 0.0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.005):
            peak = max(peak, anonymous())

    watcher = threading.Thread(target=watch)
    watcher.start()
    work()
    done.set()
    watcher.join()
    return Cost(math.inf, math.inf, max(0.0, peak - before))


def least(costs: Sequence[Cost]) -> Cost:
    """The least of the times, the most of the memory."""
    return Cost(
        min(one.seconds for one in costs),
        min(one.processor for one in costs),
        max(one.memory for one in costs),
    )


def grouped(items: Sequence[T], size: int = GROUP) -> list[list[T]]:
    return [list(items[start : start + size]) for start in range(0, len(items), size)]


def lanes(items: Sequence[T]) -> list[list[list[T]]]:
    """The groups of each lane."""
    return [grouped(items)[lane::LANES] for lane in range(LANES)]


def merger(folder: Path, told: list[Update], codec: Codec, mean: bool = False) -> Callable[[], object]:
    """What a run does with the updates `told` as they come; with `mean`, until their mean is there."""
    both, desk = ThreadPoolExecutor(LANES), Desk(like={"w": np.zeros(SCALARS, np.float32)})
    job = Folding(
        FedAvg(),
        {u.client: codec for u in told},
        {"here": Kept(str(folder))},
        desk,
        time.monotonic(),
        works={u.client: LocalWork() for u in told},
        clients=len(told),
    )

    def merged() -> None:
        notes = list(both.map(merged_lane, [job] * LANES, range(LANES), lanes(told)))
        if mean:
            desk.mean(LANES, 0, sum(note.weight for note in notes))
        for lane in range(LANES):
            desk.clear(lane)  # what waits for no mean is forgotten as well: its memory is used again

    return merged


def merged_lane(job: Folding, lane: int, groups: list[list[Update]]) -> Merged:
    note = Merged()
    for number, group in enumerate(groups):
        fold = merge if number == len(groups) - 1 else merge_on
        note = fold(job, lane, note if number else None, *group)
    if note.failures:
        raise SystemExit(f"refused: {note.failures[0].reason}")
    return note


def folding(folder: Path, different: list[Update], codec: Codec, number: int) -> Callable[[], object]:
    """Adding `number` updates to sums, once they are opened."""
    like = {"w": np.zeros(SCALARS, np.float32)}
    both, desk = ThreadPoolExecutor(LANES), Desk(like=like)
    read = [File(str(folder)).get(update.ref) for update in different]
    # what is not mapped is in memory that the merges want to use again
    arrays = [wire.unpack(data if len(data) > COPIED else memoryview(bytes(data))) for data in read]
    ready = [opened(codec, *parts, like) for parts in arrays]
    deltas = [ready[i % DIFFERENT] for i in range(number)]

    def one(lane: int) -> None:
        desk.clear(lane)
        mine = [delta for group in lanes(deltas)[lane] for delta in group]
        room = int(4 * SCALARS / SHARE / max(1, private(mine[0]))) + 1
        together = min(TOGETHER, room) if is_sparse(mine[0]) else GROUP
        for group in grouped(mine, together):
            desk.add(lane, 0, [(delta, 100.0) for delta in group])

    return lambda: list(both.map(one, range(LANES)))


def works(folder: Path, updates: list[Update], number: int) -> dict[str, Callable[[], object]]:
    """What is compared, on `number` updates."""
    arrays = mapped(folder, updates)
    chosen = [arrays[i % DIFFERENT] for i in range(number)]
    told = [updates[i % DIFFERENT] for i in range(number)]
    both = ThreadPoolExecutor(LANES)
    buffer = np.empty(SCALARS, np.float32)
    totals: dict[int, Params] = {}

    def copy() -> None:
        for params in chosen:
            np.copyto(buffer, params["w"])

    def one(groups: list[list[Params]], lane: int) -> None:
        total = totals.setdefault(lane, {"w": np.empty(SCALARS, np.float32)})
        for place, group in enumerate(groups):
            fold_all(total, [(params, 100.0) for params in group], afresh=place == 0)

    found: dict[str, Callable[[], object]] = {
        "copy": copy,
        "fold": lambda: one(grouped(chosen), LANES),
        "fold, two": lambda: list(both.map(one, lanes(chosen), range(LANES))),
        "merge": merger(folder, told, RAW),
    }
    aggregate = flower()
    if aggregate is not None and number <= 60:
        pairs = [([params["w"]], 100) for params in chosen]
        found["flower"] = lambda: aggregate(pairs)
    return found


def flower() -> Callable[[list[tuple[list[npt.NDArray[np.float32]], int]]], object] | None:
    """Flower's own sum, where it is installed."""
    folder = os.environ.get("PARSLFL_FLOWER")
    if not folder:
        return None
    if folder not in sys.path:
        sys.path.append(folder)
    found: Any = importlib.import_module("flwr.server.strategy.aggregate")
    return found.aggregate  # type: ignore[no-any-return]


def table(folder: Path, updates: list[Update], number: int) -> Table:
    made = Table(f"{number} updates", "s", "x copy", "processor s", "x copy", "MB")
    costs = measured(works(folder, updates, number), number)
    plain = costs["copy"]
    for name, (seconds, processor, memory) in costs.items():
        ratios = f"{seconds / plain.seconds:.2f}", f"{processor / plain.processor:.2f}"
        made.add_row(name, f"{seconds:.3f}", ratios[0], f"{processor:.3f}", ratios[1], f"{memory:.0f}")
    return made


def coded(folder: Path, updates: list[Update], number: int) -> Table:
    """What a run does with updates of several codecs, and the least that int8 and few of top-k can take."""
    total, both = np.zeros((LANES, SCALARS), np.float32), ThreadPoolExecutor(LANES)
    compared = dict[str, Callable[[], object]]()
    for name, codec in {"raw": RAW, **CODED}.items():
        where = folder if codec is RAW else folder / name
        different = updates if codec is RAW else written(where, codec)
        told = [different[i % DIFFERENT] for i in range(number)]
        for warm in merger(where, told[:2], codec, mean=True), folding(where, different, codec, 8):
            warm()  # compiles the loops
        compared[name] = merger(where, told, codec)
        compared[f"{name}, mean"] = merger(where, told, codec, mean=True)
        compared[f"{name}, adding"] = folding(where, different, codec, number)
    codes = [np.arange(SCALARS // 8) + i for i in range(DIFFERENT)]

    def limit(lane: int) -> None:
        for one in range(lane, number, LANES):
            codes[one % DIFFERENT].max()  # reads the bytes of an int8 update
            np.add(total[lane], np.float32(1), out=total[lane])

    halves = np.array_split(total[0], LANES)
    compared["bytes of int8 and sums"] = lambda: list(both.map(limit, range(LANES)))
    compared["one array set to zeros"] = lambda: list(both.map(lambda half: half.fill(0), halves))
    costs = measured(compared, number)
    made = Table(f"{number} updates", "ms each", "x raw", "processor ms", "x raw", "MB")
    for name, (seconds, processor, memory) in costs.items():
        codec_name, _, what = name.partition(", ")  # raw ones are counted to the same point
        plain = costs["raw" + (what and f", {what}") if codec_name in {"raw", *CODED} else "raw, adding"]
        wall = f"{1e3 * seconds / number:.2f}", f"{seconds / plain.seconds:.2f}"
        both_cores = f"{1e3 * processor / number:.2f}", f"{processor / plain.processor:.2f}"
        made.add_row(name, *wall, *both_cores, f"{memory:.0f}")
    return made


def measured(compared: dict[str, Callable[[], object]], number: int) -> dict[str, Cost]:
    """The least of all turns, of works on `number` updates; all of them once a turn."""
    costs = {name: [watched(work)] for name, work in compared.items()}
    for _ in range(max(TURNS, ENOUGH // number)):
        for name, work in compared.items():
            costs[name].append(cost(work))
    return {name: least(found) for name, found in costs.items()}


def robust(folder: Path, updates: list[Update]) -> Table:
    """What strategies that need all updates take, beside a plain copy of these."""
    made = Table(f"robust, {DIFFERENT} updates", "s", "x copy", "MB")
    evidence = Evidence(100, 10, LocalWork(), norm=float(SCALARS) ** 0.5)
    cohort = Cohort((evidence,) * DIFFERENT, DIFFERENT)
    strategies: list[NeedsAll] = [
        Median(),
        TrimmedMean(),
        Krum(hostile=4),
        Krum(hostile=4, keep=12),
        GeometricMedian(),
        MedianClip(),
        Median(mix=4),
        GeometricMedian(mix=4),
    ]
    plain = works(folder, updates, DIFFERENT)["copy"]
    for strategy in strategies:

        def work(strategy: NeedsAll = strategy) -> None:
            out = {"w": np.empty(SCALARS, np.float32)}
            strategy.combine(Stack(tuple(mapped(folder, updates))), cohort, out)

        copied, found = measured({"copy": plain, "": work}, DIFFERENT).values()
        ratio = f"{found.seconds / copied.seconds:.1f}"
        made.add_row(repr(strategy), f"{found.seconds:.2f}", ratio, f"{found.memory:.0f}")
    return made


def _require_known(words: Sequence[str]) -> None:
    """Refuse a word that asks for nothing, before minutes are spent on those before it."""
    for word in words:
        if word not in PARTS and not (word.isdecimal() and int(word) > 0):
            sys.exit(
                f"aggregation: {word}: expected a number of updates from 1, {', '.join(PARTS)}, or --numpy"
            )


def main() -> None:
    words = [word for word in sys.argv[1:] if word != "--numpy"]
    _require_known(words)
    compiled.FIRST = 0 if len(words) == len(sys.argv[1:]) else sys.maxsize
    console = Console(width=100)
    with tempfile.TemporaryDirectory() as folder:
        where = Path(folder)
        updates = written(where)
        for word in words or ["8", "20", "60", "500", "codecs", "robust"]:
            if word == "codecs":
                console.print(*(coded(where, updates, number) for number in CODED_NUMBERS))
            elif word == "robust":
                console.print(robust(where, updates))
            else:
                console.print(table(where, updates, int(word)))


if __name__ == "__main__":
    main()
