"""Merging, on three-element parameters worked by hand, with hostile updates among them."""

from __future__ import annotations

import itertools
import math
import re
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from parslfl.codecs import compiled, wire
from parslfl.codecs.chain import Chain
from parslfl.codecs.quantize import Quantize
from parslfl.codecs.raw import Raw
from parslfl.codecs.topk import TopK
from parslfl.codecs.zstd import Zstd
from parslfl.downlink import Outgoing
from parslfl.errors import QuorumError
from parslfl.folding import checkpoints, merging
from parslfl.folding.desk import Desk
from parslfl.folding.finishing import Finished, finish
from parslfl.folding.folding import Folding
from parslfl.folding.merging import Merged, merge, merge_on
from parslfl.learning import Cohort, Evidence, LocalWork
from parslfl.messages import Assignment, Client, Failure, Outcome, Ref, RoundPlan, Update, update_name
from parslfl.params import Params
from parslfl.protocols import Codec, Strategy
from parslfl.strategies.dynamic import Dynamic
from parslfl.strategies.fedavg import FedAvg
from parslfl.strategies.fednova import FedNova
from parslfl.strategies.qfedavg import QFedAvg
from parslfl.strategies.robust import GeometricMedian, Krum, Median, TrimmedMean
from parslfl.strategies.scaffold import Scaffold
from parslfl.transport import file
from parslfl.transport.file import File
from parslfl.transport.inline import Inline

MODEL: Params = {"w": np.array([1.0, 2.0, 3.0], np.float32), "n": np.array([7])}
CLIENTS = [Client(i, "here") for i in range(6)]


def folding(clients: list[Client] = CLIENTS, strategy: Strategy = FedAvg()) -> Folding:  # noqa: B008 - frozen
    return Folding(
        strategy,
        dict.fromkeys(clients, Raw()),
        {"here": Inline()},
        Desk(like=MODEL, state=strategy.start(MODEL)),
        time.monotonic(),
        works=dict.fromkeys(clients, strategy.local(LocalWork())),
        clients=len(clients),
    )


def plan(quorum: int = 1) -> RoundPlan:
    work = LocalWork()
    return RoundPlan(4, tuple(Assignment(c, work, Raw()) for c in CLIENTS), quorum, len(CLIENTS))


def update(client: Client, *delta: float, samples: int = 1, **arrays: np.ndarray) -> Update:
    packed = wire.pack(arrays or {"w": np.array(delta, np.float32)})
    ref = Inline().put("", packed.buffers, packed.checksum)
    return Update(client, 4, ref, samples, 1, 1, 2.0, 1.0, 12)


def _random(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(1000, np.float32)


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5, 9])
@pytest.mark.parametrize("bad", [None, 0, 2, 3])
def test_updates_in_files_are_added_together_as_if_one_by_one(
    tmp_path: Path, number: int, bad: int | None
) -> None:
    """A refused one leaves nothing; all files are forgotten."""
    model: Params = {"w": np.zeros(1000, np.float32), "n": np.array([7])}
    transport, clients = File(str(tmp_path)), [Client(i, "here") for i in range(number)]
    job = replace(folding(clients), transports={"here": transport}, desk=Desk(like=model))
    updates: list[Outcome] = []
    for client in clients:
        array = _random(client.index)
        if client.index == bad:
            array[500] = np.nan
        packed = wire.pack({"w": array})
        ref = transport.put(update_name(4, client), packed.buffers, packed.checksum)
        updates.append(Update(client, 4, ref, 3 + client.index, 1, 1, 2.0, 1.0, 12))
    note = merge(job, 0, None, *updates)
    wanted = np.zeros(1000, np.float32)
    for client in clients:
        if client.index != bad:
            wanted += _random(client.index) * np.float32(3 + client.index)
    assert job.desk.sums(0, 0)["w"].tobytes() == wanted.tobytes()
    assert [u.client.index for u in note.updates] == [i for i in range(number) if i != bad]
    assert [f.client.index for f in note.failures] == [i for i in range(number) if i == bad]
    assert not any(transport.has(update_name(4, client)) for client in clients)


def written(transport: File, client: Client, codec: Codec, delta: np.ndarray) -> Update:
    packed = wire.pack(*codec.encode({"w": delta}, 0))
    ref = transport.put(update_name(4, client), packed.buffers, packed.checksum)
    return Update(client, 4, ref, 3 + client.index, 1, 1, 2.0, 1.0, 12)


