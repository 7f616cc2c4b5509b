"""FedNova and q-FedAvg on three-element parameters, worked by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from parslfl.folding.weighing import weight_of
from parslfl.learning import Evidence, LocalWork
from parslfl.params import Params
from parslfl.strategies.fedavg import FedAvg
from parslfl.strategies.fednova import FedNova, step_norm
from parslfl.strategies.qfedavg import QFedAvg

Aggregated = Callable[..., tuple[Params, Params]]


def test_plain_steps_count_one_each() -> None:
    assert step_norm(LocalWork(), 7) == 7
    assert step_norm(LocalWork(), 0) == 0


def test_momentum_makes_steps_longer() -> None:
    """rho = 1/2: velocities 1, 3/2, 7/4; in the paper (tau - rho (1 - rho^tau) / (1 - rho)) / (1 - rho)."""
    assert step_norm(LocalWork(momentum=0.5), 3) == 1 + 1.5 + 1.75
    assert step_norm(LocalWork(momentum=0.5), 3) == (3 - 0.5 * (1 - 0.5**3) / 0.5) / 0.5


def test_the_proximal_term_makes_steps_shorter() -> None:
    """eta mu = 0.1: 1 + 0.9 + 0.81."""
    assert step_norm(LocalWork(lr=0.5, proximal=0.2), 3) == pytest.approx(2.71)


def test_both_as_a_walk_step_by_step() -> None:
    work = LocalWork(lr=0.2, proximal=0.5, momentum=0.9)
    gone = velocity = 0.0
    for _ in range(1000):
        velocity = 0.9 * velocity + 1 - 0.2 * 0.5 * gone
        gone += velocity
    assert step_norm(work, 1000) == pytest.approx(gone)


def test_what_clients_do_per_step_is_averaged(aggregated: Aggregated) -> None:
    """p = (3/4, 1/4); d = (4, 0, 0) / 4 and (0, 2, 0) / 1; tau = 3/4 * 4 + 1/4 * 1 = 13/4."""
    _, new = aggregated(FedNova(), [[4, 0, 0], [0, 2, 0]], samples=[3, 1], steps=[4, 1])
    assert new["w"].tolist() == [1 + 3.25 * 0.75, 2 + 3.25 * 0.5, 3]


def test_equal_steps_make_it_fedavg(aggregated: Aggregated) -> None:
    given = {"samples": [3, 1, 2], "steps": [4, 4, 4]}
    updates = [[1, 0, 2], [0, 2, -1], [0.5, 0.5, 0.5]]
    nova, average = (aggregated(s, updates, **given)[1] for s in (FedNova(), FedAvg()))
    assert nova["w"].tolist() == pytest.approx(average["w"].tolist(), rel=1e-6)


def test_who_made_no_step_adds_nothing(aggregated: Aggregated) -> None:
    """p = (1/2, 1/2), d = (2, 0, 0) and 0, tau = 1/2."""
    _, new = aggregated(FedNova(), [[2, 0, 0], [0, 0, 0]], steps=[1, 0])
    assert new["w"].tolist() == [1.5, 2, 3]


def test_qfedavg_worked_by_hand(aggregated: Aggregated) -> None:
    """q = 1, lr 0.1 so L = 10: D = -10 delta, h = (10 * 1)^2 + 10 F.

    delta = (1, 0, 0) with F = 2 and (0, 1, 0) with F = 1: h = 120 and 110;
    w += (10 * 2 * (1, 0, 0) + 10 * 1 * (0, 1, 0)) / 230.
    """
    _, new = aggregated(QFedAvg(q=1), [[1, 0, 0], [0, 1, 0]], samples=[5, 9], start_loss=[2.0, 1.0])
    assert new["w"].tolist() == pytest.approx([1 + 20 / 230, 2 + 10 / 230, 3])


def test_qfedavg_without_q_counts_clients_alike(aggregated: Aggregated) -> None:
    _, new = aggregated(QFedAvg(q=0), [[1, 0, 0], [0, 1, 0]], samples=[5, 9], start_loss=[2.0, 1.0])
    assert new["w"].tolist() == [1.5, 2.5, 3]


def test_a_client_without_loss_hardly_counts(aggregated: Aggregated) -> None:
    _, new = aggregated(QFedAvg(q=2), [[1, 0, 0], [0, 1, 0]], start_loss=[0.0, 1.0])
    assert new["w"].tolist() == pytest.approx([1, 2 + 10 / 210, 3])


@pytest.mark.parametrize("q", [5, 10, 15, 100])
def test_qfedavg_stays_where_nobody_has_any_loss(aggregated: Aggregated, q: float) -> None:
    _, new = aggregated(QFedAvg(q=q), [[1, 0, 0], [0, 1, 0]], start_loss=[0.0, 0.0])
    assert new["w"].tolist() == pytest.approx([1, 2, 3])


@pytest.mark.parametrize(("q", "loss"), [(15, 1e-3), (10, 2e-5), (25, 1e-6)])
def test_qfedavg_where_powers_of_losses_are_below_float32(
    aggregated: Aggregated, q: float, loss: float
) -> None:
    """lr 0.1, so L = 10; delta = (s, 0, 0) and (0, s, 0) with s^2 = F / q.

    h = q F^(q-1) * 100 F / q + 10 F^q = 110 F^q for both; w += 10 F^q * (s, s, 0) / (220 F^q).
    """
    s = (loss / q) ** 0.5
    start: Params = {"w": np.zeros(3, np.float32)}
    _, new = aggregated(QFedAvg(q=q), [[s, 0, 0], [0, s, 0]], params=start, start_loss=[loss, loss])
    assert new["w"].tolist() == pytest.approx([s / 22, s / 22, 0], rel=1e-5)


def test_qfedavgs_least_weight_is_one_that_updates_may_have() -> None:
    evidence = Evidence(1, 1, LocalWork(), 1.0, start_loss=0.0)
    assert 0 < weight_of(evidence, QFedAvg(q=15)) < 1e-35


def test_the_loss_that_qfedavg_needs_is_asked_for() -> None:
    assert QFedAvg().local(LocalWork()).start_loss
    assert not FedAvg().local(LocalWork()).start_loss
