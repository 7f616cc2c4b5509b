"""Counts what local training did, batch by batch.

Does not know: how a batch is trained.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from parslfl.learning import LocalWork, Trained
from parslfl.params import Params


@dataclass
class Tally:
    """Steps, and each epoch's examples and summed loss; filled by `add` in order of training."""

    steps: int = 0
    seen: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    def add(self, epoch: int, examples: int, loss: float) -> None:
        """One more step, on `examples` examples of mean `loss`.

        Raises:
            FloatingPointError: `loss` is not finite; training on would only spread it.
        """
        self.steps += 1
        if not math.isfinite(loss):
            raise FloatingPointError(f"loss became {loss} at step {self.steps}: lower --lr")
        if epoch == len(self.seen):
            self.seen.append(0)
            self.losses.append(0.0)
        self.seen[epoch] += examples
        self.losses[epoch] += examples * loss

    def trained(
        self, params: Params, samples: int, work: LocalWork, variance: float | None = None
    ) -> Trained:
        """The result of training on `samples` examples; its losses are nan without a step."""
        return Trained(
            params=params,
            samples=self.seen[0] if self.seen else 0,
            steps=self.steps,
            planned_steps=work.epochs * math.ceil(samples / work.batch_size),
            first_loss=_mean(self.losses[:1], self.seen[:1]),
            loss=_mean(self.losses[-1:], self.seen[-1:]),
            variance=variance,
        )


def variance(squares: float, square_of_sum: float, steps: int) -> float:
    """Mean squared distance of `steps` gradients from their mean: from the sum of their squared norms,
    and the squared norm of their sum. 0 without a step."""
    return max(0.0, squares / steps - square_of_sum / steps**2) if steps else 0.0


def _mean(losses: Sequence[float], seen: Sequence[int]) -> float:
    return sum(losses) / sum(seen) if seen else math.nan