@pytest.mark.parametrize("dense", [None, 2, 4])
def test_sparse_updates_wait_for_more_and_are_added_as_if_one_by_one(
    tmp_path: Path, dense: int | None
) -> None:
    """One that is not sparse ends the waiting, as the last merge does. Their files are gone meanwhile."""
    model: Params = {"w": np.zeros(1000, np.float32)}
    transport, clients = File(str(tmp_path)), [Client(i, "here") for i in range(7)]
    codecs: dict[Client, Codec] = {c: Raw() if c.index == dense else TopK(0.005) for c in clients}
    job = replace(folding(clients), transports={"here": transport}, desk=Desk(like=model), codecs=codecs)
    updates = [written(transport, c, codecs[c], _random(c.index)) for c in clients]
    note = merge_on(job, 0, None, *updates[:3])
    assert len(job.desk.waiting[0]) == (0 if dense == 2 else 3)
    assert not any(transport.has(update_name(4, client)) for client in clients[:3])
    note = merge_on(job, 0, note, *updates[3:6])
    assert len(job.desk.waiting[0]) == {None: 6, 2: 3, 4: 1}[dense]
    note = merge(job, 0, note, updates[6])
    wanted = np.zeros(1000, np.float32)
    for client in clients:
        codec = codecs[client]
        decoded = codec.decode(*codec.encode({"w": _random(client.index)}, 0), model)
        wanted += decoded["w"] * np.float32(3 + client.index)
    assert job.desk.sums(0, 0)["w"].tobytes() == wanted.tobytes()
    assert [u.client for u in note.updates] == clients
    assert job.desk.waiting == {0: []}
    assert not any(transport.has(update_name(4, client)) for client in clients)


def _sparse(client: Client, dtype: type, bad: bool = False) -> Update:
    delta = _random(client.index).astype(dtype)
    if bad:
        delta[5] = np.nan
    codec: Codec = Raw() if bad else TopK(0.005)
    packed = wire.pack(*codec.encode({"w": delta[:600], "v": delta[600:]}, 0))
    ref = Inline().put("", packed.buffers, packed.checksum)
    return Update(client, 4, ref, 3 + client.index, 1, 1, 2.0, 1.0, 12)


def _merged(desk: Desk, lanes: list[range], bad: range = range(0)) -> None:
    """Sparse updates of clients with these numbers, merged in groups of four; `bad` ones' are refused."""
    clients = [Client(index, "here") for lane in lanes for index in lane]
    codecs: dict[Client, Codec] = {c: Raw() if c.index in bad else TopK(0.005) for c in clients}
    job = replace(folding(clients), desk=desk, codecs=codecs)
    for lane, numbers in enumerate(lanes):
        updates = [_sparse(Client(i, "here"), desk.like["w"].dtype.type, i in bad) for i in numbers]
        note = None
        for start in range(0, len(updates), 4):
            fold = merge_on if start + 4 < len(updates) else merge
            note = fold(job, lane, note, *updates[start : start + 4])
        found = note.updates if note else ()  # nothing comes in a lane that never begins
        assert [u.client.index for u in found] == [i for i in numbers if i not in bad]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize(
    ("lanes", "bad", "waiting"),
    [
        ([range(3)], range(0), [3]),
        ([range(32)], range(0), [32]),
        ([range(33)], range(0), [1]),
        ([range(3), range(3, 6)], range(0), [3, 3]),
        ([range(3), range(0)], range(0), [3, 0]),
        ([range(16), range(16, 32)], range(0), [16, 16]),
        ([range(32), range(32, 64)], range(0), [32, 32]),
        ([range(33), range(33, 33)], range(0), [1, 0]),
        ([range(35), range(35, 38)], range(0), [3, 3]),
        ([range(3), range(3, 36)], range(0), [3, 1]),
        ([range(33), range(33, 66)], range(0), [1, 1]),
        ([range(48), range(48, 51)], range(0), [16, 3]),
        ([range(48), range(48, 80)], range(0), [16, 32]),
        ([range(3), range(3, 6)], range(3), [0, 3]),
        ([range(3), range(3, 6)], range(3, 6), [3, 0]),
    ],
)
def test_sparse_updates_become_a_mean_without_a_sum(
    lanes: list[range], bad: range, waiting: list[int], dtype: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With compiled loops, and to the same bits as with numpy, round after round; who wants a sum has it."""
    model: Params = {"w": np.zeros(600, dtype), "n": np.array([7]), "v": np.zeros(400, dtype)}
    plain, resting, settled = (Desk(like=model) for _ in range(3))
    for _ in range(2):
        monkeypatch.setattr(compiled, "FIRST", math.inf)
        _merged(plain, lanes, bad)
        monkeypatch.setattr(compiled, "FIRST", 0)
        _merged(resting, lanes, bad)
        _merged(settled, lanes, bad)
        found = [len(resting.waiting.get(lane, [])) for lane in range(len(lanes))]
        if dtype != np.float16:  # of a model half as large, less may wait: more lanes have a sum
            assert found == ([0] * len(lanes) if dtype == np.float64 else waiting)
        for lane in range(len(lanes)):
            sums, wanted = settled.sums(lane, 0), plain.sums(lane, 0)
            assert not settled.waiting.get(lane)
            assert all(sums[name].tobytes() == wanted[name].tobytes() for name in "wv")
        means = [desk.mean(len(lanes), 0, 33.0) for desk in (plain, resting)]
        for name in "wv":
            assert means[0][name].dtype == means[1][name].dtype == dtype
            assert means[0][name].tobytes() == means[1][name].tobytes()
            assert np.count_nonzero(means[0][name])
        assert not any(resting.waiting.values())


def test_clients_that_train_parts_have_sparse_updates_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each number is divided by the weight that came in for it, whatever could wait for the mean."""
    model: Params = {"w": np.zeros(600, np.float32), "v": np.zeros(400, np.float32)}
    means = []
    for first in (math.inf, 0):
        monkeypatch.setattr(compiled, "FIRST", first)
        works = {CLIENTS[0]: LocalWork(), CLIENTS[1]: LocalWork(keep=0.5)}
        job = replace(folding(), desk=Desk(like=model), works=works)
        job = replace(job, codecs=dict.fromkeys(CLIENTS, TopK(0.005)))
        merge(job, 0, None, *(_sparse(client, np.float32) for client in CLIENTS[:2]))
        means.append(job.desk.mean(1, 0, 999.0))
        assert means[-1]["w"].max() > 1e-2  # by 3 and 4, not by 999
    assert all(means[0][name].tobytes() == means[1][name].tobytes() for name in "wv")


def test_two_scales_are_not_left_to_the_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "FIRST", 0)
    model: Params = {"w": np.zeros(1000, np.float32)}
    job = replace(folding(strategy=Twice()), desk=Desk(like=model))
    job = replace(job, codecs=dict.fromkeys(CLIENTS, TopK(0.02)))
    packed = wire.pack(*TopK(0.02).encode({"w": _random(0)}, 0))
    ref = Inline().put("", packed.buffers, packed.checksum)
    merge(job, 0, None, Update(CLIENTS[0], 4, ref, 3, 1, 1, 2.0, 1.0, 12))
    assert job.desk.waiting == {0: []}
    assert np.count_nonzero(job.desk.sums(0, 0)["w"]) == 20
    assert np.count_nonzero(job.desk.sums(0, 1)["w"]) == 20


