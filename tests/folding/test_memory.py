"""What a round takes of the driver's memory: at most three models, whatever the strategy keeps."""

from __future__ import annotations

import math
import sys
import time
import tracemalloc
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from parslfl.codecs import compiled, wire
from parslfl.codecs.cast import Fp16
from parslfl.codecs.chain import Chain
from parslfl.codecs.lowrank import LowRank
from parslfl.codecs.pieces import add_all
from parslfl.codecs.quantize import Quantize
from parslfl.codecs.randomk import RandomK
from parslfl.codecs.raw import Raw
from parslfl.codecs.topk import TopK
from parslfl.codecs.wire import Packed
from parslfl.codecs.zstd import Zstd
from parslfl.downlink import Outgoing
from parslfl.folding import checkpoints
from parslfl.folding.desk import Desk
from parslfl.folding.finishing import finish
from parslfl.folding.folding import Folding
from parslfl.folding.merging import Merged, merge, merge_on
from parslfl.folding.partials import merge_site
from parslfl.folding.receiving import open_update
from parslfl.learning import LocalWork
from parslfl.messages import Assignment, Client, MergeTask, Ref, RoundPlan, Update, update_name
from parslfl.params import Joined, Params, nbytes
from parslfl.protocols import Codec, Strategy, at_most, in_hand
from parslfl.strategies.fedavg import FedAvg
from parslfl.strategies.fednova import FedNova
from parslfl.strategies.fedopt import FedAdagrad, FedAdam, FedAvgM, FedYogi
from parslfl.strategies.robust import Median
from parslfl.strategies.scaffold import Scaffold
from parslfl.submodel import KEY, describe
from parslfl.transport.buffers import POOL
from parslfl.transport.file import COPIED, File
from parslfl.transport.proxystore import ProxyStore

SIDE = 1536
#: Pieces that are worked on, however large the model is.
_SCRATCH = 3 << 19
#: The same of an update of any codec, in hand: a dozen arrays of `BLOCK` numbers.
_PIECES = 7 << 19
CLIENTS = [Client(i, "here") for i in range(6)]
#: In how many models' memory an update is opened and added.
IN_HAND: dict[Codec, float] = {
    Raw(): 0,
    Fp16(): 0,
    Quantize(8): 0,
    TopK(0.02): 0.06,
    TopK(0.1): 0.3,
    TopK(0.3): 0.375,
    RandomK(0.1): 0.2,
    RandomK(0.3): 0.075,
    LowRank(0.05): 0,
    Zstd(): 1,
    Chain((Fp16(), Zstd())): 0.5,
    Chain((Quantize(4, block=0), Zstd())): 0.125,
    Chain((LowRank(0.1), Quantize(8, block=0), Zstd())): 0.125,
    Chain((TopK(0.3), Zstd())): 0.375 + 0.3 + 1 / 32,
    Chain((TopK(0.1), Quantize(8, block=0), Zstd())): 0.3 + 0.1 * 1.25 + 2 / 32,
    Chain((TopK(1.0), Zstd())): 0.375 + 1 + 1 / 32,
    Chain((RandomK(0.2), Quantize(8, block=0))): 0.05 + 0.2,
    Chain((RandomK(1.0), Quantize(8, block=0), Zstd())): 0.25 + 1.25,
}


