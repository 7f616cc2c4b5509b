"""What a worker does: make the first model, train one client, score a model.

Plain top-level functions, sent to workers by reference. Whatever goes wrong comes back as a
value, so one client's trouble stays its own. Between tasks a worker keeps what is dear to make:
the mapped global model, the split of the data, and (in its family) data and network.

Does not know: Parsl, the driver, or any other client.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
import traceback
from functools import lru_cache
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import numpy.typing as npt

from parslfl.codecs import wire
from parslfl.errors import ParslflError
from parslfl.learning import Scores, Stop
from parslfl.messages import (
    EvaluateTask,
    Failure,
    InitTask,
    Outcome,
    Ref,
    Source,
    Spent,
    TrainTask,
    Update,
    update_name,
)
from parslfl.params import Params, nbytes, require_like, turn_into_delta
from parslfl.protocols import Model, Transport

#: Seconds between two looks at whether the round has been closed.
_LOOK = 0.5


def train(task: TrainTask) -> Outcome:
    """Train one client; an `Update` whose `ref` holds its encoded delta, or a `Failure`."""
    try:
        return _train(task)
    except Exception as error:  # noqa: BLE001 - one client's trouble, of any kind, is its own
        return Failure(task.client, task.round, "error", reason(error), traceback.format_exc())


def init(task: InitTask, source: Source) -> Ref:
    """Make and store the model of round 0, if the data can be split among its clients."""
    _split(source)
    params = task.model.init(task.shape, task.classes, task.seed)
    packed = wire.pack(params)
    ref: Ref = task.transport.put("updates/initial", packed.buffers, packed.checksum)
    return ref


def warm(model: Model, source: Source) -> None:
    """Load what every task of a run needs, while this worker has nothing better to do."""
    with contextlib.suppress(Exception):  # the first real task reports it
        _split(source)
        model.init(source.dataset.shape, source.dataset.classes, 0)


def evaluate(task: EvaluateTask) -> Scores | str:
    """The model's scores on the central test set, or why there are none."""
    try:
        params = read_model(task.transport, task.model_ref)
        found = task.model.evaluate(params, task.dataset.test(Path(task.folder)), task.work)
        return Scores(float(found.accuracy), float(found.loss), int(found.samples))
    except Exception as error:  # noqa: BLE001 - no score costs no model
        return reason(error)


def by_value(payload: bytes) -> Any:
    """Call what `payload` holds, (function, arguments) by cloudpickle: for a user's own classes."""
    function, args = cloudpickle.loads(payload)
    return function(*args)


def reason(error: BaseException) -> str:
    """One line: parslfl's own errors speak for themselves, others with their type."""
    text = " ".join(str(error).split())
    return text if isinstance(error, ParslflError) else f"{type(error).__name__}: {text}"


def _train(task: TrainTask) -> Outcome:
    started = time.time()
    stop = _stopper(task)
    if stop():
        return Failure(task.client, task.round, "late", "the round was closed before this client began")
    params = read_model(task.transport, task.start)
    indices = _split(task.source)[task.client.index]
    samples = task.source.dataset.train(Path(task.source.folder), indices)
    loaded = time.time()
    made = task.model.train(params, samples, task.work, task.seed, stop)
    done = time.time()
    if task.transport.has(task.closed):
        return Failure(task.client, task.round, "late", "the round was closed while this client trained")
    if task.work.epochs and not made.steps:
        return Failure(task.client, task.round, "late", "the deadline came before the first step")
    require_like(made.params, params, f"{type(task.model).__name__}.train")
    delta = turn_into_delta(made.params, params)
    packed = wire.pack(*task.codec.encode(delta))
    ref = task.transport.put(update_name(task.round, task.client), packed.buffers, packed.checksum)
    return Update(
        client=task.client,
        round=task.round,
        ref=ref,
        samples=int(made.samples),  # a model may count in numpy's numbers; the journal is JSON
        steps=int(made.steps),
        planned_steps=int(made.planned_steps),
        first_loss=float(made.first_loss),
        loss=float(made.loss),
        raw_bytes=nbytes(delta),
        spent=Spent(
            load=loaded - started,
            train=done - loaded,
            encode=time.time() - done,
            started=started,
            host=socket.gethostname(),
            pid=os.getpid(),
        ),
    )


def _stopper(task: TrainTask) -> Stop:
    """Says stop from `stop_at` on, or once the driver has marked the round closed."""
    looked, closed = 0.0, False

    def stop() -> bool:
        nonlocal looked, closed
        now = time.time()
        if now - looked > _LOOK:
            looked, closed = now, task.transport.has(task.closed)
        return closed or (task.stop_at is not None and now >= task.stop_at)

    return stop


@lru_cache(maxsize=1)
def read_model(transport: Transport, ref: Ref) -> Params:
    """The global model, mapped and verified once a round and worker."""
    params, _ = wire.unpack(transport.get(ref), ref.checksum)
    return params


@lru_cache(maxsize=4)
def _split(source: Source) -> list[npt.NDArray[np.int64]]:
    labels = source.dataset.labels(Path(source.folder))
    return source.partition.split(labels, source.clients, source.seed)
