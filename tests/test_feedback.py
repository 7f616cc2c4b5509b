"""Error feedback in a client's task: what is left out, kept, rolled back and added again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from parslfl import tasks
from parslfl.codecs import wire
from parslfl.codecs.cast import Fp16
from parslfl.codecs.quantize import Quantize
from parslfl.codecs.raw import Raw
from parslfl.codecs.topk import TopK
from parslfl.data.partition import Iid
from parslfl.data.synthetic import Synthetic
from parslfl.keep import ClientStore
from parslfl.learning import LocalWork, Samples, Scores, Stop, Trained
from parslfl.messages import Client, Failure, Ref, Source, TrainTask, Update
from parslfl.params import Params
from parslfl.protocols import Buffer, Transport
from parslfl.transport.file import File
from parslfl.transport.inline import Inline

ANN = Client(0, "here")
#: What training adds to the model: the largest number first.
STEP = np.array([4, 3, 2, 1], np.float32)


@dataclass(frozen=True)
class Stepping:
    """A model whose training adds STEP, whatever the data."""

    bad: bool = False

    def init(self, shape: tuple[int, ...], classes: int, seed: int) -> Params:
        return {"w": np.zeros(4, np.float32), "n": np.zeros((), np.int64)}

    def train(self, params: Params, samples: Samples, work: LocalWork, seed: int, stop: Stop) -> Trained:
        made = params["w"] + (np.float32(np.nan) if self.bad else STEP)
        return Trained({"w": made, "n": params["n"] + 1}, 1, 1, 1, 1.0, 1.0)

    def evaluate(self, params: Params, samples: Samples, work: LocalWork) -> Scores:
        return Scores(0, 0, 1)


@pytest.fixture
def task(tmp_path: Path) -> TrainTask:
    """One of four numbers is sent."""
    transport = File(str(tmp_path))
    (tmp_path / "updates").mkdir()
    packed = wire.pack(Stepping().init((1,), 1, 0))
    start = transport.put("models/start", packed.buffers, packed.checksum)
    source = Source(Synthetic(samples=8), Iid(), "", 1, 0)
    return TrainTask(
        0, ANN, Stepping(), source, LocalWork(), start, TopK(0.25), transport, 1,
        store=str(tmp_path / "clients"), error_feedback=True,
    )  # fmt: skip


def sent(task: TrainTask) -> list[float]:
    """What the driver gets from the task."""
    update = tasks.train(task)
    assert isinstance(update, Update), update
    arrays, note = wire.unpack(task.transport.get(update.ref), update.ref.checksum)
    made: list[float] = task.codec.decode(arrays, note, {"w": STEP})["w"].tolist()
    return made


def kept(task: TrainTask) -> list[float] | None:
    found = ClientStore(task.store).load(task.client, "residual", task.round)
    return None if found is None else found["w"].tolist()


def test_what_was_left_out_is_added_next_time(task: TrainTask) -> None:
    assert (sent(task), kept(task)) == ([4, 0, 0, 0], [0, 3, 2, 1])
    task = replace(task, round=3, accepted=0)
    assert (sent(task), kept(task)) == ([0, 6, 0, 0], [4, 0, 4, 2])
    task = replace(task, round=4, accepted=3)
    assert (sent(task), kept(task)) == ([8, 0, 0, 0], [0, 3, 6, 3])


def test_after_a_refused_update_the_client_goes_on_from_the_accepted_one(task: TrainTask) -> None:
    sent(task)
    refused = replace(task, round=1, accepted=0)
    assert sent(refused) == [0, 6, 0, 0]
    again = replace(task, round=2, accepted=0)
    assert (sent(again), kept(again)) == ([0, 6, 0, 0], [4, 0, 4, 2])


def test_without_error_feedback_nothing_is_kept(task: TrainTask) -> None:
    plain = replace(task, error_feedback=False)
    assert sent(plain) == sent(replace(plain, round=1, accepted=0)) == [4, 0, 0, 0]
    assert not Path(task.store).exists()


def test_a_residual_that_is_gone_is_told(task: TrainTask) -> None:
    update = tasks.train(replace(task, round=5, accepted=2))
    assert isinstance(update, Update)
    assert update.notes == (f"residual of round 3 is gone or damaged in {task.store}: from zeros",)
    assert kept(replace(task, round=5)) == [0, 3, 2, 1]


def test_a_lossless_codec_leaves_nothing_and_still_sends_everything(task: TrainTask) -> None:
    whole = replace(task, codec=Raw())
    assert (sent(whole), kept(whole)) == ([4, 3, 2, 1], [0, 0, 0, 0])


def test_a_diverged_client_leaves_the_store_as_it_was(task: TrainTask) -> None:
    sent(task)
    outcome = tasks.train(replace(task, model=Stepping(bad=True), round=1, accepted=0))
    assert isinstance(outcome, Failure)
    assert outcome.reason.startswith("holds NaN, Inf or nearly so: the client's training diverged")
    assert (kept(task), kept(replace(task, round=1))) == ([0, 3, 2, 1], None)


def test_where_nothing_can_be_kept_the_client_does_not_train(task: TrainTask) -> None:
    Path(task.store).write_text("in the way")
    outcome = tasks.train(replace(task, model=Stepping(bad=True)))  # if it did, that would be the reason
    assert isinstance(outcome, Failure)
    assert "cannot keep what clients of here need again" in outcome.reason


def test_the_bytes_of_both_ways_are_in_the_update(task: TrainTask, tmp_path: Path) -> None:
    update: Any = tasks.train(task)
    assert update.bytes_down == (tmp_path / "models/start").stat().st_size
    assert update.ref.size == (tmp_path / update.ref.path).stat().st_size
    assert update.raw_bytes == 16


def test_nothing_is_lost_where_the_codec_changes_from_round_to_round(task: TrainTask) -> None:
    """From topk to 8 bits, to halves, to everything, and back: what was sent and what is kept is all."""
    codecs = [TopK(0.25), Quantize(8), TopK(0.25), Fp16(), Raw(), TopK(0.25)]
    came = np.zeros(4)
    for round, codec in enumerate(codecs):
        one = replace(task, codec=codec, round=round, accepted=round - 1, seed=round)
        came += sent(one)
        left = kept(one)
        assert left is not None
        np.testing.assert_allclose(came + left, (round + 1) * STEP, rtol=1e-6)
        if isinstance(codec, Raw):
            assert left == [0, 0, 0, 0]
    assert came.tolist() == pytest.approx([24, 15, 10, 5])


def test_the_time_of_sending_is_that_of_the_transport_and_none_in_a_result(task: TrainTask) -> None:
    plain = replace(task, error_feedback=False)
    written: Any = tasks.train(plain)
    assert 0 < written.spent.send <= written.spent.encode
    riding: Any = tasks.train(replace(plain, transport=Riding(task.transport)))
    assert (riding.spent.send, len(riding.ref.data)) == (0.0, riding.ref.size)
    stored: Any = tasks.train(replace(plain, transport=Storing(task.transport)))
    assert (stored.spent.send > 0, stored.ref.data) == (True, b"key")


@dataclass(frozen=True)
class Riding:
    """The model from `inner`, updates in the result."""

    inner: Transport

    def get(self, ref: Ref) -> memoryview:
        return self.inner.get(ref)

    def has(self, name: str) -> bool:
        return self.inner.has(name)

    def put(self, name: str, buffers: Sequence[Buffer], checksum: str) -> Ref:
        return Inline().put(name, buffers, checksum)

    def drop(self, ref: Ref) -> None:
        raise AssertionError


@dataclass(frozen=True)
class Storing(Riding):
    """Updates in a store that gives keys, as ProxyStore's."""

    def put(self, name: str, buffers: Sequence[Buffer], checksum: str) -> Ref:
        return replace(self.inner.put(name, buffers, checksum), path="", data=b"key")