@dataclass(frozen=True)
class Unmapped(File):
    """Files that nobody may have mapped when they are dropped."""

    def drop(self, ref: Ref) -> None:
        assert str(self.path(ref.path)) not in Path("/proc/self/maps").read_text()
        super().drop(ref)


@pytest.mark.parametrize("codec", [Raw(), TopK(0.01)])
def test_files_go_when_they_are_mapped_no_more(tmp_path: Path, codec: Codec) -> None:
    model: Params = {"w": np.zeros(1000, np.float32)}
    transport, codecs = Unmapped(str(tmp_path)), dict.fromkeys(CLIENTS, codec)
    job = replace(folding(), transports={"here": transport}, desk=Desk(like=model), codecs=codecs)
    note = merge(job, 0, None, *(written(transport, c, codec, _random(c.index)) for c in CLIENTS))
    assert len(note.updates) == len(CLIENTS)
    assert not any(transport.has(update_name(4, client)) for client in CLIENTS)


def test_sparse_updates_do_not_wait_in_more_memory_than_counts() -> None:
    """They are held in memory of their own: less than two fifths of what the model takes, or a quarter where
    the lane has a sum."""
    clients = [Client(index, "here") for index in range(14)]
    model: Params = {"w": np.zeros(10_000, np.float32)}
    job = replace(folding(clients), desk=Desk(like=model), codecs=dict.fromkeys(clients, TopK(0.02)))
    packed = wire.pack(*TopK(0.02).encode({"w": np.arange(10_000, dtype=np.float32)}, 0))
    ref = Inline().put("", packed.buffers, packed.checksum)
    updates = [Update(client, 4, ref, 1, 1, 1, 2.0, 1.0, 12) for client in clients]
    for _ in range(2):  # sums of the round before do not count
        waiting = []
        for number, one in enumerate(updates):
            merge_on(job, 0, Merged() if number else None, one)
            waiting.append(len(job.desk.waiting[0]))
        # each is 200 x (4 + 8) bytes of 40,000
        assert waiting == [1, 2, 3, 4, 5, 6, 0, 1, 2, 3, 4, 0, 1, 2]


