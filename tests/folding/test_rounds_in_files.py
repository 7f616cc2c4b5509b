"""Rounds that would take more than three models: what is too much lies in files, and is the same there."""

from __future__ import annotations

import shutil
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from parslfl.codecs import wire
from parslfl.codecs.chain import Chain
from parslfl.codecs.lowrank import LowRank
from parslfl.codecs.quantize import Quantize
from parslfl.codecs.randomk import RandomK
from parslfl.codecs.raw import Raw
from parslfl.codecs.topk import TopK
from parslfl.codecs.zstd import Zstd
from parslfl.downlink import Outgoing
from parslfl.folding import checkpoints
from parslfl.folding.desk import Desk
from parslfl.folding.finishing import finish
from parslfl.folding.folding import Folding
from parslfl.folding.merging import Merged, merge
from parslfl.folding.partials import fold_partial, merge_site
from parslfl.learning import Cohort, Evidence, LocalWork
from parslfl.messages import Assignment, Client, MergeTask, Ref, RoundPlan, Update, update_name
from parslfl.params import Params, in_memory, is_mapped, nbytes
from parslfl.protocols import Codec, Strategy, Transport
from parslfl.strategies.fedavg import FedAvg
from parslfl.strategies.fedopt import FedAdam, FedAvgM
from parslfl.strategies.robust import Median
from parslfl.strategies.scaffold import Scaffold
from parslfl.submodel import KEY, describe
from parslfl.transport.buffers import POOL
from parslfl.transport.file import UPDATES, File

#: Pieces that are worked on, however large the model is.
_PIECES = 7 << 19
RAW = Raw()
CLIENTS = [Client(i, "here") for i in range(4)]
SQUARE, LONG, FLAT = (1536, 1536), (3, 3 << 18), (9 << 18,)
ALL_TOP = Chain((TopK(1.0), Quantize(8, block=0), Zstd()))
ALL_RANDOM = Chain((RandomK(1.0), Quantize(8, block=0), Zstd()))


@dataclass(frozen=True)
class Three(FedAvg):
    """A strategy with two sums more, and a state of three models."""

    def scales(self, evidence: Evidence) -> tuple[float, ...]:
        return 1.0, 2.0, 3.0

    def start(self, params: Params) -> Params:
        return {f"{n}/{name}": np.zeros_like(array) for n in range(3) for name, array in params.items()}

    def step(self, state: Params, params: Params, mean: Params, cohort: Cohort) -> tuple[Params, Params]:
        made = cohort.room or {name: np.empty_like(array) for name, array in state.items()}
        for n, one in enumerate([mean, *cohort.extra]):
            for name, array in one.items():
                made[f"{n}/{name}"][...] = array
        return made, super().step({}, params, mean, cohort)[1]


class Two(Three):
    """The same with one sum and one model less."""

    def scales(self, evidence: Evidence) -> tuple[float, ...]:
        return 1.0, 2.0

    def start(self, params: Params) -> Params:
        return dict(list(super().start(params).items())[:2])


class Stateful(Three):
    """The same with one sum."""

    scales: Any = None

    def step(self, state: Params, params: Params, mean: Params, cohort: Cohort) -> tuple[Params, Params]:
        made = cohort.room or {name: np.empty_like(array) for name, array in state.items()}
        for array in made.values():
            array[...] = mean["w"]
        return made, FedAvg.step(self, {}, params, mean, cohort)[1]


@dataclass(frozen=True)
class Case:
    strategy: Strategy
    codec: Codec = RAW
    keep: float = 1.0
    downlink: Codec | None = None
    shape: tuple[int, ...] = SQUARE
    half: bool = False

    @property
    def model(self) -> Params:
        return {"w": np.ones(self.shape, np.float16 if self.half else np.float32)}


CASES = [
    Case(FedAvg(), half=True),
    Case(FedAvgM(), half=True),
    Case(FedAdam(), half=True),
    Case(Scaffold(), half=True),
    Case(Median(), half=True),
    Case(FedAvg(), half=True, keep=0.9),
    Case(FedAdam(), Zstd(), half=True),
    Case(Scaffold(), ALL_TOP, half=True),
    Case(FedAvg(), ALL_RANDOM, half=True),
    Case(FedAvg(), half=True, downlink=Quantize(8)),
    Case(Scaffold(), ALL_TOP),
    Case(Scaffold(), ALL_RANDOM),
    Case(FedAdam(), ALL_TOP, keep=0.9),
    Case(FedAvg(), keep=0.9, shape=LONG),
    Case(FedAvg(), TopK(0.1), keep=0.9, shape=LONG),
    Case(Scaffold(), Zstd(), keep=0.9, shape=LONG),
    Case(FedAvg(), Zstd(), keep=0.9, shape=FLAT),
    Case(FedAvg(), keep=0.9, shape=FLAT, half=True),
    Case(FedAvg(), downlink=TopK(0.3)),
    Case(FedAdam(), downlink=Zstd()),
    Case(FedAvg(), half=True, downlink=TopK(1.0)),
    Case(FedAdam(), downlink=ALL_TOP),
    Case(FedAvg(), downlink=RandomK(1.0)),
    Case(FedAvg(), downlink=LowRank(0.6)),
    Case(FedAdam()),
    Case(Scaffold()),
    Case(Three()),
    Case(Two()),
    Case(Two(), half=True),
]


