"""Strategies of a user's own with a mistake in them: told by class and method, whatever it is."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from parslfl.codecs import wire
from parslfl.codecs.raw import Raw
from parslfl.errors import RunError
from parslfl.experiment import Experiment
from parslfl.folding import checkpoints
from parslfl.folding.desk import Desk
from parslfl.folding.finishing import Finished, finish
from parslfl.folding.folding import Folding
from parslfl.folding.merging import merge
from parslfl.folding.states import started
from parslfl.learning import LocalWork
from parslfl.messages import Assignment, Client, RoundPlan, Update
from parslfl.params import Params
from parslfl.strategies.fedavg import FedAvg
from parslfl.transport.inline import Inline

MODEL: Params = {"w": np.array([1.0, 2.0, 3.0], np.float32), "n": np.array([7])}
CLIENTS = [Client(i, "here") for i in range(4)]


def made(base: type = FedAvg, **methods: Any) -> Any:
    """A strategy of the class `Own` with these methods."""
    return type("Own", (base,), {name: staticmethod(method) for name, method in methods.items()})()


def fails(*_: object) -> Any:
    raise KeyError("oops")


def run(strategy: Any, folder: Path) -> Finished:
    """A round of four updates in two lanes."""
    work = LocalWork()
    job = Folding(
        strategy,
        dict.fromkeys(CLIENTS, Raw()),
        {"here": Inline()},
        Desk(like=MODEL, state=started(strategy, MODEL)),
        time.monotonic(),
        works=dict.fromkeys(CLIENTS, work),
        clients=len(CLIENTS),
    )
    updates = []
    for client in CLIENTS:
        packed = wire.pack({"w": np.ones(3, np.float32)})
        ref = Inline().put("", packed.buffers, packed.checksum)
        updates.append(Update(client, 0, ref, client.index + 1, 1, 1, 2.0, 1.0, 12))
    notes = [merge(job, lane, None, *updates[lane::2]) for lane in range(2)]
    plan = RoundPlan(0, tuple(Assignment(c, work, Raw()) for c in CLIENTS), 1, len(CLIENTS))
    return finish(job, plan, folder / "model", folder / "state", None, *notes)


@pytest.mark.parametrize(
    ("methods", "said"),
    [
        ({"weight": fails}, "Own.weight failed: KeyError: 'oops'"),
        ({"weight": lambda _: None}, "Own.weight failed: TypeError: float() argument"),
        ({"scales": fails}, "Own.scales failed: KeyError: 'oops'"),
        ({"scales": lambda _: 1.0}, "Own.scales failed: TypeError: 'float' object is not iterable"),
        ({"scales": lambda _: ()}, "Own.scales returned [0] scales: give every update as many"),
        ({"scales": lambda e: (1.0,) * e.samples}, "Own.scales returned [1, 2, 3, 4] scales"),
        ({"step": fails}, "Own.step failed: KeyError: 'oops'"),
        ({"step": lambda *_: None}, "Own.step failed: TypeError: cannot unpack"),
        ({"step": lambda _s, params, *_: (params, list(params))}, "Own.step returned a list, not a dict"),
        ({"step": lambda *_: ({}, {"w": [1], "n": 7})}, "Own.step returned 'w' as a list, not as an array"),
        ({"combine": fails}, "Own.combine failed: KeyError: 'oops'"),
        (
            {"combine": lambda _s, _c, out: out.update(w=out["w"][:1])},
            "Own.combine returned 'w' as float32[1]",
        ),
        (
            {"combine": lambda _s, _c, out: out["w"].fill(np.nan)},
            "Own.combine made a mean with NaN or Inf in it, of updates that have none: look there for",
        ),
    ],
)
def test_what_its_methods_do_wrong_is_told(methods: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises((RunError, ValueError, TypeError), match=re.escape(said)):
        run(made(**methods), tmp_path)
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (
            None,
            "returned a NoneType, not a dict of arrays: a state has the same arrays in every round, or is {}",
        ),
        ([np.zeros(2)], "returned a list, not a dict of arrays"),
        ({}, "returned other arrays than it was given: m"),
        ({"m": np.zeros(2), "t": np.zeros(2)}, "returned other arrays than it was given: t"),
        ({"m": 1.0}, "returned 'm' as a float, not as an array"),
        ({"m": np.zeros(2, object)}, "returned 'm' as object[2], not float64[2]"),
        ({"m": np.zeros(2, np.float32)}, "returned 'm' as float32[2], not float64[2]"),
        ({"m": np.zeros(3)}, "returned 'm' as float64[3], not float64[2]"),
        ({"m": np.array([0, np.nan])}, "returned NaN or Inf in 'm': lower the strategy's lr or --lr"),
        ({"m": np.array([np.inf, 0])}, "returned NaN or Inf in 'm'"),
    ],
)
def test_a_state_that_leads_nowhere_is_not_written(state: Any, said: str, tmp_path: Path) -> None:
    own = made(start=lambda _: {"m": np.zeros(2)}, step=lambda _s, params, *_: (state, params))
    with pytest.raises(RunError, match=re.escape(f"Own.step, for the next state, {said}")):
        run(own, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (
            None,
            "returned a NoneType, not a dict of arrays: a state has the same arrays in every round, or is {}",
        ),
        ([], "returned a list, not a dict of arrays"),
        ({"m": [1.0]}, "returned 'm' as a list, not as an array"),
        ({"m": np.zeros(2, object)}, "returned 'm' as object[2], which no checkpoint holds"),
        ({"m": np.zeros(2, complex)}, "returned 'm' as complex128[2], which no checkpoint holds"),
        ({1: np.zeros(2)}, "returned an array named 1: name it by a text"),
        ({"m": np.array([0, np.nan])}, "returned NaN or Inf in 'm': begin with finite numbers"),
    ],
)
def test_a_state_that_a_run_cannot_begin_with_is_refused(state: Any, said: str) -> None:
    with pytest.raises(RunError, match=re.escape(f"Own.start {said}")):
        started(made(start=lambda _: state), MODEL)


@pytest.mark.parametrize("state", [None, [], {"m": 1.0}, {"m": np.array(["a"])}, {"m": np.array(np.nan)}])
def test_one_that_only_the_first_step_makes_is_checked_as_well(state: Any, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"Own.step, for the next state, returned"):
        run(made(step=lambda _s, params, *_: (state, params)), tmp_path)
    run(made(step=lambda _s, params, *_: ({"m": np.zeros(2)}, params)), tmp_path)


def test_what_start_raises_is_told() -> None:
    with pytest.raises(RunError, match=re.escape("Own.start failed: KeyError: 'oops'")):
        started(made(start=fails), MODEL)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(12.0).reshape(3, 4).T,
        np.float32(3),
        np.full(2, 1e200),  # whose square is more than float64 holds
        np.array([1e-320]),
        np.full(2, 60000, np.float16),
        np.array([], np.float32),
        np.array(7),
        np.array([True]),
    ],
)
def test_a_state_of_finite_numbers_is_written(array: Any, tmp_path: Path) -> None:
    own = made(start=lambda _: {"m": array}, step=lambda state, params, *_: (state, params))
    done = run(own, tmp_path)
    found = checkpoints.read(tmp_path / "state", done.state)["m"]
    assert (found.dtype, found.tolist()) == (array.dtype, array.tolist())


def test_one_without_a_mistake_makes_a_model(tmp_path: Path) -> None:
    run(made(scales=lambda _: (2.0,)), tmp_path)
    assert (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("local", "said"),
    [(fails, "Own.local failed: KeyError: 'oops'"), (lambda _: None, "Own.local failed: TypeError: replace")],
)
def test_local_is_named_too(local: Any, said: str) -> None:
    experiment = Experiment(strategy=made(local=local), per_round=4)
    with pytest.raises(RunError, match=re.escape(said)):
        experiment.plan(0, CLIENTS)