def test_what_waits_cannot_be_changed_in_its_file(tmp_path: Path) -> None:
    """Another process that may write to the folder: nothing that was checked is read from it again."""
    model: Params = {"w": np.zeros(1000, np.float32)}
    job = replace(folding(), transports={"here": File(str(tmp_path))}, desk=Desk(like=model))
    job = replace(job, codecs=dict.fromkeys(CLIENTS, TopK(0.01)))
    updates = [written(File(str(tmp_path)), c, TopK(0.01), _random(c.index)) for c in CLIENTS[:2]]
    merge_on(job, 0, None, *updates)
    assert len(job.desk.waiting[0]) == 2
    for one in updates:
        (tmp_path / one.ref.path).write_bytes(b"\xff" * 10)
    merge(job, 0, Merged())
    wanted = np.zeros(1000, np.float32)
    for one in updates:
        sent = TopK(0.01).encode({"w": _random(one.client.index)}, 0)
        wanted += TopK(0.01).decode(*sent, model)["w"] * np.float32(one.samples)
    assert job.desk.sums(0, 0)["w"].tobytes() == wanted.tobytes()


def test_mapped_updates_wait_for_no_other_merge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file, "COPIED", 0)
    model: Params = {"w": np.zeros(1000, np.float32)}
    job = replace(folding(), transports={"here": File(str(tmp_path))}, desk=Desk(like=model))
    job = replace(job, codecs=dict.fromkeys(CLIENTS, TopK(0.01)))
    updates = [written(File(str(tmp_path)), c, TopK(0.01), _random(c.index)) for c in CLIENTS[:2]]
    merge_on(job, 0, None, *updates)
    assert job.desk.waiting[0] == []
    assert np.count_nonzero(job.desk.sums(0, 0)["w"]) >= 10


def test_what_waited_in_a_round_that_was_given_up_is_not_in_the_next(tmp_path: Path) -> None:
    job = replace(folding(), codecs=dict.fromkeys(CLIENTS, TopK(0.02)))
    packed = wire.pack(*TopK(0.02).encode({"w": np.ones(100, np.float32)}, 0))
    one = replace(update(CLIENTS[0], 1), ref=Inline().put("", packed.buffers, packed.checksum))
    job.desk.like = {"w": np.zeros(100, np.float32)}
    merge_on(job, 0, None, one)
    assert len(job.desk.waiting[0]) == 1
    merge(job, 0, None, one)
    assert job.desk.sums(0, 0)["w"].tolist() == [1, 1, *[0] * 98]


def failure(client: Client) -> Failure:
    return Failure(client, 4, "lost", "its worker died")


def run(tmp_path: Path, outcomes: list[Outcome], quorum: int = 1, lanes: int = 2) -> tuple[Finished, Params]:
    job = folding()
    notes: list[Merged | None] = [None] * lanes
    for number, outcome in enumerate(outcomes):
        notes[number % lanes] = merge(job, number % lanes, notes[number % lanes], outcome)
    used = [note for note in notes if note is not None]
    done = finish(job, plan(quorum), tmp_path / "model", tmp_path / "state", None, *used)
    return done, checkpoints.read(tmp_path / "model", done.model)


def test_average_is_weighted_by_samples(tmp_path: Path) -> None:
    done, new = run(
        tmp_path, [update(CLIENTS[0], 1, 0, 0, samples=3), update(CLIENTS[1], 0, 4, -4, samples=1)]
    )
    assert new["w"].tolist() == [1.75, 3.0, 2.0]
    assert new["n"] == 7
    assert [u.client.index for u in done.updates] == [0, 1]
    assert done.state == ""


def test_failures_are_left_out_of_the_average(tmp_path: Path) -> None:
    done, new = run(tmp_path, [failure(CLIENTS[0]), update(CLIENTS[1], 1, 1, 1), failure(CLIENTS[2])])
    assert new["w"].tolist() == [2.0, 3.0, 4.0]
    assert [f.client.index for f in done.failures] == [0, 2]


def test_one_update_alone_becomes_the_model(tmp_path: Path) -> None:
    _, new = run(tmp_path, [update(CLIENTS[0], 1, 1, 1, samples=833)])
    assert new["w"].tolist() == [2.0, 3.0, 4.0]


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (update(CLIENTS[1], np.nan, 0, 0), "NaN or Inf"),
        (update(CLIENTS[1], np.inf, 0, 0), "NaN or Inf"),
        (update(CLIENTS[1], 1, 1), "array 'w' is float32\\[2\\]"),
        (update(CLIENTS[1], v=np.zeros(3, np.float32)), "holds the arrays"),
        (update(CLIENTS[1], w=np.zeros(3, np.float64)), "array 'w' is float64"),
        (update(CLIENTS[1], 1, 1, 1, samples=-1), "claims -1 samples"),
        (
            replace(update(CLIENTS[1], 1, 1, 1), ref=Inline().put("", [b"junk" * 40], "")),
            "not a parslfl payload",
        ),
        (
            replace(update(CLIENTS[1], 1, 1, 1), ref=replace(update(CLIENTS[1], 1, 1, 1).ref, size=5)),
            "announced 5",
        ),
    ],
)
def test_a_bad_update_is_refused_and_disturbs_nothing(tmp_path: Path, bad: Update, why: str) -> None:
    done, new = run(tmp_path, [update(CLIENTS[0], 1, 1, 1), bad, update(CLIENTS[2], 3, 3, 3)])
    assert new["w"].tolist() == [3.0, 4.0, 5.0]
    assert [(f.client.index, f.kind) for f in done.failures] == [(1, "refused")]
    assert re.search(why, done.failures[0].reason)