@pytest.mark.parametrize("case", CASES, ids=repr)
def test_three_models_and_the_same_bits_as_in_memory(tmp_path: Path, case: Case) -> None:
    apart, peak = _round(tmp_path / "files", case, files=True)
    beside, _ = _round(tmp_path / "memory", case, files=False)
    assert peak < 3 * nbytes(case.model) + _PIECES
    assert [one["w"].dtype for one in (apart, beside)] == [case.model["w"].dtype] * 2
    assert apart["w"].tobytes() == beside["w"].tobytes()
    assert not np.array_equal(apart["w"], case.model["w"])


def test_where_all_fits_no_file_is_made(tmp_path: Path) -> None:
    like = {"w": np.ones(600, np.float32)}
    for strategy, files in ((FedAvg(), False), (FedAvgM(), False), (FedAdam(), True), (Scaffold(), True)):
        job = _job(tmp_path, Case(strategy), Desk(like=like, state=strategy.start(like)), files=True)
        assert (job.folder, job.room_for_state()) == (tmp_path / UPDATES if files else None, {})
    assert not list(tmp_path.iterdir())


def test_sums_in_files_stay_there_until_they_need_not(tmp_path: Path) -> None:
    """From round to round, as in memory: what is in memory goes once files are needed, not the other way."""
    desk = Desk(like={"w": np.ones(6, np.float32)})
    desk.clear(0)
    desk.sums(0, 0)["w"] += 1
    desk.keep_in(tmp_path)
    desk.clear(0)
    assert desk.sums(0, 0)["w"].tolist() == [0] * 6
    assert not in_memory(desk.sums(0, 0))
    desk.sums(0, 0)["w"] += 2
    desk.keep_in(tmp_path)
    assert desk.sums(0, 0)["w"].tolist() == [2] * 6
    desk.keep_in(None)
    assert desk.sums(0, 0)["w"].tolist() == [2] * 6
    assert in_memory(desk.sums(0, 1))


def test_two_chains_may_have_their_sums_in_files(tmp_path: Path) -> None:
    """Three models of state leave no memory for a sum; the lanes begin at once, in any order."""
    case = Case(Stateful(), shape=(1 << 16,))
    like = case.model
    desk = Desk(like=like, state=case.strategy.start(like))
    job = _job(tmp_path, case, desk, files=True)
    assert job.lanes == 2
    assert job.folder == tmp_path / UPDATES
    (tmp_path / UPDATES).mkdir()
    deltas = [np.random.default_rng(n).standard_normal(1 << 16, np.float32) for n in range(2)]
    for _ in range(20):
        updates = [_written(File(str(tmp_path)), CLIENTS[n], Raw(), {"w": deltas[n]}) for n in range(2)]
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda lane: merge(job, lane, None, updates[lane]), range(2)))  # noqa: B023
        for lane, delta in enumerate(deltas):
            assert is_mapped(desk.sums(lane, 0)["w"])
            assert np.array_equal(desk.sums(lane, 0)["w"], np.float32(3) * delta)
        desk.folder = None  # as if the next round were the first


@pytest.mark.parametrize("strategy", [FedAvg(), Scaffold(), Three()], ids=repr)
def test_sums_of_sites_that_come_into_memory(tmp_path: Path, strategy: Strategy) -> None:
    """As from a store: none is added before all are found good, and they are not in memory together."""
    case = Case(strategy, shape=(1200, 1200))
    like = _mapped(tmp_path / "like", case.model)
    there = InMemory(str(tmp_path))
    start = there.put("model", *_packed(case.model))
    delta = {"w": np.random.default_rng(0).standard_normal(case.shape, np.float32)}
    partials = []
    for site in "ab":
        clients = [Client(index, site) for index in range(2)]
        updates = [_written(there, client, Raw(), delta) for client in clients]
        codecs, works = dict.fromkeys(clients, Raw()), dict.fromkeys(clients, LocalWork())
        partials.append(merge_site(MergeTask(0, site, strategy, codecs, works, start, there), *updates))
    clients = [update.client for partial in partials for update in partial.merged.updates]
    (tmp_path / UPDATES).mkdir(exist_ok=True)
    job = Folding(
        strategy,
        dict.fromkeys(clients, Raw()),
        {"a": there, "b": there},
        Desk(like=like),
        time.monotonic(),
        works=dict.fromkeys(clients, LocalWork()),
        clients=4,
        spill=tmp_path / UPDATES,
        summed=frozenset("ab"),
    )
    assert job.lanes == 1
    POOL.forget()
    tracemalloc.start()
    try:
        note: Merged | None = None
        for partial in partials:
            note = fold_partial(job, 0, note, partial)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert note is not None
    assert not note.failures
    assert np.allclose(job.desk.sums(0, 0)["w"], 4 * 3 * delta["w"], rtol=1e-6)
    assert peak < 3 * nbytes(case.model) + _PIECES


