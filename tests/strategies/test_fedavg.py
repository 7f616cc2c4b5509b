"""FedAvg, FedProx and dynamic weights on three-element parameters, worked by hand."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from parslfl.errors import ConfigError
from parslfl.learning import Cohort, Evidence, LocalWork
from parslfl.params import Params
from parslfl.protocols import Strategy
from parslfl.specs import parse
from parslfl.strategies.dynamic import Dynamic
from parslfl.strategies.fedavg import FedAvg
from parslfl.strategies.fedprox import FedProx
from parslfl.strategies.names import STRATEGIES
from parslfl.strategies.qfedavg import QFedAvg
from parslfl.strategies.robust import Krum
from parslfl.strategies.scaffold import Scaffold

Aggregated = Callable[..., tuple[Params, Params]]
NOBODY = Cohort((), 1)


def three(*values: float) -> dict[str, np.ndarray]:
    return {"w": np.array(values, np.float32)}


def test_step_adds_the_mean() -> None:
    state, new = FedAvg().step({}, three(1, 2, 3), three(0.5, -2, 0), NOBODY)
    assert state == {}
    assert new["w"].tolist() == [1.5, 0, 3]


def test_server_learning_rate_scales_the_step() -> None:
    _, new = FedAvg(lr=0.5).step({}, three(1, 2, 3), three(2, -2, 0), NOBODY)
    assert new["w"].tolist() == [2, 1, 3]


def test_weight_is_the_number_of_samples() -> None:
    assert FedAvg().weight(Evidence(833, 7, LocalWork(), 1.0)) == 833.0


def test_integer_buffers_are_carried() -> None:
    params = {**three(1, 2, 3), "steps": np.array(7)}
    _, new = FedAvg().step({}, params, three(0, 0, 1), NOBODY)
    assert list(new) == ["w", "steps"]
    assert new["steps"] == 7


def test_fedprox_differs_only_at_the_client() -> None:
    assert FedAvg().local(LocalWork()).proximal == 0
    assert FedProx(mu=0.1).local(LocalWork()).proximal == 0.1
    pair = (FedAvg(), FedProx())
    averaged, proximal = (s.step({}, three(1, 2, 3), three(1, 1, 1), NOBODY)[1] for s in pair)
    assert averaged["w"].tolist() == proximal["w"].tolist()


def test_negative_mu_is_refused() -> None:
    with pytest.raises(ConfigError, match="mu must be at least 0, got -1.0"):
        parse("fedprox:mu=-1", STRATEGIES, "strategy")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: FedProx(mu=math.nan), "mu must be at least 0, got nan"),
        (lambda: QFedAvg(q=math.inf), "q must be at least 0, got inf"),
        (lambda: FedAvg(lr=math.inf), "lr must be positive, got inf"),
        (lambda: Krum(keep=1.5), "keep must be a whole number, got 1.5"),  # type: ignore[arg-type]
        (lambda: Dynamic("sizes"), "by must be one of size, loss, variance, product, got 'sizes'"),  # type: ignore[arg-type]
        (lambda: Scaffold(by="loss"), "by must be one of samples, clients, got 'loss'"),  # type: ignore[arg-type]
    ],
)
def test_strategies_made_in_python_are_checked_as_specs_are(make: Callable[[], Strategy], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()


@pytest.mark.parametrize(
    ("by", "weights"),
    [
        ("size", (3, 1)),
        ("loss", (1 / 2, 1 / 4)),  # 1 / (1 + F) of F = 1 and 3
        ("variance", (1 / 5, 1)),  # 1 / (1 + V) of V = 4 and 0
        ("product", (3 / 2 / 5, 1 / 4)),
    ],
)
def test_dynamic_weights(aggregated: Aggregated, by: str, weights: tuple[float, float]) -> None:
    strategy = parse(f"dynamic:by={by}", STRATEGIES, "strategy")
    _, new = aggregated(
        strategy, [[1, 0, 0], [0, 1, 0]], samples=[3, 1], loss=[1.0, 3.0], variance=[4.0, 0.0]
    )
    first = weights[0] / sum(weights)
    assert new["w"].tolist() == pytest.approx([1 + first, 2 + 1 - first, 3])


@pytest.mark.parametrize("loss", [0.0, -0.5, -1.0, -7.0])
def test_no_loss_counts_more_than_none(loss: float) -> None:
    assert Dynamic("loss").weight(Evidence(3, 1, LocalWork(), 1.0, loss=loss)) == 1.0


def test_only_those_that_need_it_measure_the_variance() -> None:
    asked = [Dynamic(by).local(LocalWork()).variance for by in ("size", "loss", "variance", "product")]
    assert asked == [False, False, True, True]


@pytest.mark.parametrize("name", sorted(set(STRATEGIES) - {"qfedavg"}))
@pytest.mark.parametrize("lr", ["0", "-1"])
def test_a_step_that_leads_nowhere_or_away_is_refused(name: str, lr: str) -> None:
    with pytest.raises(ConfigError, match="lr must be positive"):
        parse(f"{name}:lr={lr}", STRATEGIES, "strategy")


def test_another_quantity_is_refused() -> None:
    with pytest.raises(ConfigError, match="dynamic:by: 'age' is not 'size' or 'loss'"):
        parse("dynamic:by=age", STRATEGIES, "strategy")