@pytest.fixture(scope="module", autouse=True)
def _room_for_names() -> None:
    """Python's table of interned names, which pathlib uses, grows by megabytes once in some hundred
    thousand names. It does so now, and not while a test looks at memory."""
    names = list[str]()
    tracemalloc.start()
    try:
        while len(names) < 1 << 20:
            before = tracemalloc.get_traced_memory()[0]
            names.append(sys.intern(f"{__name__}-{len(names)}"))
            if tracemalloc.get_traced_memory()[0] > before + (1 << 20):
                return
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("strategy", "keep", "downlink", "codec"),
    [
        (FedAvg(), 1.0, None, Raw()),
        (FedNova(), 1.0, None, Raw()),
        (FedAvgM(), 1.0, None, Raw()),
        (FedAdagrad(), 1.0, None, Raw()),
        (FedAdam(), 1.0, None, Raw()),
        (FedYogi(), 1.0, None, Raw()),
        (Scaffold(), 1.0, None, Raw()),
        (FedAvg(), 0.5, None, Raw()),
        (FedAvg(), 0.9, None, Raw()),
        (FedAdam(), 0.5, None, Raw()),
        (FedAvg(), 1.0, Quantize(8), Raw()),
        (FedAvg(), 1.0, TopK(0.05), Raw()),
        (FedAvg(), 1.0, TopK(0.25), Raw()),
        (FedAvg(), 1.0, RandomK(0.25), Raw()),
        (FedAvg(), 1.0, LowRank(0.25), Raw()),
        (FedAvg(), 1.0, Zstd(), Raw()),
        (FedAvg(), 1.0, Chain((Fp16(), Zstd())), Raw()),
        (FedAvgM(), 1.0, TopK(0.05), Raw()),
        (Scaffold(), 1.0, Quantize(8), Raw()),
        (FedAdam(), 0.9, TopK(0.05), Raw()),
        (FedAvg(), 0.9, None, Quantize(8)),
        (FedAvg(), 0.9, None, Zstd()),
        (FedAvg(), 0.9, None, Chain((Fp16(), Zstd()))),
        (FedAvg(), 0.9, None, Chain((TopK(0.1), Quantize(8)))),
        (FedAdam(), 0.9, None, Chain((TopK(0.3), Zstd()))),
        (FedAvg(), 0.9, None, Chain((RandomK(0.2), Quantize(8)))),
    ],
    ids=repr,
)
def test_three_models(
    tmp_path: Path, strategy: Strategy, keep: float, downlink: Codec | None, codec: Codec
) -> None:
    """What a round starts from, and its updates, are mapped files and do not count."""
    model: Params = {"w": np.ones((SIDE, SIDE), np.float32)}
    like, state = _mapped(tmp_path / "like", model), _mapped(tmp_path / "begun", strategy.start(model))
    residual = _mapped(tmp_path / "left", {"w": model["w"] / 9}) if isinstance(downlink, TopK) else {}
    transport, work = File(str(tmp_path)), LocalWork(keep=keep)
    updates = [_written(transport, client, keep, codec) for client in CLIENTS]
    job = Folding(
        strategy,
        dict.fromkeys(CLIENTS, codec),
        {"here": transport},
        Desk(like=like, state=state, residual=residual),
        time.monotonic(),
        works=dict.fromkeys(CLIENTS, work),
        clients=len(CLIENTS),
        downlink=None if downlink is None else _outgoing(downlink, tmp_path),
    )
    plan = RoundPlan(0, tuple(Assignment(c, work, codec) for c in CLIENTS), 1, len(CLIENTS))
    tracemalloc.start()
    try:
        notes = [merge(job, lane, None, *updates[lane :: job.lanes]) for lane in range(job.lanes)]
        done = finish(job, plan, tmp_path / "model", tmp_path / "state", None, *notes)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(done.updates) == len(CLIENTS)
    assert not np.array_equal(checkpoints.read(tmp_path / "model", done.model)["w"], model["w"])
    assert peak < 3 * nbytes(model) + (_PIECES if "Fp16" in repr(codec) else _SCRATCH)


