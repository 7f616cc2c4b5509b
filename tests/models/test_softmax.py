"""Logistic regression by hand, and against torch's autograd and optimizer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from parslfl.learning import LocalWork, Samples
from parslfl.models.softmax import Softmax, _batches

WORK = LocalWork(epochs=2, batch_size=4, lr=1.0)


def never() -> bool:
    return False


def test_fedprox_worked_by_hand() -> None:
    """One example x = 1 of class 0, lr 1, mu 0.2, weight and bias from 0.

    Step 1: p = (1/2, 1/2), gradient (-1/2, 1/2) for both: weight = bias = (0.5, -0.5).
    Step 2: outputs (1, -1), p0 = 1 / (1 + e^-2) = 0.880797, gradient -0.119203 + 0.2 * 0.5.
    """
    one = Samples(np.ones((1, 1), np.float32), np.zeros(1, np.int64), classes=2)
    trained = Softmax().train(Softmax().init((1,), 2, 0), one, replace(WORK, proximal=0.2), 0, never)
    assert trained.params["weight"].ravel() == pytest.approx([0.519203, -0.519203], abs=1e-6)
    assert trained.params["bias"] == pytest.approx([0.519203, -0.519203], abs=1e-6)
    assert (trained.first_loss, trained.loss) == pytest.approx((0.693147, 0.126928), abs=1e-6)


def test_equals_torch_with_momentum_decay_and_proximal_term() -> None:
    random = np.random.default_rng(0)
    samples = Samples(random.normal(size=(10, 5)).astype(np.float32), np.arange(10) % 3, classes=3)
    work = replace(WORK, lr=0.1, momentum=0.9, weight_decay=0.01, proximal=0.5)
    params = {
        "weight": random.normal(size=(3, 5)).astype(np.float32),
        "bias": random.normal(size=3).astype(np.float32),
    }
    start = [torch.from_numpy(array.copy()) for array in params.values()]
    weight, bias = (tensor.clone().requires_grad_() for tensor in start)
    optimizer = torch.optim.SGD([weight, bias], lr=0.1, momentum=0.9, weight_decay=0.01)
    for _, rows in _batches(10, work, 7):
        outputs = torch.from_numpy(samples.x)[rows] @ weight.T + bias
        loss = torch.nn.functional.cross_entropy(outputs, torch.from_numpy(samples.y)[rows])
        for now, before in zip((weight, bias), start, strict=True):
            loss = loss + 0.5 / 2 * (now - before).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    trained = Softmax().train(params, samples, work, 7, never)
    np.testing.assert_allclose(trained.params["weight"], weight.detach().numpy(), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(trained.params["bias"], bias.detach().numpy(), rtol=1e-4, atol=1e-6)


def test_batches_visit_every_example_once_an_epoch() -> None:
    seen = list(_batches(10, WORK, 3))
    assert [(epoch, len(rows)) for epoch, rows in seen] == [(0, 4), (0, 4), (0, 2), (1, 4), (1, 4), (1, 2)]
    for epoch in (0, 1):
        assert sorted(np.concatenate([rows for e, rows in seen if e == epoch])) == list(range(10))


def test_scores_worked_by_hand() -> None:
    """Outputs are (x, 0): right for x > 0 with loss ln(1 + e^-x)."""
    params = {"weight": np.array([[1.0], [0.0]], np.float32), "bias": np.zeros(2, np.float32)}
    samples = Samples(np.array([[1.0], [-1.0]], np.float32), np.zeros(2, np.int64), classes=2)
    scores = Softmax().evaluate(params, samples, WORK)
    assert scores.accuracy == 0.5
    assert scores.loss == pytest.approx((0.313262 + 1.313262) / 2, abs=1e-6)


def test_images_are_scaled_by_channel() -> None:
    """x = 255 in channel 0 becomes (1 - 0.5) / 0.25 = 2; x = 51 in channel 1 (0.2 - 0.2) / 0.1 = 0."""
    x = np.array([255, 51], np.uint8).reshape(1, 2, 1, 1)
    samples = Samples(x, np.zeros(1, np.int64), 2, mean=(0.5, 0.2), std=(0.25, 0.1))
    params = {"weight": np.array([[1, 1], [0, 0]], np.float32), "bias": np.zeros(2, np.float32)}
    assert Softmax().evaluate(params, samples, WORK).loss == pytest.approx(0.126928, abs=1e-5)  # ln(1 + e^-2)


def test_the_variance_of_gradients_worked_by_hand() -> None:
    """Two examples, x = 1 of class 0 and x = -1 of class 0, a batch each, with a step too small to matter.

    p = (1/2, 1/2): gradients (-1/2, 1/2) x of the weight and (-1/2, 1/2) of the bias. Their mean is 0 in
    the weight, so each is 1/2 away there, squared: V = 1/2.
    """
    two = Samples(np.array([[1], [-1]], np.float32), np.zeros(2, np.int64), classes=2)
    work = replace(WORK, epochs=1, batch_size=1, lr=1e-9, variance=True)
    trained = Softmax().train(Softmax().init((1,), 2, 0), two, work, 0, never)
    assert trained.variance == pytest.approx(0.5)
