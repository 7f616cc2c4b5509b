"""What a worker says of its time, and of time that it did not have."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from parslfl import tasks
from parslfl.codecs import wire
from parslfl.codecs.raw import Raw
from parslfl.data.partition import Iid
from parslfl.data.synthetic import Synthetic
from parslfl.learning import LocalWork, Samples, Scores, Stop, Trained
from parslfl.messages import Client, Failure, Source, Spent, TrainTask, Update
from parslfl.params import Params
from parslfl.transport.file import File

#: Seconds that the model below takes to load what it needs.
LOADING = 0.5
START = {"w": np.zeros(4, np.float32)}


@dataclass(frozen=True)
class Heavy:
    """A model whose libraries are slow to load, whichever method is called first."""

    steps: int = 1

    def init(self, shape: tuple[int, ...], classes: int, seed: int) -> Params:
        _load()
        return START

    def train(self, params: Params, samples: Samples, work: LocalWork, seed: int, stop: Stop) -> Trained:
        _load()
        return Trained({"w": params["w"] + 1}, 1, self.steps, 1, 1.0, 1.0)

    def evaluate(self, params: Params, samples: Samples, work: LocalWork) -> Scores:
        return Scores(0, 0, 1)


_loaded: list[bool] = []


def _load() -> None:
    if not _loaded:
        time.sleep(LOADING)
        _loaded.append(True)


def asked(tmp_path: Path, steps: int = 1, stop_at: float | None = None) -> TrainTask:
    (tmp_path / "updates").mkdir(exist_ok=True)
    packed = wire.pack(START)
    transport = File(str(tmp_path))
    start = transport.put("models/start", packed.buffers, packed.checksum)
    source = Source(Synthetic(samples=8), Iid(), "", 1, 0)
    client, model = Client(0, "here"), Heavy(steps)
    return TrainTask(0, client, model, source, LocalWork(), start, Raw(), transport, 1, stop_at)


def test_a_workers_first_task_books_its_libraries_as_setup(tmp_path: Path) -> None:
    task = asked(tmp_path)

    def spent() -> Spent:
        update = tasks.train(task)
        assert isinstance(update, Update), update
        return update.spent

    before = time.time()
    first, second = spent(), spent()
    assert first.setup >= LOADING > second.setup
    assert first.train < LOADING
    assert before <= first.started <= second.started


def test_a_client_that_has_no_step_to_show_says_why(tmp_path: Path) -> None:
    soon = time.time() + 60
    none = tasks.train(asked(tmp_path, steps=0, stop_at=soon))
    assert none == Failure(Client(0, "here"), 0, "late", "the deadline was too near for a first step")
    over = asked(tmp_path, stop_at=time.time())
    why = "the deadline was too near when this client began"
    assert tasks.train(over) == Failure(Client(0, "here"), 0, "late", why)
    over.transport.put(over.closed, [], "")
    why = "the round was closed before this client began"
    assert tasks.train(over) == Failure(Client(0, "here"), 0, "late", why)


def test_a_client_does_not_begin_a_step_that_would_end_too_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps of 2 s after 5 s of setup, the first of 3 s: the third would end at 12 s."""
    clock = [0.0]
    monkeypatch.setattr(tasks.time, "time", lambda: clock[0])
    stop = tasks.stopper(asked(tmp_path, stop_at=11.5))
    said = []
    for passed in (0, 5, 3, 2):
        clock[0] += passed
        said.append(stop())
    assert said == [False, False, False, True]