def test_sums_that_come_as_files_leave_two_chains(tmp_path: Path) -> None:
    """Whatever codec the ranks of such a site have: their updates never come."""
    like = {"w": np.ones(6_000, np.float32)}
    job = _job(tmp_path, Case(FedAvg(), Zstd()), Desk(like=like), files=True)
    assert job.lanes == 1
    assert replace(job, summed=frozenset({"here"})).lanes == 2


@dataclass(frozen=True)
class InMemory(File):
    """What is fetched is in memory, as from a store."""

    fetches: ClassVar[bool] = True

    def get(self, ref: Ref) -> memoryview:
        return memoryview(bytes(super().get(ref)))


def _round(folder: Path, case: Case, files: bool) -> tuple[Params, int]:
    """The model that a round makes, and the memory that it takes at most. What it starts from, and its
    updates, are mapped files."""
    (folder / UPDATES).mkdir(parents=True)
    like = _mapped(folder / "like", case.model)
    state = _mapped(folder / "begun", case.strategy.start(case.model))
    job = _job(folder, case, Desk(like=like, state=state), files)
    work = LocalWork(keep=case.keep)
    updates = _parts(File(str(folder)), case)
    plan = RoundPlan(0, tuple(Assignment(c, work, case.codec) for c in CLIENTS), 1, len(CLIENTS))
    POOL.forget()
    tracemalloc.start()
    try:
        notes = [merge(job, lane, None, *updates[lane :: job.lanes]) for lane in range(job.lanes)]
        done = finish(job, plan, folder / "model", folder / "state", None, *notes)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(done.updates) == len(CLIENTS)
    left = [one for one in (folder / UPDATES).iterdir() if not one.name.startswith("update")]
    assert not left
    made = {name: array.copy() for name, array in checkpoints.read(folder / "model", done.model).items()}
    shutil.rmtree(folder)
    return made, peak


def _job(folder: Path, case: Case, desk: Desk, files: bool) -> Folding:
    clients = CLIENTS
    out = Outgoing(case.downlink, 0, folder / "differences" / "1", folder / "left") if case.downlink else None
    return Folding(
        case.strategy,
        dict.fromkeys(clients, case.codec),
        {"here": File(str(folder))},
        desk,
        time.monotonic(),
        works=dict.fromkeys(clients, LocalWork(keep=case.keep)),
        clients=len(clients),
        spill=folder / UPDATES if files else None,
        downlink=out,
    )


def _parts(transport: Transport, case: Case) -> list[Update]:
    """Updates of all numbers, or of those in a share of each dimension: one for all, for they take time."""
    random = np.random.default_rng(0)
    part = tuple(np.sort(random.choice(n, max(1, int(n * case.keep)), replace=False)) for n in case.shape)
    note = {KEY: describe({"w": part})} if case.keep < 1 else {}
    delta = random.standard_normal([len(at) for at in part], np.float32).astype(case.model["w"].dtype)
    arrays, told = case.codec.encode({"w": delta})
    packed = _packed(arrays, {**told, **note})
    return [_told(client, transport.put(update_name(0, client), *packed)) for client in CLIENTS]


def _written(transport: Transport, client: Client, codec: Codec, delta: Params) -> Update:
    return _told(client, transport.put(update_name(0, client), *_packed(*codec.encode(delta))))


def _told(client: Client, ref: Ref) -> Update:
    return Update(client, 0, ref, 3, 1, 1, 2.0, 1.0, 12, examples=3)


def _packed(arrays: Params, note: dict[str, Any] | None = None) -> tuple[Any, str]:
    packed = wire.pack(arrays, note)
    return packed.buffers, packed.checksum


def _mapped(path: Path, arrays: Params) -> Params:
    return checkpoints.read(path, checkpoints.write(path, arrays)) if arrays else {}
