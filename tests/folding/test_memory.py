"""What a round takes of the driver's memory: at most three models, whatever the strategy keeps."""

from __future__ import annotations

import math
import time
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from parslfl.codecs import compiled, wire
from parslfl.codecs.chain import Chain
from parslfl.codecs.quantize import Quantize
from parslfl.codecs.raw import Raw
from parslfl.codecs.topk import TopK
from parslfl.codecs.wire import Packed
from parslfl.downlink import Outgoing
from parslfl.folding import checkpoints
from parslfl.folding.desk import Desk
from parslfl.folding.finishing import finish
from parslfl.folding.merging import Folding, Merged, merge, merge_on
from parslfl.learning import LocalWork
from parslfl.messages import Assignment, Client, RoundPlan, Update, update_name
from parslfl.params import Params, nbytes
from parslfl.protocols import Codec, Strategy
from parslfl.strategies.fedavg import FedAvg
from parslfl.strategies.fednova import FedNova
from parslfl.strategies.fedopt import FedAdagrad, FedAdam, FedAvgM, FedYogi
from parslfl.strategies.scaffold import Scaffold
from parslfl.submodel import KEY, describe
from parslfl.transport.buffers import POOL
from parslfl.transport.file import COPIED, File

SIDE = 1536
#: Pieces that are worked on, however large the model is.
_SCRATCH = 3 << 19
CLIENTS = [Client(i, "here") for i in range(6)]


@pytest.mark.parametrize(
    ("strategy", "keep", "downlink"),
    [
        (FedAvg(), 1.0, None),
        (FedNova(), 1.0, None),
        (FedAvgM(), 1.0, None),
        (FedAdagrad(), 1.0, None),
        (FedAdam(), 1.0, None),
        (FedYogi(), 1.0, None),
        (Scaffold(), 1.0, None),
        (FedAvg(), 0.5, None),
        (FedAvg(), 0.9, None),
        (FedAdam(), 0.5, None),
        (FedAvg(), 1.0, Quantize(8)),
        (FedAvg(), 1.0, TopK(0.05)),
        (FedAvgM(), 1.0, TopK(0.05)),
        (Scaffold(), 1.0, Quantize(8)),
        (FedAdam(), 0.9, TopK(0.05)),
    ],
    ids=repr,
)
def test_three_models(tmp_path: Path, strategy: Strategy, keep: float, downlink: Codec | None) -> None:
    """What a round starts from, and its updates, are mapped files and do not count."""
    model: Params = {"w": np.ones((SIDE, SIDE), np.float32)}
    like, state = _mapped(tmp_path / "like", model), _mapped(tmp_path / "begun", strategy.start(model))
    residual = _mapped(tmp_path / "left", {"w": model["w"] / 9}) if downlink == TopK(0.05) else {}
    transport, work = File(str(tmp_path)), LocalWork(keep=keep)
    updates = [_written(transport, client, keep) for client in CLIENTS]
    job = Folding(
        strategy,
        dict.fromkeys(CLIENTS, Raw()),
        {"here": transport},
        Desk(like=like, state=state, residual=residual),
        time.monotonic(),
        works=dict.fromkeys(CLIENTS, work),
        clients=len(CLIENTS),
        downlink=None if downlink is None else _outgoing(downlink, tmp_path),
    )
    plan = RoundPlan(0, tuple(Assignment(c, work, Raw()) for c in CLIENTS), 1, len(CLIENTS))
    tracemalloc.start()
    try:
        notes = [merge(job, lane, None, *updates[lane :: job.lanes]) for lane in range(job.lanes)]
        done = finish(job, plan, tmp_path / "model", tmp_path / "state", None, *notes)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(done.updates) == len(CLIENTS)
    assert not np.array_equal(checkpoints.read(tmp_path / "model", done.model)["w"], model["w"])
    assert peak < 3 * nbytes(model) + _SCRATCH


@pytest.mark.parametrize("first", [0, math.inf], ids=["compiled", "numpy"])
@pytest.mark.parametrize(
    ("number", "codecs"),
    [
        (6, [TopK(0.05)] * 2),
        (40, [TopK(0.05)] * 2),
        (40, [TopK(0.06), TopK(0.04), TopK(0.08)]),
        (20, [Chain((TopK(0.2), Quantize(8)))] * 2),
    ],
    ids=["few", "many", "other sizes", "heavy"],
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
    delta: Params = {"w": np.random.default_rng(0).standard_normal((SIDE, SIDE), np.float32)}
    rounds = [(codec, wire.pack(*codec.encode(delta))) for codec in codecs]
    assert all(packed.size < COPIED for _, packed in rounds)
    _round(replace(job, codecs=dict.fromkeys(clients, codecs[0])), clients, rounds[0][1], tmp_path)
    peaks = list[int]()
    while len(peaks) < 3 and (not peaks or peaks[-1] >= 3 * nbytes(model) + _SCRATCH):
        POOL.forget()
        job.desk.totals.clear()
        tracemalloc.start()
        try:
            for codec, packed in rounds:
                _round(replace(job, codecs=dict.fromkeys(clients, codec)), clients, packed, tmp_path)
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    # other threads of the process are counted as well: once in some ten runs of all tests there was more
    assert min(peaks) < 3 * nbytes(model) + _SCRATCH, peaks


def _round(job: Folding, clients: list[Client], packed: Packed, folder: Path) -> None:
    """A round of updates with these bytes, in groups of four."""
    transport = job.transports["here"]
    refs = {c: transport.put(update_name(0, c), packed.buffers, packed.checksum) for c in clients}
    updates = [Update(client, 0, ref, 3, 1, 1, 2.0, 1.0, 12) for client, ref in refs.items()]
    plan = RoundPlan(0, tuple(Assignment(c, LocalWork(), job.codecs[c]) for c in clients), 1, len(clients))
    groups, notes = [updates[start : start + 4] for start in range(0, len(updates), 4)], dict[int, Merged]()
    for turn, group in enumerate(groups):
        fold = merge if turn + job.lanes >= len(groups) else merge_on
        notes[turn % job.lanes] = fold(job, turn % job.lanes, notes.get(turn % job.lanes), *group)
    done = finish(job, plan, folder / "next", folder / "next state", None, *notes.values())
    assert len(done.updates) == len(clients)


def _outgoing(codec: Codec, folder: Path) -> Outgoing:
    return Outgoing(codec, 0, folder / "differences" / "1", folder / "residual")


def _mapped(path: Path, arrays: Params) -> Params:
    return checkpoints.read(path, checkpoints.write(path, arrays)) if arrays else {}


def _written(transport: File, client: Client, keep: float) -> Update:
    """An update of all numbers, or of those in a share of the rows and columns."""
    random = np.random.default_rng(client.index)
    part = tuple(np.sort(random.choice(SIDE, int(SIDE * keep), replace=False)) for _ in range(2))
    note = {KEY: describe({"w": part})} if keep < 1 else {}
    packed = wire.pack({"w": random.standard_normal([len(at) for at in part], np.float32)}, note)
    ref = transport.put(update_name(0, client), packed.buffers, packed.checksum)
    return Update(client, 0, ref, 3 + client.index, 1, 1, 2.0, 1.0, 12)
