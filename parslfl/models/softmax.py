"""Multinomial logistic regression in numpy: the smallest model that learns, without torch.

Does not know: torch, devices. numpy's own thread count follows OMP_NUM_THREADS.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from parslfl.errors import DataError
from parslfl.learning import Guide, LocalWork, Samples, Scores, Stop, Trained
from parslfl.models.tally import Tally, variance
from parslfl.params import Params
from parslfl.seeding import generator

Floats = npt.NDArray[np.float32]

#: Examples scored at once: 12 MB of CIFAR-10 as float32.
_SCORED = 1000


@dataclass(frozen=True)
class Softmax:
    """`weight` (classes, features) and `bias` (classes,), float32; an example is read flat.

    The loss is convex, so training starts from zero. Its steepest direction grows with the number
    of features: 64 (digits) train well with lr 0.05, 3072 (CIFAR-10) want about 0.002.
    """

    def init(self, shape: tuple[int, ...], classes: int, seed: int) -> Params:
        """Zeros, whatever the seed."""
        return {
            "weight": np.zeros((classes, math.prod(shape)), np.float32),
            "bias": np.zeros(classes, np.float32),
        }

    def train(
        self,
        params: Params,
        samples: Samples,
        work: LocalWork,
        seed: int,
        stop: Stop,
        guide: Guide | None = None,
    ) -> Trained:
        """Mini-batch gradient descent from `params`, with momentum and decay as torch.optim.SGD.

        Raises:
            FloatingPointError: the loss is no longer finite.
        """
        x, guide = _features(samples), guide or Guide()
        new = {name: np.array(array, np.float32) for name, array in params.items()}
        velocity = {name: np.zeros_like(array) for name, array in new.items()}
        tally, spread = Tally(), _Spread()
        anchor = {name: np.array(a, np.float32) for name, a in (guide.anchor or new).items()}
        with np.errstate(over="ignore", invalid="ignore"):  # the tally judges the loss
            for epoch, rows in _batches(len(samples), work, seed):
                if stop():
                    break
                loss, gradients = _loss(new, x[rows], samples.y[rows])
                tally.add(epoch, len(rows), loss)
                if work.variance:
                    spread.add(gradients)
                for name, gradient in gradients.items():
                    if guide.correction:
                        np.add(gradient, guide.correction[name], out=gradient)
                    _step(new[name], gradient, velocity[name], anchor[name], work)
        measured = spread.variance(tally.steps) if work.variance else None
        return tally.trained(dict(new), len(samples), work, measured)

    def evaluate(self, params: Params, samples: Samples, work: LocalWork) -> Scores:
        """Accuracy and mean cross-entropy over `samples`.

        Raises:
            DataError: there are no samples.
        """
        if not len(samples):
            raise DataError("there is no example to score the model on: check the data set's test part")
        weight, bias = (np.asarray(params[name], np.float32) for name in ("weight", "bias"))
        right, loss = 0, 0.0
        for start in range(0, len(samples), _SCORED):
            part = slice(start, start + _SCORED)
            outputs = _features(samples, part) @ weight.T + bias
            right += int((outputs.argmax(axis=1) == samples.y[part]).sum())
            loss -= float(_picked(_log_softmax(outputs), samples.y[part]).sum(dtype=np.float64))
        return Scores(right / len(samples), loss / len(samples), len(samples))


@dataclass
class _Spread:
    """What the gradients' variance follows from: their sum, and the sum of their squared norms."""

    total: dict[str, Floats] = field(default_factory=dict)
    squares: float = 0.0

    def add(self, gradients: dict[str, Floats]) -> None:
        for name, gradient in gradients.items():
            self.squares += float(np.vdot(gradient, gradient))
            self.total[name] = self.total[name] + gradient if name in self.total else gradient.copy()

    def variance(self, steps: int) -> float:
        return variance(self.squares, sum(float(np.vdot(t, t)) for t in self.total.values()), steps)


def _loss(params: dict[str, Floats], x: Floats, y: npt.NDArray[np.int64]) -> tuple[float, dict[str, Floats]]:
    """Mean cross-entropy of a batch, and its gradient for weight and bias."""
    logs = _log_softmax(x @ params["weight"].T + params["bias"])
    errors = np.exp(logs)
    errors[np.arange(len(y)), y] -= 1
    errors /= len(y)
    return -float(_picked(logs, y).mean()), {"weight": errors.T @ x, "bias": errors.sum(axis=0)}


def _step(w: Floats, gradient: Floats, velocity: Floats, anchor: Floats, work: LocalWork) -> None:
    """w -= lr * v with v = momentum * v + gradient + decay * w + mu * (w - anchor), in place."""
    if work.weight_decay:
        gradient += np.float32(work.weight_decay) * w
    if work.proximal:
        gradient += np.float32(work.proximal) * (w - anchor)
    velocity *= np.float32(work.momentum)
    velocity += gradient
    w -= np.float32(work.lr) * velocity


def _batches(examples: int, work: LocalWork, seed: int) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
    """(epoch, rows) of every step; the last batch of an epoch may be smaller."""
    order = generator(seed, "batches")
    for epoch in range(work.epochs):
        rows = order.permutation(examples)
        for start in range(0, examples, work.batch_size):
            yield epoch, rows[start : start + work.batch_size]


def _features(samples: Samples, part: slice = slice(None)) -> Floats:
    """Examples as float32 rows; uint8 images scaled to (x / 255 - mean) / std."""
    x = samples.x[part].astype(np.float32)
    if samples.x.dtype == np.uint8:
        channels = (-1, *[1] * (x.ndim - 2))
        std = np.array(samples.std, np.float32).reshape(channels)
        x *= 1 / (255 * std)
        x -= np.array(samples.mean, np.float32).reshape(channels) / std
    return x.reshape(len(x), -1)


def _log_softmax(outputs: Floats) -> Floats:
    shifted = outputs - outputs.max(axis=1, keepdims=True)
    logs: Floats = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return logs


def _picked(logs: Floats, y: npt.NDArray[np.int64]) -> Floats:
    picked: Floats = logs[np.arange(len(y)), y]
    return picked
