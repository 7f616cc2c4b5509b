"""What a worker does: make the first model, train one client, score a model.

Plain top-level functions, sent to workers by reference. Whatever goes wrong comes back as a
value, so one client's trouble stays its own. Between tasks a worker keeps what is dear to make:
the mapped global model, the split of the data, and (in its family) data and network.

Does not know: Parsl, the driver, or any other client.
"""

from __future__ import annotations

import contextlib
import math
import os
import socket
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import numpy.typing as npt

from parslfl import clientside, downlink
from parslfl.codecs import wire
from parslfl.codecs.pieces import opened
from parslfl.errors import ParslflError
from parslfl.keep import ClientStore
from parslfl.learning import Guide, LocalWork, Personal, Samples, Scores, Stop, Trained
from parslfl.messages import (
    INITIAL,
    EvaluateTask,
    Failure,
    InitTask,
    ModelRef,
    Outcome,
    Ref,
    Source,
    Spent,
    TrainTask,
    Update,
    update_name,
)
from parslfl.params import Params, fold, nbytes, require_like, subtract, trained, turn_into_delta
from parslfl.protocols import Model, Transport
from parslfl.seeding import derive, generator
from parslfl.submodel import KEY, Kept, describe, put, take

#: Seconds between two looks at whether the round has been closed.
_LOOK = 0.5
#: Name under which a client keeps what its codec left out.
RESIDUAL = "residual"
#: Kinds of models for which this process has loaded its libraries.
_warmed: set[type] = set()


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
    ref: Ref = task.transport.put(INITIAL, packed.buffers, packed.checksum)
    return ref


def warm(model: Model, source: Source) -> None:
    """Load what every task of a run needs, while this worker has nothing better to do."""
    with contextlib.suppress(Exception):  # the first real task reports it
        _split(source)
        model.init(source.dataset.shape, source.dataset.classes, 0)
    _warmed.add(type(model))


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
    began = time.time()
    stop = stopper(task)
    if stop():
        return Failure(task.client, task.round, "late", f"{_too_late(task)} this client began")
    if task.error_feedback or task.strategy:
        ClientStore(task.store).prepare(task.client)
    if type(task.model) not in _warmed:
        warm(task.model, task.source)
    started = time.time()
    start = receive(task.transport, task.start)
    params = start.params
    samples, held_out = _samples(task)
    loaded = time.time()
    start_loss = task.model.evaluate(params, samples, task.work).loss if task.work.start_loss else None
    part = clientside.begin(task, params)
    guide = (part.guide(),) if part else ()
    made = task.model.train(params, samples, task.work, task.seed, stop, *guide)
    done = time.time()
    if task.transport.has(task.closed):
        return Failure(task.client, task.round, "late", "the round was closed while this client trained")
    if task.work.epochs and not made.steps:
        return Failure(task.client, task.round, "late", "the deadline was too near for a first step")
    before = take(params, made.kept) if made.kept else params
    require_like(made.params, before, f"{type(task.model).__name__}.train")
    # training again would overwrite what it returned
    delta = subtract(made.params, before) if part else turn_into_delta(made.params, before)
    keep = partial(_keep, task, part, made.steps, samples, held_out, stop) if part else None
    sent = _send(task, delta, made.kept, trained(params), keep)
    beside = task.shared.size if task.shared else 0
    return Update(
        client=task.client,
        round=task.round,
        ref=sent.ref,
        samples=int(made.samples),  # a model may count in numpy's numbers; the journal is JSON
        steps=int(made.steps),
        planned_steps=int(made.planned_steps),
        first_loss=float(made.first_loss),
        loss=float(made.loss),
        raw_bytes=nbytes(delta),
        spent=Spent(
            load=loaded - started,
            train=done - loaded + sent.kept,
            encode=time.time() - done - sent.kept,
            started=began,
            setup=started - began,
            host=socket.gethostname(),
            pid=os.getpid(),
            send=sent.seconds,
        ),
        notes=(*start.notes, *(part.notes if part else ()), *sent.notes),
        afresh=part is not None and part.afresh,
        bytes_down=start.came + beside,
        raw_down=task.start.size + beside if isinstance(task.start, ModelRef) else 0,
        start_loss=None if start_loss is None else float(start_loss),
        variance=None if made.variance is None else float(made.variance),
        personal=sent.personal,
        examples=len(samples),
    )


