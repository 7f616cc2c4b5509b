"""Data never travels: everything that crosses between driver and workers is looked through."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from parsl.executors.high_throughput import executor as htex

from parslfl.data.cifar10 import Cifar10
from parslfl.data.partition import Classes
from parslfl.experiment import Experiment
from parslfl.messages import Client, Ref, Source, TrainTask
from parslfl.orchestrator import rounds
from parslfl.seeding import derive
from parslfl.sites import Federation
from parslfl.transport.file import File

#: Bytes of each image that are looked for, from its middle: eight more or less random pixels are
#: enough not to occur by chance.
WINDOW = slice(1500, 1508)


def test_no_example_and_no_labels_leave_their_site(
    federation: Federation,
    experiment: Callable[..., Experiment],
    data_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    crossed: list[bytes] = []
    _tap(monkeypatch, crossed)
    wanted = experiment(dataset="cifar10", partition="classes:k=2", rounds=2, data_dir=str(data_folder))
    reports = list(rounds(federation, wanted, tmp_path / "run"))
    assert all(len(r.updates) == 4 for r in reports)
    trained = {u.client.index for r in reports for u in r.updates}

    everything = b"\0".join(crossed)
    sent = sum(u.ref.size for r in reports for u in r.updates)
    assert len(everything) > sent  # the updates themselves were seen, so what is looked at is real
    parts = Classes(k=2).split(Cifar10().labels(data_folder), 8, derive(0, "partition"))
    for client in trained:
        samples = Cifar10().train(data_folder, parts[client])
        assert _found(samples.x, everything) == 0
        assert samples.y.tobytes() not in everything
        assert parts[client].tobytes() not in everything
        planted = max(samples.x[:50], key=lambda image: len(np.unique(image.reshape(-1)[WINDOW])))
        assert _found(samples.x, everything + planted.tobytes()) >= 1  # it would be noticed


def _tap(monkeypatch: pytest.MonkeyPatch, crossed: list[bytes]) -> None:
    """Record every task and result on Parsl's wire, and every file of the transport."""
    submit, loads = htex.HighThroughputExecutor.submit_payload, htex.deserialize
    drop = File.drop

    def submitting(self: Any, context: dict[str, Any], buffer: bytes) -> Any:
        crossed.append(buffer)
        return submit(self, context, buffer)

    def receiving(buffer: bytes) -> Any:
        crossed.append(buffer)
        return loads(buffer)

    def dropping(self: File, ref: Ref) -> None:
        if ref.path.startswith("updates/"):
            crossed.append(Path(self.root, ref.path).read_bytes())
        drop(self, ref)

    monkeypatch.setattr(htex.HighThroughputExecutor, "submit_payload", submitting)
    monkeypatch.setattr(htex, "deserialize", receiving)
    monkeypatch.setattr(File, "drop", dropping)


def _found(images: np.ndarray, haystack: bytes) -> int:
    """How many of `images` (n, 3, 32, 32) occur in `haystack`, as pixels."""
    rows = images.reshape(len(images), -1)[:, WINDOW]
    varied = rows[[len(np.unique(row)) >= 5 for row in rows]]
    return sum(row.tobytes() in haystack for row in varied)


def test_a_task_is_small_and_names_its_data() -> None:
    """What a task may hold is fixed by its type: no arrays."""
    source = Source(Cifar10(), Classes(k=2), "/data", 60, 0)
    plain = Experiment()
    task = TrainTask(
        0, Client(0, "x"), plain.model, source, plain.work(), Ref(1, ""), plain.codec, File("/r"), 0
    )
    assert len(pickle.dumps(task)) < 2000