@pytest.mark.parametrize("first", [0, math.inf], ids=["compiled", "numpy"])
@pytest.mark.parametrize(
    ("number", "codecs"),
    [
        (6, [TopK(0.05)] * 2),
        (40, [TopK(0.05)] * 2),
        (40, [TopK(0.06), TopK(0.04), TopK(0.08)]),
        (20, [Chain((TopK(0.2), Quantize(8)))] * 2),
        (20, [Chain((TopK(0.3), Zstd()))] * 2),
        (20, [Chain((RandomK(0.2), Quantize(8)))] * 2),
    ],
    ids=["few", "many", "other sizes", "top fifth", "top third", "random fifth"],
)
@pytest.mark.parametrize(
    ("strategy", "downlink"),
    [
        (FedAvg(), None),
        (FedAdam(), None),
        (Scaffold(), None),
        (FedAvg(), Quantize(8)),
        (FedAvgM(), TopK(0.05)),
    ],
    ids=repr,
)
def test_three_models_with_sparse_updates(
    tmp_path: Path,
    strategy: Strategy,
    downlink: Codec | None,
    number: int,
    codecs: list[Codec],
    first: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whether all wait for the mean or not, round after round: memory is kept from one to the next."""
    monkeypatch.setattr(compiled, "FIRST", first)
    model: Params = {"w": np.ones((SIDE, SIDE), np.float32)}
    like, state = _mapped(tmp_path / "like", model), _mapped(tmp_path / "begun", strategy.start(model))
    clients = [Client(i, "here") for i in range(number)]
    job = Folding(
        strategy,
        {},
        {"here": File(str(tmp_path))},
        Desk(like=like, state=state),
        time.monotonic(),
        works=dict.fromkeys(clients, LocalWork()),
        clients=number,
        downlink=None if downlink is None else _outgoing(downlink, tmp_path),
    )
    rounds = [(codec, wire.pack(*codec.encode(_delta()))) for codec in codecs]
    _round(replace(job, codecs=dict.fromkeys(clients, codecs[0])), clients, rounds[0][1], tmp_path)
    POOL.forget()
    job.desk.totals.clear()
    tracemalloc.start()
    try:
        for codec, packed in rounds:
            _round(replace(job, codecs=dict.fromkeys(clients, codec)), clients, packed, tmp_path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 3 * nbytes(model) + _SCRATCH


@pytest.mark.parametrize("first", [0, math.inf], ids=["compiled", "numpy"])
@pytest.mark.parametrize("codec", IN_HAND, ids=repr)
def test_what_a_codec_says_that_an_update_takes(
    tmp_path: Path, codec: Codec, first: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it is opened and added to sums; and that is what makes one chain of merges or two."""
    monkeypatch.setattr(compiled, "FIRST", first)
    side = 2560
    like = _mapped(tmp_path / "like", {"w": np.ones((side, side), np.float32)})
    transport, sums = File(str(tmp_path)), Joined.empty_like(like)
    packed = wire.pack(*codec.encode(_delta(side)))
    ref = transport.put(update_name(0, CLIENTS[0]), packed.buffers, packed.checksum)
    update = Update(CLIENTS[0], 0, ref, 3, 1, 1, 2.0, 1.0, 12)
    for _ in range(2):  # loops are compiled first
        tracemalloc.start()
        delta, _ = open_update(update, transport, codec, like)
        add_all(sums, [(delta, 0.5)])
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        del delta
        POOL.forget()
    wanted = IN_HAND[codec]
    assert in_hand(codec, like) / nbytes(like) == pytest.approx(wanted, abs=0.001)
    assert at_most(codec, like) >= ref.size - (1 << 10)
    assert peak < wanted * nbytes(like) + min(ref.size, COPIED) + _PIECES
    assert _job(tmp_path, like, CLIENTS, codec).lanes == (1 if wanted > 0.425 else 2)


@pytest.mark.parametrize(
    "codec",
    [
        Quantize(8),
        TopK(0.1),
        RandomK(0.3),
        Zstd(),
        Chain((Fp16(), Zstd())),
        Chain((TopK(0.3), Zstd())),
        Chain((TopK(0.1), Quantize(8, block=0), Zstd())),
        Chain((RandomK(1.0), Quantize(8, block=0), Zstd())),
    ],
    ids=repr,
)
def test_three_models_with_two_threads(tmp_path: Path, codec: Codec) -> None:
    """As a round is merged: the lanes side by side."""
    side = 2560
    like = _mapped(tmp_path / "like", {"w": np.ones((side, side), np.float32)})
    clients = [Client(i, "here") for i in range(12)]
    packed = wire.pack(*codec.encode(_delta(side)))
    job = _job(tmp_path, like, clients, codec)
    _round(job, clients, packed, tmp_path, threads=2)
    POOL.forget()
    job.desk.totals.clear()
    assert _peak(job, clients, packed, tmp_path) < 3 * nbytes(like) + _SCRATCH


@pytest.mark.parametrize(
    "codec", [TopK(0.1), Zstd(), Chain((Fp16(), Zstd())), Chain((TopK(0.1), Quantize(8)))], ids=repr
)
def test_three_models_where_updates_are_held(tmp_path: Path, codec: Codec) -> None:
    """They are made dense, and then lie in files; the sum of the round before is not kept."""
    side = 2560
    like = _mapped(tmp_path / "like", {"w": np.ones((side, side), np.float32)})
    clients = [Client(i, "here") for i in range(8)]
    job = replace(_job(tmp_path, like, clients, codec), strategy=Median(), spill=tmp_path)
    packed = wire.pack(*codec.encode(_delta(side)))
    assert _peak(job, clients, packed, tmp_path) < 3 * nbytes(like) + _SCRATCH


def test_a_site_that_merges_holds_three_models(tmp_path: Path) -> None:
    """Of the model that it was sent only shapes and dtypes are kept: here that is in memory."""
    side = 2560
    like: Params = {"w": np.ones((side, side), np.float32)}
    transport, model = InMemory(str(tmp_path)), wire.pack(like)
    start = transport.put("model", model.buffers, model.checksum)
    packed = wire.pack(*Zstd().encode(_delta(side)))
    refs = {c: transport.put(update_name(0, c), packed.buffers, packed.checksum) for c in CLIENTS}
    updates = [Update(client, 0, ref, 3, 1, 1, 2.0, 1.0, 12) for client, ref in refs.items()]
    codecs, works = dict.fromkeys(CLIENTS, Zstd()), dict.fromkeys(CLIENTS, LocalWork())
    task = MergeTask(0, "here", FedAvg(), codecs, works, start, transport)
    tracemalloc.start()
    try:
        partial = merge_site(task, *updates)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(partial.merged.updates) == len(CLIENTS)
    assert peak < 3 * nbytes(like) + _SCRATCH


@dataclass(frozen=True)
class InMemory(File):
    """What is fetched is in memory, as from a store."""

    fetches: ClassVar[bool] = True

    def get(self, ref: Ref) -> memoryview:
        return memoryview(bytes(super().get(ref)))


def test_vectors_that_low_rank_sends_whole_count(tmp_path: Path) -> None:
    like: Params = {"v": np.ones(6_000, np.float32), "w": np.ones((60, 60), np.float32)}
    codec = Chain((LowRank(0.05), Zstd()))
    assert in_hand(codec, like) == 4 * (6_000 + 120)
    assert _job(tmp_path, like, CLIENTS, codec).lanes == 1
    assert _job(tmp_path, {"w": like["w"]}, CLIENTS, codec).lanes == 2


def test_sums_of_half_precision_take_two_models_each(tmp_path: Path) -> None:
    half = {"w": np.ones((6, 6), np.float16)}
    assert _job(tmp_path, half, CLIENTS, Raw()).lanes == 1


def test_updates_that_are_fetched_into_memory_are_in_hand_too(tmp_path: Path) -> None:
    like = {"w": np.ones(6_000, np.float32)}
    for codec, lanes in (
        (Raw(), 1),
        (Fp16(), 1),
        (Quantize(8), 2),
        (Chain((Quantize(8), Zstd())), 1),
    ):
        job = _job(tmp_path, like, CLIENTS, codec)
        assert job.lanes == 2
        assert replace(job, transports={"here": ProxyStore("file")}).lanes == lanes


def _job(folder: Path, like: Params, clients: list[Client], codec: Codec) -> Folding:
    return Folding(
        FedAvg(),
        dict.fromkeys(clients, codec),
        {"here": File(str(folder))},
        Desk(like=like),
        time.monotonic(),
        works=dict.fromkeys(clients, LocalWork()),
        clients=len(clients),
    )


def _delta(side: int = SIDE) -> Params:
    return {"w": np.random.default_rng(0).standard_normal((side, side), np.float32)}


def _peak(job: Folding, clients: list[Client], packed: Packed, folder: Path) -> int:
    """Bytes that two rounds in two threads take at most."""
    tracemalloc.start()
    try:
        for _ in range(2):
            _round(job, clients, packed, folder, threads=2)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def _round(job: Folding, clients: list[Client], packed: Packed, folder: Path, threads: int = 1) -> None:
    """A round of updates with these bytes, in groups of four."""
    transport = job.transports["here"]
    refs = {c: transport.put(update_name(0, c), packed.buffers, packed.checksum) for c in clients}
    updates = [Update(client, 0, ref, 3, 1, 1, 2.0, 1.0, 12) for client, ref in refs.items()]
    plan = RoundPlan(0, tuple(Assignment(c, LocalWork(), job.codecs[c]) for c in clients), 1, len(clients))
    groups, notes = [updates[start : start + 4] for start in range(0, len(updates), 4)], dict[int, Merged]()

    def fold(turns: Iterable[int]) -> None:
        for turn in turns:
            lane, merged = turn % job.lanes, merge if turn + job.lanes >= len(groups) else merge_on
            notes[lane] = merged(job, lane, notes.get(lane), *groups[turn])

    every = range(len(groups))
    with ThreadPoolExecutor(threads) as pool:
        list(
            pool.map(
                fold, [every] if threads == 1 else [every[lane :: job.lanes] for lane in range(job.lanes)]
            )
        )
    done = finish(job, plan, folder / "next", folder / "next state", None, *notes.values())
    assert len(done.updates) == len(clients)


def _outgoing(codec: Codec, folder: Path) -> Outgoing:
    return Outgoing(codec, 0, folder / "differences" / "1", folder / "residual")


def _mapped(path: Path, arrays: Params) -> Params:
    return checkpoints.read(path, checkpoints.write(path, arrays)) if arrays else {}


def _written(transport: File, client: Client, keep: float, codec: Codec) -> Update:
    """An update of all numbers, or of those in a share of the rows and columns."""
    random = np.random.default_rng(client.index)
    part = tuple(np.sort(random.choice(SIDE, int(SIDE * keep), replace=False)) for _ in range(2))
    note = {KEY: describe({"w": part})} if keep < 1 else {}
    arrays, told = codec.encode({"w": random.standard_normal([len(at) for at in part], np.float32)})
    packed = wire.pack(arrays, {**told, **note})
    ref = transport.put(update_name(0, client), packed.buffers, packed.checksum)
    return Update(client, 0, ref, 3 + client.index, 1, 1, 2.0, 1.0, 12)
