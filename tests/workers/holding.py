"""A model, and a task, that hold until they are let go; workers import them from here.

Does not know: which client it trains, only the seed of its task.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from parslfl.learning import LocalWork, Samples, Scores, Stop, Trained
from parslfl.models.softmax import Softmax
from parslfl.params import Params


@dataclass(frozen=True)
class Holding:
    """Softmax; a task whose seed is in `seeds` leaves its mark in `folder` and waits for a second one,
    `let_go`. Where its mark is there already, as when it is tried again, it does not wait.
    """

    seeds: tuple[int, ...]
    folder: str

    def init(self, shape: tuple[int, ...], classes: int, seed: int) -> Params:
        return Softmax().init(shape, classes, seed)

    def train(self, params: Params, samples: Samples, work: LocalWork, seed: int, stop: Stop) -> Trained:
        mark = Path(self.folder, str(seed))
        if seed in self.seeds and not mark.exists():
            mark.touch()
            while not stop() and not let_go(mark).exists():
                time.sleep(0.05)
        return Softmax().train(params, samples, work, seed, stop)

    def evaluate(self, params: Params, samples: Samples, work: LocalWork) -> Scores:
        return Softmax().evaluate(params, samples, work)


def let_go(mark: Path) -> Path:
    """The file that ends the waiting of the task that left `mark`."""
    return mark.with_suffix(".go")


def stay(path: str) -> None:
    """A task that ends once the file `path` is there."""
    while not Path(path).exists():
        time.sleep(0.05)