def encoded(client: Client, codec: Codec, *delta: float, **note: object) -> Update:
    arrays, told = codec.encode({"w": np.array(delta, np.float32)}, 0)
    packed = wire.pack(arrays, {**told, **note})
    ref = Inline().put("", packed.buffers, packed.checksum)
    return Update(client, 4, ref, 1, 1, 1, 2.0, 1.0, 12)


def test_sparse_and_quantised_updates_are_added_where_they_belong(tmp_path: Path) -> None:
    """1 of 3 numbers, in an int8 of steps of 4/127: two clients, weights 1."""
    codec = Chain((TopK(1 / 3), Quantize(8, nearest=True), Zstd()))
    job = replace(folding(), codecs=dict.fromkeys(CLIENTS, codec))
    note = merge(job, 0, None, encoded(CLIENTS[0], codec, 0, 4, 1), encoded(CLIENTS[1], codec, -2, 0, 1))
    done = finish(job, plan(), tmp_path / "model", tmp_path / "state", None, note)
    new = checkpoints.read(tmp_path / "model", done.model)["w"]
    np.testing.assert_allclose(new, [0, 4, 3], atol=1e-5)
    assert [evidence.norm for evidence in note.evidence] == pytest.approx([4, 2], rel=1e-5)


def test_a_hostile_sparse_update_adds_nothing() -> None:
    """Its last place is beyond the model: the places before it must not have been added to."""
    codec = TopK(1.0)
    job = replace(folding(), codecs=dict.fromkeys(CLIENTS, codec))
    gaps = np.array([0, 0, 5], np.uint8)
    arrays, told = codec.encode({"w": np.ones(3, np.float32)}, 0)
    told |= {"shift": 0, "bytes": 1, "kept": 3}
    packed = wire.pack({**arrays, "places": gaps[:1]}, told)
    bad = replace(update(CLIENTS[1], 1), ref=Inline().put("", packed.buffers, packed.checksum))
    note = merge(job, 0, None, encoded(CLIENTS[0], codec, 1, 2, 3), bad)
    assert job.desk.sums(0, 0)["w"].tolist() == [1, 2, 3]
    assert [(f.client.index, f.kind) for f in note.failures] == [(1, "refused")]
    assert "not 3 increasing numbers below 3" in note.failures[0].reason


def test_bytes_of_refused_updates_are_those_that_came() -> None:
    honest = update(CLIENTS[0], np.nan, 0, 0)
    lies = replace(honest, client=CLIENTS[1], ref=replace(honest.ref, size=1 << 60))
    astray = replace(honest, client=CLIENTS[2], ref=replace(honest.ref, path="journal.jsonl"))
    note = merge(folding(), 0, None, honest, lies, astray)
    assert [f.bytes_up for f in note.failures] == [len(honest.ref.data), 0, 0]


def test_a_reference_out_of_the_shared_folder_is_refused(tmp_path: Path) -> None:
    shared = replace(folding(), transports={"here": File(str(tmp_path / "shared"))})
    bad = replace(update(CLIENTS[0], 1, 1, 1), ref=Ref(4, "", path="../model"))
    (tmp_path / "model").write_bytes(b"1234")
    note = merge(shared, 0, None, bad)
    assert [f.kind for f in note.failures] == ["refused"]
    assert (tmp_path / "model").exists()


def test_below_quorum_there_is_no_model_and_every_cause_is_named(tmp_path: Path) -> None:
    outcomes: list[Outcome] = [update(CLIENTS[0], 1, 1, 1), *map(failure, CLIENTS[1:5])]
    with pytest.raises(QuorumError) as caught:
        run(tmp_path, outcomes, quorum=2)
    text = str(caught.value)
    assert "round 5: 1 of 6 clients delivered, the quorum is 2" in text
    assert "4 x lost: its worker died (here/1, here/2, here/3, ...)" in text
    assert not (tmp_path / "model").exists()


def test_updates_without_samples_make_no_model(tmp_path: Path) -> None:
    with pytest.raises(QuorumError, match="any weight"):
        run(tmp_path, [update(CLIENTS[0], 1, 1, 1, samples=0)])


