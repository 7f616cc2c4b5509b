"""One round of any strategy through the driver's own merging, on small updates."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from parslfl.codecs import wire
from parslfl.codecs.raw import Raw
from parslfl.folding import checkpoints
from parslfl.folding.desk import Desk
from parslfl.folding.finishing import finish
from parslfl.folding.folding import Folding
from parslfl.folding.merging import Merged, merge, merge_on
from parslfl.learning import LocalWork
from parslfl.messages import Assignment, Client, RoundPlan, Update
from parslfl.params import Params
from parslfl.protocols import Strategy
from parslfl.transport.file import File

#: (state, params) of the next round.
Aggregated = Callable[..., tuple[Params, Params]]

START: Params = {"w": np.array([1.0, 2.0, 3.0], np.float32), "n": np.array([7])}


@pytest.fixture
def aggregated(tmp_path: Path) -> Aggregated:
    """`aggregated(strategy, deltas, params=, state=, clients=, samples=[..], steps=[..], ...)`.

    `deltas` are lists of three numbers, or whole updates; what is a list besides is a field of the
    clients' updates. They are dealt to the lanes in turn, one a merge, as the last ones of a run are.
    """

    def run(
        strategy: Strategy,
        deltas: Sequence[Sequence[float] | Params],
        params: Params = START,
        state: Params | None = None,
        work: LocalWork = LocalWork(lr=0.1),  # noqa: B008 - frozen
        clients: int = 0,
        **facts: Sequence[float],
    ) -> tuple[Params, Params]:
        cohort = [Client(i, "here") for i in range(len(deltas))]
        told = strategy.local(work)
        transport = File(str(tmp_path))
        job = Folding(
            strategy,
            dict.fromkeys(cohort, Raw()),
            {"here": transport},
            Desk(like=params, state=strategy.start(params) if state is None else state),
            time.monotonic(),
            works=dict.fromkeys(cohort, told),
            clients=clients or len(cohort),
        )
        updates = [
            update(transport, c, d, {k: v[c.index] for k, v in facts.items()})
            for c, d in zip(cohort, deltas, strict=True)
        ]
        width = min(job.lanes, len(updates))
        lanes = [chained(job, lane, updates[lane::width]) for lane in range(width)]
        plan = RoundPlan(0, tuple(Assignment(c, told, Raw()) for c in cohort), 1, len(cohort))
        done = finish(job, plan, tmp_path / "model", tmp_path / "state", None, *lanes)
        assert not done.failures, done.failures
        assert not job.desk.held
        assert not list(tmp_path.glob("updates/round*")), "an update was left behind"
        kept = checkpoints.read(tmp_path / "state", done.state) if done.state else {}
        return copied(kept), copied(checkpoints.read(tmp_path / "model", done.model))

    return run


def chained(job: Folding, lane: int, updates: Sequence[Update]) -> Merged:
    """The note of the last of a lane's merges, each of which goes on from the one before."""
    *others, last = updates
    note: Merged | None = None
    for one in others:
        note = merge_on(job, lane, note, one)
    return merge(job, lane, note, last)


def update(
    transport: File, client: Client, delta: Sequence[float] | Params, facts: Mapping[str, float]
) -> Update:
    arrays = delta if isinstance(delta, dict) else {"w": np.array(delta, np.float32)}
    packed = wire.pack(arrays)
    ref = transport.put(f"updates/round-0000-client-{client.index:05d}", packed.buffers, packed.checksum)
    fields = {"samples": 1, "steps": 1, "planned_steps": 1, "first_loss": 2.0, "loss": 1.0, **facts}
    return Update(client, 0, ref, raw_bytes=12, **fields)  # type: ignore[arg-type]


def copied(params: Params) -> Params:
    return {name: array.copy() for name, array in params.items()}
