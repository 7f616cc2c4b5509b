"""What a worker says of its time."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from parslfl import tasks
from parslfl.codecs import wire
from parslfl.codecs.raw import Raw
from parslfl.data.partition import Iid
from parslfl.data.synthetic import Synthetic
from parslfl.learning import LocalWork, Samples, Scores, Stop, Trained
from parslfl.messages import Client, Source, Spent, TrainTask, Update
from parslfl.params import Params
from parslfl.transport.file import File

#: Seconds that the model below takes to load what it needs.
LOADING = 0.5
START = {"w": np.zeros(4, np.float32)}


@dataclass(frozen=True)
class Heavy:
    """A model whose libraries are slow to load, whichever method is called first."""

    def init(self, shape: tuple[int, ...], classes: int, seed: int) -> Params:
        _load()
        return START

    def train(self, params: Params, samples: Samples, work: LocalWork, seed: int, stop: Stop) -> Trained:
        _load()
        return Trained({"w": params["w"] + 1}, 1, 1, 1, 1.0, 1.0)

    def evaluate(self, params: Params, samples: Samples, work: LocalWork) -> Scores:
        return Scores(0, 0, 1)


_loaded: list[bool] = []


def _load() -> None:
    if not _loaded:
        time.sleep(LOADING)
        _loaded.append(True)


def test_a_workers_first_task_books_its_libraries_as_setup(tmp_path: Path) -> None:
    (tmp_path / "updates").mkdir()
    packed = wire.pack(START)
    transport = File(str(tmp_path))
    start = transport.put("models/start", packed.buffers, packed.checksum)
    source = Source(Synthetic(samples=8), Iid(), "", 1, 0)
    asked = TrainTask(
        0, Client(0, "here"), Heavy(), source, LocalWork(), start, Raw(), transport, 1
    )  # fmt: skip

    def spent() -> Spent:
        update = tasks.train(asked)
        assert isinstance(update, Update), update
        return update.spent

    before = time.time()
    first, second = spent(), spent()
    assert first.setup >= LOADING > second.setup
    assert first.train < LOADING
    assert before <= first.started <= second.started
