"""What every strategy promises."""

from __future__ import annotations

import numpy as np
import pytest

from parslfl.learning import LocalWork
from parslfl.protocols import Strategy
from parslfl.strategies.names import STRATEGIES


@pytest.fixture(params=sorted(STRATEGIES))
def strategy(request: pytest.FixtureRequest) -> Strategy:
    return STRATEGIES[request.param]()


def model() -> dict[str, np.ndarray]:
    return {"w": np.array([1.0, -2.0, 0.5], np.float32), "n": np.array([3])}


def test_zero_updates_leave_the_model_where_it_is(strategy: Strategy) -> None:
    _, new = strategy.step(strategy.start(model()), model(), {"w": np.zeros(3, np.float32)})
    assert {k: v.tolist() for k, v in new.items()} == {k: v.tolist() for k, v in model().items()}


def test_names_dtypes_and_inputs_stay(strategy: Strategy) -> None:
    params = model()
    _, new = strategy.step(strategy.start(params), params, {"w": np.ones(3, np.float32)})
    assert [(k, v.dtype, v.shape) for k, v in new.items()] == [
        (k, v.dtype, v.shape) for k, v in params.items()
    ]
    assert params["w"].tolist() == model()["w"].tolist()


def test_weights_are_never_negative(strategy: Strategy) -> None:
    assert strategy.weight(10, 1) >= 0


def test_local_work_keeps_what_the_user_chose(strategy: Strategy) -> None:
    work = LocalWork(epochs=3, lr=0.125, batch_size=7)
    changed = strategy.local(work)
    assert (changed.epochs, changed.lr, changed.batch_size) == (3, 0.125, 7)