@pytest.mark.parametrize(
    "strategy", [FedAvg(), FedNova(), TrimmedMean(), Krum(), GeometricMedian()], ids=repr
)
def test_the_model_does_not_depend_on_when_lanes_run(tmp_path: Path, strategy: Strategy) -> None:
    """Lanes are chains; between them any interleaving gives the same bits, of model and state."""
    rng = np.random.default_rng(0)
    outcomes = [update(c, *rng.normal(size=3), samples=int(rng.integers(1, 900))) for c in CLIENTS]
    models = set()
    for order in itertools.permutations([0, 0, 0, 1, 1, 1]):
        job, notes, at = folding(strategy=strategy), [None, None], [0, 0]
        for lane in order:
            notes[lane] = merge(job, lane, notes[lane], outcomes[2 * at[lane] + lane])  # type: ignore[call-overload]
            at[lane] += 1
        done = finish(job, plan(), tmp_path / "model", tmp_path / "state", None, *notes)  # type: ignore[arg-type]
        models.add((done.model, done.state))
    assert len(models) == 1


def test_sums_are_reused_and_cleared_between_rounds(tmp_path: Path) -> None:
    job = folding()
    for _ in range(2):
        note = merge(job, 0, None, update(CLIENTS[0], 1, 1, 1))
        memory = job.desk.sums(0, 0)["w"]
        finish(job, plan(), tmp_path / "model", tmp_path / "state", None, note)
        assert checkpoints.read(tmp_path / "model", "")["w"].tolist() == [2.0, 3.0, 4.0]
    assert job.desk.sums(0, 0)["w"] is memory


@pytest.mark.parametrize("size", [1e16, 1e37])
def test_an_absurdly_large_update_is_refused(tmp_path: Path, size: float) -> None:
    done, new = run(tmp_path, [update(CLIENTS[0], 1, 1, 1), update(CLIENTS[1], size, 0, 0)])
    assert new["w"].tolist() == [2.0, 3.0, 4.0]
    assert "has the norm" in done.failures[0].reason


def test_a_reference_to_another_file_of_the_run_is_neither_read_nor_removed(tmp_path: Path) -> None:
    (tmp_path / "journal.jsonl").write_text("1234")
    shared = replace(folding(), transports={"here": File(str(tmp_path))})
    bad = replace(update(CLIENTS[0], 1, 1, 1), ref=Ref(4, "", path="journal.jsonl"))
    note = merge(shared, 0, None, bad)
    assert [f.kind for f in note.failures] == ["refused"]
    assert "not this update's place" in note.failures[0].reason
    assert (tmp_path / "journal.jsonl").exists()


@dataclass(frozen=True)
class Twice(FedAvg):
    """Two means: of the updates by steps, and of their squares; the model becomes the second one."""

    def scales(self, evidence: Evidence) -> tuple[float, ...]:
        return 1 / evidence.steps, evidence.norm

    def step(self, state: Params, params: Params, mean: Params, cohort: Cohort) -> tuple[Params, Params]:
        return mean, {**params, **cohort.extra[0]}


def test_a_strategy_may_want_several_means(tmp_path: Path) -> None:
    """Samples 3 and 1, steps 2 and 4, norms 5 and 1: by hand, over two lanes and two rounds."""
    job = folding(strategy=Twice())
    for _ in range(2):
        first = replace(update(CLIENTS[0], 3, 4, 0, samples=3), steps=2)
        second = replace(update(CLIENTS[1], 0, 0, 1, samples=1), steps=4)
        notes = [merge(job, 0, None, first), merge(job, 1, None, second)]
        done = finish(job, plan(), tmp_path / "model", tmp_path / "state", None, *notes)
        new = checkpoints.read(tmp_path / "model", done.model)
        assert new["w"].tolist() == [3 * 5 * 3 / 4, 3 * 5 * 4 / 4, 1 / 4]
        mean = checkpoints.read(tmp_path / "state", done.state)
        assert mean["w"].tolist() == [3 * 3 / 2 / 4, 3 * 4 / 2 / 4, 1 / 4 / 4]


@pytest.mark.parametrize(
    ("strategy", "keep", "lanes"),
    [(FedAvg(), 1.0, 2), (FedNova(), 1.0, 2), (FedAvg(), 0.5, 1), (Scaffold(), 1.0, 1), (Twice(), 1.0, 1)],
    ids=repr,
)
def test_lanes_that_hold_two_models_have_no_second_one(strategy: Strategy, keep: float, lanes: int) -> None:
    works = {CLIENTS[0]: LocalWork(), CLIENTS[1]: LocalWork(keep=keep)}
    job = replace(folding(strategy=strategy), works=works)
    assert job.lanes == lanes
    assert replace(job, works={}).lanes == (1 if isinstance(strategy, Scaffold | Twice) else 2)


def test_a_round_of_parts_has_not_the_memory_of_a_round_before() -> None:
    job = folding()
    for lane in range(2):
        merge(job, lane, None, update(CLIENTS[lane], 1, 1, 1))
    assert sorted(job.desk.totals) == [(0, 0), (1, 0)]
    merge(
        replace(job, works=dict.fromkeys(CLIENTS, LocalWork(keep=0.5))), 0, None, update(CLIENTS[0], 1, 1, 1)
    )
    assert sorted(job.desk.totals) == [(0, 0)]