def _samples(task: TrainTask) -> tuple[Samples, Samples | None]:
    """The client's examples to train on, and those held out: the same in every round."""
    indices = _split(task.source)[task.client.index]
    folder, dataset = Path(task.source.folder), task.source.dataset
    held = int(task.work.held_out * len(indices))
    if not held:
        return dataset.train(folder, indices), None
    mixed = generator(task.source.seed, "held-out", task.client.index).permutation(indices)
    return dataset.train(folder, np.sort(mixed[held:])), dataset.train(folder, np.sort(mixed[:held]))


@dataclass(frozen=True)
class _Sent:
    """An update that is on its way, what its reader should know, and the strategy's part: what came of
    it, and its seconds. `seconds`: as `Spent.send`."""

    ref: Ref
    notes: tuple[str, ...]
    personal: Personal | None
    kept: float
    seconds: float


def _send(
    task: TrainTask,
    delta: Params,
    kept: Kept,
    like: Params,
    keep: Callable[[Params], Personal | None] | None,
) -> _Sent:
    """Encode and store `delta`, of the part `kept` of a model like `like`; `keep` is first given what
    the driver will decode.

    With error feedback, what the codec left out of the client's last accepted update is added
    first, and `delta` becomes what it leaves out now. That is saved before the driver hears of
    the update: Seide et al. 2014, "1-Bit Stochastic Gradient Descent", section 2.
    """
    store, notes = ClientStore(task.store), tuple[str, ...]()
    left: Params = {}
    if task.error_feedback:
        left, notes = store.recall(task.client, RESIDUAL, task.accepted, like)
        fold(delta, take(left, kept), 1.0)
    arrays, note = task.codec.encode(delta, derive(task.seed, "codec"))
    began = time.time()
    personal = keep(task.codec.decode(arrays, note, delta)) if keep else None
    spent = time.time() - began
    packed = wire.pack(arrays, {**note, KEY: describe(kept)} if kept else note)
    began = time.monotonic()
    ref: Ref = task.transport.put(update_name(task.round, task.client), packed.buffers, packed.checksum)
    rides = not ref.path and len(ref.data) == ref.size
    seconds = 0.0 if rides else time.monotonic() - began
    if task.error_feedback:
        opened(task.codec, arrays, note, delta).add(delta, -1.0)
        residual = put(left, delta, kept) if kept else delta
        store.save(task.client, RESIDUAL, task.round, task.accepted, residual)
    return _Sent(ref, notes, personal, spent, seconds)


def _keep(
    task: TrainTask,
    part: clientside.ClientPart,
    steps: int,
    samples: Samples,
    held_out: Samples | None,
    stop: Stop,
    received: Params,
) -> Personal | None:
    """The strategy's part after training."""

    def again(params: Params, work: LocalWork, guide: Guide) -> Trained:
        model: Any = task.model  # one with a guide: `experiment.check` has seen to it
        made: Trained = model.train(params, samples, work, derive(task.seed, "again"), stop, guide)
        require_like(made.params, params, f"{type(task.model).__name__}.train")
        return made

    def score(params: Params) -> Scores | None:
        return None if held_out is None else task.model.evaluate(params, held_out, task.work)

    return part.finish(received, steps, again, score)


def stopper(task: TrainTask) -> Stop:
    """Says stop where another step would end after `stop_at`, or once the driver has marked the round closed.

    Asked before the work begins and before each step: the shortest step so far tells how long one takes.
    """
    looked, closed, asked, before, step = 0.0, False, 0, 0.0, 0.0

    def stop() -> bool:
        nonlocal looked, closed, asked, before, step
        now = time.time()
        if now - looked > _LOOK:
            looked, closed = now, task.transport.has(task.closed)
        if asked > 1:  # until then there was other work than a step
            step = min(step or math.inf, now - before)
        asked, before = asked + 1, now
        return closed or (task.stop_at is not None and now + step >= task.stop_at)

    return stop


def _too_late(task: TrainTask) -> str:
    closed = task.transport.has(task.closed)
    return "the round was closed before" if closed else "the deadline was too near when"


@dataclass(frozen=True)
class Start:
    """The global model, and how it came: `came` and `notes` as in `downlink.Received`."""

    params: Params
    came: int
    notes: tuple[str, ...]


@lru_cache(maxsize=1)
def receive(transport: Transport, ref: Ref) -> Start:
    """The global model, mapped and verified once a round and worker."""
    found = downlink.receive(transport, ref)
    params, _ = wire.unpack(found.data, ref.checksum)
    return Start(params, found.came, found.notes)


def read_model(transport: Transport, ref: Ref) -> Params:
    """The global model alone."""
    return receive(transport, ref).params


@lru_cache(maxsize=4)
def _split(source: Source) -> list[npt.NDArray[np.int64]]:
    labels = source.dataset.labels(Path(source.folder))
    return source.partition.split(labels, source.clients, source.seed)
