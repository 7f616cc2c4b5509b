"""Counting steps, examples and losses, with numbers worked by hand."""

from __future__ import annotations

import math

import pytest

from parslfl.learning import LocalWork
from parslfl.models.tally import Tally

WORK = LocalWork(epochs=3, batch_size=4)


def test_losses_are_means_over_examples_of_first_and_last_epoch() -> None:
    tally = Tally()
    for epoch, examples, loss in [(0, 4, 1.0), (0, 2, 4.0), (1, 4, 0.5), (1, 2, 0.5), (2, 4, 0.25)]:
        tally.add(epoch, examples, loss)
    trained = tally.trained({}, 6, WORK)
    assert (trained.first_loss, trained.loss) == (2.0, 0.25)  # (4 * 1 + 2 * 4) / 6
    assert (trained.steps, trained.planned_steps, trained.samples) == (5, 6, 6)


def test_no_step_has_no_loss() -> None:
    trained = Tally().trained({}, 6, WORK)
    assert (trained.steps, trained.planned_steps, trained.samples) == (0, 6, 0)
    assert math.isnan(trained.first_loss)
    assert math.isnan(trained.loss)


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_training(loss: float) -> None:
    tally = Tally()
    tally.add(0, 4, 1.0)
    with pytest.raises(FloatingPointError, match=f"loss became {loss} at step 2: lower --lr"):
        tally.add(0, 4, loss)