def test_what_a_strategy_asked_for_must_come(tmp_path: Path) -> None:
    job = folding(strategy=QFedAvg())
    without = update(CLIENTS[0], 1, 1, 1)
    wrong = [replace(update(CLIENTS[i], 1, 1, 1), start_loss=v) for i, v in ((1, np.nan), (2, -1.0))]
    note = merge(job, 0, None, without, *wrong, replace(update(CLIENTS[3], 1, 1, 1), start_loss=2.0))
    assert [f.reason for f in note.failures] == [
        f"brings {value} as the loss at the global model; its model must measure that"
        for value in (None, "nan", "-1.0")
    ]
    assert [u.client.index for u in note.updates] == [3]


@pytest.mark.parametrize(
    ("strategy", "claim", "why"),
    [
        (QFedAvg(q=2), {"start_loss": 1e300}, "claims what QFedAvg.weight has no answer to: math range"),
        (FedAvg(), {"samples": 10**400}, "claims what FedAvg.weight has no answer to: int too"),
        (Dynamic("loss"), {"loss": math.nan}, "has the impossible weight nan"),
        (Dynamic("loss"), {"loss": 1e50}, "has the impossible weight 1e-50"),
    ],
)
def test_a_claim_that_cannot_be_reckoned_with_costs_its_client_only(
    strategy: Strategy, claim: dict[str, Any], why: str
) -> None:
    good = replace(update(CLIENTS[0], 1, 1, 1), start_loss=1.0)
    note = merge(folding(strategy=strategy), 0, None, good, replace(update(CLIENTS[1], 9, 9, 9), **claim))
    assert [u.client.index for u in note.updates] == [0]
    assert [why in f.reason for f in note.failures] == [True]


def test_what_nobody_asked_for_counts_for_nothing(tmp_path: Path) -> None:
    note = merge(folding(), 0, None, replace(update(CLIENTS[0], 1, 1, 1), start_loss=np.inf, variance=np.nan))
    assert (note.evidence[0].start_loss, note.evidence[0].variance) == (None, None)


def test_sums_of_half_precision_hold_any_number_of_examples() -> None:
    """The weights alone are more than float16 can hold."""
    model: Params = {"h": np.zeros(2, np.float16), "w": np.zeros((), np.float32)}
    job = replace(folding(), desk=Desk(like=model))
    arrays = {"h": np.array([1, -0.5], np.float16), "w": np.array(3, np.float32)}
    for lane in range(2):
        note = merge(job, lane, None, *(update(c, samples=70_000, **arrays) for c in CLIENTS[lane::2]))
        assert not note.failures
    mean = job.desk.mean(2, 0, 70_000.0 * len(CLIENTS))
    assert (mean["h"].dtype, mean["h"].tolist(), mean["w"].tolist()) == (np.float16, [1, -0.5], 3)


@pytest.mark.parametrize(("came", "said"), [(5, False), (4, True)])
def test_a_strategy_says_what_it_does_not_hold_with_fewer_updates_than_planned(
    tmp_path: Path, came: int, said: bool
) -> None:
    clients = [Client(i, "here") for i in range(5)]
    job = folding(clients, strategy=TrimmedMean(cut=0.2))
    lost: list[Outcome] = [Failure(client, 4, "lost", "gone") for client in clients[came:]]
    note = merge(job, 0, None, *(update(client, 1, 2, 3) for client in clients[:came]), *lost)
    planned = replace(plan(), cohort=tuple(Assignment(c, LocalWork(), Raw()) for c in clients), close_at=5)
    done = finish(job, planned, tmp_path / "model", tmp_path / "state", None, note)
    assert done.caution.startswith("cuts nothing off 4 updates") == said


def test_an_impossible_number_of_steps_is_refused() -> None:
    note = merge(folding(), 0, None, replace(update(CLIENTS[0], 1, 1, 1), steps=10**18))
    assert note.failures[0].reason == "claims 1 samples of 0 in 1000000000000000000 steps"


@dataclass(frozen=True)
class Half(Raw):
    """Decodes to arrays of its own, which are in no file."""

    def decode(self, arrays: Params, note: Mapping[str, Any], like: Params) -> Params:
        return {name: array / np.float32(2) for name, array in arrays.items()}


