"""FedAvg and FedProx on three-element parameters, worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from parslfl.errors import ConfigError
from parslfl.learning import LocalWork
from parslfl.specs import parse
from parslfl.strategies.fedavg import FedAvg
from parslfl.strategies.fedprox import FedProx
from parslfl.strategies.names import STRATEGIES


def three(*values: float) -> dict[str, np.ndarray]:
    return {"w": np.array(values, np.float32)}


def test_step_adds_the_mean() -> None:
    state, new = FedAvg().step({}, three(1, 2, 3), three(0.5, -2, 0))
    assert state == {}
    assert new["w"].tolist() == [1.5, 0, 3]


def test_server_learning_rate_scales_the_step() -> None:
    _, new = FedAvg(lr=0.5).step({}, three(1, 2, 3), three(2, -2, 0))
    assert new["w"].tolist() == [2, 1, 3]


def test_weight_is_the_number_of_samples() -> None:
    assert FedAvg().weight(833, 7) == 833.0


def test_integer_buffers_are_carried() -> None:
    params = {**three(1, 2, 3), "steps": np.array(7)}
    _, new = FedAvg().step({}, params, three(0, 0, 1))
    assert list(new) == ["w", "steps"]
    assert new["steps"] == 7


def test_fedprox_differs_only_at_the_client() -> None:
    assert FedAvg().local(LocalWork()).proximal == 0
    assert FedProx(mu=0.1).local(LocalWork()).proximal == 0.1
    averaged, proximal = (s.step({}, three(1, 2, 3), three(1, 1, 1))[1] for s in (FedAvg(), FedProx()))
    assert averaged["w"].tolist() == proximal["w"].tolist()


def test_negative_mu_is_refused() -> None:
    with pytest.raises(ConfigError, match="mu must not be negative, got -1.0"):
        parse("fedprox:mu=-1", STRATEGIES, "strategy")
