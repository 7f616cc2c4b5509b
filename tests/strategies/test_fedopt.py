"""Server optimisers on three-element parameters, worked by hand over two rounds."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from parslfl.errors import ConfigError
from parslfl.learning import Cohort
from parslfl.params import BLOCK, Params
from parslfl.protocols import Strategy
from parslfl.specs import parse
from parslfl.strategies.fedopt import FedAdagrad, FedAdam, FedAvgM, FedYogi
from parslfl.strategies.names import STRATEGIES

Aggregated = Callable[..., tuple[Params, Params]]


def twice(aggregated: Aggregated, strategy: Strategy, first: list[float], second: list[float]) -> Params:
    """The model after two rounds of one update each, from (1, 2, 3): its state goes through a file."""
    state, params = aggregated(strategy, [first])
    return aggregated(strategy, [second], params=params, state=state)[1]


def test_momentum(aggregated: Aggregated) -> None:
    """m = (2, 0, -1), then 0.5 m + (1, 0, 1) = (2, 0, 0.5); steps of 0.5 m."""
    new = twice(aggregated, FedAvgM(beta=0.5, lr=0.5), [2, 0, -1], [1, 0, 1])
    assert new["w"].tolist() == [1 + 1 + 1, 2, 3 - 0.5 + 0.25]
    assert new["n"] == 7


def test_adagrad(aggregated: Aggregated) -> None:
    """v = tau^2 + D^2: 1 + 3 = 4 for D = sqrt 3, then 4 + 5 = 9 for D = sqrt 5; tau = 1."""
    root3, root5 = math.sqrt(3), math.sqrt(5)
    new = twice(aggregated, FedAdagrad(lr=0.1, tau=1), [root3, 0, -root3], [root5, 0, 0])
    expected = [1 + 0.1 * root3 / 3 + 0.1 * root5 / 4, 2, 3 - 0.1 * root3 / 3]
    assert new["w"].tolist() == pytest.approx(expected, rel=1e-6)


def test_adam(aggregated: Aggregated) -> None:
    """beta1 = beta2 = 1/2, tau = 1, D = 1 twice: m = 1/2, 3/4; v = 1/2 + 1/2 = 1, 1."""
    new = twice(aggregated, FedAdam(lr=1, beta1=0.5, beta2=0.5, tau=1), [1, 0, 0], [1, 0, 0])
    assert new["w"].tolist() == pytest.approx([1 + 0.5 / 2 + 0.75 / 2, 2, 3], rel=1e-6)


def test_yogi(aggregated: Aggregated) -> None:
    """beta1 = 0, beta2 = 3/4, tau = 1. D = 2: v = 1 - 4/4 * sign(1 - 4) = 2. D = 1: v = 2 - 1/4 = 7/4."""
    new = twice(aggregated, FedYogi(lr=1, beta1=0, beta2=0.75, tau=1), [2, 0, 0], [1, 0, 0])
    expected = 1 + 2 / (math.sqrt(2) + 1) + 1 / (math.sqrt(1.75) + 1)
    assert new["w"].tolist() == pytest.approx([expected, 2, 3], rel=1e-6)


@pytest.mark.parametrize("strategy", [FedAvgM(lr=0.01), FedAdagrad(), FedAdam(), FedYogi()], ids=repr)
def test_steps_of_half_precision_are_those_of_single(strategy: Strategy) -> None:
    """300 rounds of one D, whose square float16 cannot hold, or whose v would never leave tau^2."""
    steps = []
    for dtype in (np.float16, np.float32):
        zero = {"h": np.zeros(3, dtype)}
        state, found = strategy.start(zero), []
        for _ in range(300):
            mean = {"h": np.array([300, 0.125, 2**-10], dtype)}
            state, new = strategy.step(state, zero, mean, Cohort((), 1))
            assert (new["h"].dtype, {a.dtype for a in state.values()}) == (dtype, {np.dtype(np.float32)})
            found.append(new["h"].astype(np.float64))
        steps.append(found)
    np.testing.assert_allclose(steps[0], steps[1], rtol=2**-9, atol=2**-24)


@pytest.mark.parametrize("strategy", [FedAdagrad(), FedAdam(), FedYogi()])
def test_blocks_make_no_difference(strategy: Strategy) -> None:
    """Two blocks and one element more: each element has the value that it has alone."""
    random = np.random.default_rng(0)
    w, d = (random.normal(size=2 * BLOCK + 1).astype(np.float32) for _ in range(2))
    state, new = strategy.step(strategy.start({"w": w}), {"w": w}, {"w": d.copy()}, Cohort((), 1))
    for at in (0, BLOCK - 1, BLOCK, 2 * BLOCK - 1, 2 * BLOCK):
        one = {"w": w[at : at + 1]}
        few, alone = strategy.step(strategy.start(one), one, {"w": d[at : at + 1].copy()}, Cohort((), 1))
        assert alone["w"][0] == new["w"][at]
        assert few["v/w"][0] == state["v/w"][at]


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("fedavgm:beta=1", "beta must be at least 0 and below 1, got 1.0"),
        ("fedadam:beta2=-1", "beta2 must be at least 0 and below 1, got -1.0"),
        ("fedyogi:tau=0", "tau must be positive, got 0.0"),
        ("fedadagrad:beta2=0.5", "fedadagrad has no field 'beta2'"),
    ],
)
def test_impossible_settings_are_refused(spec: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse(spec, STRATEGIES, "strategy")
