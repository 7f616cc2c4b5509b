"""Updates of parts of a model through `merge` and `finish`, on three-element parameters worked by hand."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from parslfl.codecs import wire
from parslfl.codecs.raw import Raw
from parslfl.folding import checkpoints
from parslfl.folding.desk import Desk
from parslfl.folding.finishing import Finished, finish
from parslfl.folding.folding import Folding
from parslfl.folding.merging import merge
from parslfl.learning import LocalWork
from parslfl.messages import Assignment, Client, RoundPlan, Update
from parslfl.params import Params
from parslfl.strategies.fedavg import FedAvg
from parslfl.submodel import KEY, Kept, describe
from parslfl.transport.inline import Inline

MODEL: Params = {"w": np.array([1.0, 2.0, 3.0], np.float32), "n": np.array([7])}
CLIENTS = [Client(i, "here") for i in range(3)]
FIRST: Kept = {"w": (np.array([0, 1]),)}
LAST: Kept = {"w": (np.array([1, 2]),)}


def update(client: Client, delta: list[float], kept: Kept, samples: int, **note: Any) -> Update:
    told = {KEY: describe(kept)} if kept else {}
    packed = wire.pack({"w": np.array(delta, np.float32)}, {**told, **note})
    return Update(client, 0, Inline().put("", packed.buffers, packed.checksum), samples, 1, 1, 2.0, 1.0, 12)


def run(
    folder: Path, updates: list[Update], *keeps: float, lanes: int = 1, desk: Desk | None = None
) -> tuple[Finished, Params]:
    """`keeps`: what was asked of each client, half the model of all if not said."""
    asked = keeps or (0.5,) * 3
    works = {client: LocalWork(keep=keep) for client, keep in zip(CLIENTS, asked, strict=True)}
    plan = RoundPlan(0, tuple(Assignment(c, works[c], Raw()) for c in CLIENTS), 1, len(CLIENTS))
    codecs, desk = dict.fromkeys(CLIENTS, Raw()), desk or Desk(like=MODEL)
    job = Folding(FedAvg(), codecs, {"here": Inline()}, desk, time.monotonic(), works=works, clients=3)
    notes = [merge(job, lane, None, *updates[lane::lanes]) for lane in range(lanes)]
    done = finish(job, plan, folder / "model", folder / "state", None, *notes)
    return done, checkpoints.read(folder / "model", done.model)


def test_each_number_is_averaged_over_those_who_trained_it(tmp_path: Path) -> None:
    """w0: (1 * 4) / 1; w1: (1 * 4 + 3 * 8) / 4; w2: (3 * 2) / 3."""
    updates = [update(CLIENTS[0], [4.0, 4.0], FIRST, 1), update(CLIENTS[1], [8.0, 2.0], LAST, 3)]
    _, model = run(tmp_path, updates)
    assert model["w"].tolist() == [5.0, 9.0, 5.0]
    assert model["n"].tolist() == [7]


def test_what_nobody_trained_stays(tmp_path: Path) -> None:
    _, model = run(tmp_path, [update(CLIENTS[0], [4.0, 4.0], FIRST, 1)])
    assert model["w"].tolist() == [5.0, 6.0, 3.0]


def test_whole_updates_count_everywhere(tmp_path: Path) -> None:
    updates = [update(CLIENTS[0], [4.0, 4.0], FIRST, 1), update(CLIENTS[1], [0.0, 0.0, 3.0], {}, 1)]
    _, model = run(tmp_path, updates)
    assert model["w"].tolist() == [3.0, 4.0, 6.0]


def test_the_lanes_do_not_matter(tmp_path: Path) -> None:
    updates = [
        update(CLIENTS[0], [4.0, 4.0], FIRST, 1),
        update(CLIENTS[1], [8.0, 2.0], LAST, 1),
        update(CLIENTS[2], [2.0, 2.0, 2.0], {}, 2),
    ]
    assert len({run(tmp_path, updates, lanes=lanes)[0].model for lanes in (1, 2, 3)}) == 1


def test_a_part_that_was_not_asked_for_is_refused(tmp_path: Path) -> None:
    updates = [update(CLIENTS[0], [4.0, 4.0], FIRST, 1), update(CLIENTS[1], [1.0, 1.0, 1.0], {}, 1)]
    done, model = run(tmp_path, updates, 1.0, 1.0, 1.0)
    assert model["w"].tolist() == [2.0, 3.0, 4.0]
    assert [f.reason for f in done.failures] == ["is of a part of the model, though the whole was asked for"]


def test_a_part_of_another_shape_is_refused(tmp_path: Path) -> None:
    wrong = update(CLIENTS[0], [4.0, 4.0, 4.0], FIRST, 1)
    lie = replace(update(CLIENTS[2], [1.0], {}, 1, **{KEY: {"cuts": ["/w=="], "arrays": {"w": [0]}}}))
    done, _ = run(tmp_path, [wrong, update(CLIENTS[1], [1.0, 1.0, 1.0], {}, 1), lie])
    assert [f.kind for f in done.failures] == ["refused", "refused"]
    assert "array 'w' is" in done.failures[0].reason
    assert "no sub-model" in done.failures[1].reason


def test_clients_are_asked_for_parts_of_different_sizes(tmp_path: Path) -> None:
    """The whole, two thirds, one third. w0 and w1: (2 * 1 + 1 * 4) / 3; w2: (2 * 3 + 4 * 6) / 6 = 5."""
    updates = [
        update(CLIENTS[0], [1.0, 1.0, 3.0], {}, 2),
        update(CLIENTS[1], [4.0, 4.0], FIRST, 1),
        update(CLIENTS[2], [6.0], {"w": (np.array([2]),)}, 4),
    ]
    _, model = run(tmp_path, updates, 1.0, 0.75, 0.25)
    assert model["w"].tolist() == [3.0, 4.0, 8.0]


def test_a_round_of_whole_models_after_one_of_parts_is_averaged_as_ever(tmp_path: Path) -> None:
    parts = [update(CLIENTS[0], [4.0, 4.0], FIRST, 1), update(CLIENTS[1], [8.0, 2.0], LAST, 3)]
    whole = [update(client, [2.0, 4.0, 6.0], {}, 4) for client in CLIENTS[:2]]
    for lanes in (1, 2):
        desk = Desk(like=MODEL)
        run(tmp_path, parts, lanes=2, desk=desk)
        _, model = run(tmp_path, whole, 1.0, 1.0, 1.0, lanes=lanes, desk=desk)
        assert model["w"].tolist() == [3.0, 6.0, 9.0]