@pytest.mark.parametrize(("codec", "expected"), [(Raw(), [2.0, 4.0, 3.0]), (Half(), [1.5, 3.0, 3.0])])
def test_held_updates_are_mapped_files_whatever_made_them(
    tmp_path: Path, codec: Raw, expected: list[float]
) -> None:
    job = replace(folding(strategy=Median()), codecs=dict.fromkeys(CLIENTS, codec), spill=tmp_path)
    transport = File(str(tmp_path))
    job = replace(job, transports={"here": transport})
    outcomes = []
    for client, delta in zip(CLIENTS, ([1, 2, 0], [9, 9, 9], [0, 0, -9]), strict=False):
        packed = wire.pack({"w": np.array(delta, np.float32)})
        name = f"updates/round-0004-client-{client.index:05d}"
        ref = transport.put(name, packed.buffers, packed.checksum)
        outcomes.append(replace(update(client, 0, 0, 0), ref=ref))
    note = merge(job, 0, None, *outcomes)
    assert len(job.desk.held) == 3
    assert all(
        not a.flags.writeable and not a.flags.owndata for d in job.desk.held.values() for a in d.values()
    )
    assert not list(tmp_path.glob("held*"))
    done = finish(job, plan(), tmp_path / "model", tmp_path / "state", None, note)
    assert checkpoints.read(tmp_path / "model", done.model)["w"].tolist() == expected
    assert job.desk.held == {}
    assert not list(tmp_path.glob("updates/*"))


def test_a_refused_update_is_not_held(tmp_path: Path) -> None:
    job = folding(strategy=Median())
    note = merge(job, 0, None, update(CLIENTS[0], np.nan, 0, 0), update(CLIENTS[1], 1, 1, 1))
    assert list(job.desk.held) == [CLIENTS[1]]
    done = finish(job, plan(), tmp_path / "model", tmp_path / "state", None, note)
    assert checkpoints.read(tmp_path / "model", done.model)["w"].tolist() == [2.0, 3.0, 4.0]


def test_the_step_is_what_its_difference_says(tmp_path: Path) -> None:
    """The mean is 4, 1, 2 and the residual 0, 0, 3: the largest of 4, 1, 5 goes, the others wait."""
    out = Outgoing(TopK(ratio=0.34), 0, tmp_path / "differences" / "d", tmp_path / "residual")
    job = replace(folding(), downlink=out)
    job.desk.residual = {"w": np.array([0, 0, 3], np.float32)}
    note = merge(job, 0, None, update(CLIENTS[0], 4, 1, 2))
    done = finish(job, plan(), tmp_path / "model", tmp_path / "state", None, note)
    assert checkpoints.read(tmp_path / "model", done.model)["w"].tolist() == [1, 2, 8]
    assert checkpoints.read(out.residual, done.residual)["w"].tolist() == [4, 1, 0]
    assert checkpoints.read(out.path, done.difference)["values"].tolist() == [5]


@dataclass(frozen=True)
class Counted(File):
    """Tells how many read at once, at most."""

    seen: list[int]
    reading: list[int]

    def get(self, ref: Ref) -> memoryview:
        self.reading.append(1)
        self.seen.append(len(self.reading))
        time.sleep(0.02)
        self.reading.pop()
        return super().get(ref)


@pytest.mark.parametrize(("short", "most"), [(1 << 20, 1), (0, 2)])
def test_short_updates_are_opened_one_at_a_time(
    short: int, most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By whichever lane; long ones side by side."""
    monkeypatch.setattr(merging, "_SHORT", short)
    model: Params = {"w": np.zeros(1000, np.float32)}
    transport = Counted(str(tmp_path), [], [])
    job = replace(folding(), transports={"here": transport}, desk=Desk(like=model))
    job = replace(job, codecs=dict.fromkeys(CLIENTS, TopK(0.01)))
    updates = [written(transport, c, TopK(0.01), _random(c.index)) for c in CLIENTS]
    with ThreadPoolExecutor(2) as both:
        notes = list(both.map(lambda lane: merge(job, lane, None, *updates[lane::2]), range(2)))
    assert sum(len(note.updates) for note in notes) == len(CLIENTS)
    assert max(transport.seen) == most


def test_only_what_is_short_is_opened_one_at_a_time() -> None:
    """No bytes that are yet to be fetched, and nothing that is decoded as a whole."""
    local = Ref(size=10, checksum="", path=update_name(4, CLIENTS[0]))
    kept_here, elsewhere = replace(local, path="", data=b"x" * 10), replace(local, path="", data=b"a key")
    job = replace(folding(), codecs=dict.fromkeys(CLIENTS, TopK(0.01)))

    def is_short(ref: Ref, job: Folding = job) -> bool:
        return merging._is_short(job, Update(CLIENTS[0], 4, ref, 3, 1, 1, 2.0, 1.0, 12))

    found = [is_short(ref) for ref in (local, kept_here, elsewhere, replace(local, size=2 << 20))]
    assert found == [True, True, False, False]
    assert not is_short(local, replace(job, strategy=Median()))
    assert not is_short(local, replace(job, codecs=dict.fromkeys(CLIENTS, Raw())))
    assert not merging._is_short(job, Failure(CLIENTS[0], 4, "lost", "it died", ""))
