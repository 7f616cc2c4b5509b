"""A model whose training can be worked by hand; ranks and workers import it from here.

Does not know: which client it trains, only its examples.
"""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from parslfl.learning import LocalWork, Samples, Scores, Stop, Trained
from parslfl.params import Params


@dataclass(frozen=True)
class Counting:
    """Adds (n, 1, 0.1) to three weights on n examples after `seconds`, and prints where it may not.

    The process that trains with the seed `victim` kills itself, once: if the file `mark` is not there yet.
    """

    mark: str = ""
    seconds: float = 0.0
    victim: int = -1

    def init(self, shape: tuple[int, ...], classes: int, seed: int) -> Params:
        return {"w": np.zeros(3, np.float32), "h": np.zeros(1, np.float16), "n": np.array([7])}

    def train(self, params: Params, samples: Samples, work: LocalWork, seed: int, stop: Stop) -> Trained:
        print("a model may print")  # noqa: T201
        if seed == self.victim and not Path(self.mark).exists():
            Path(self.mark).write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGKILL)
        until = time.time() + self.seconds
        while time.time() < until and not stop():
            time.sleep(0.05)
        n = len(samples)
        new = {
            "w": params["w"] + np.array([n, 1, 0.1], np.float32),
            "h": params["h"] + np.float16(1),
            "n": params["n"].copy(),
        }
        return Trained(new, n, 1, 1, 2.0, 1.0)

    def evaluate(self, params: Params, samples: Samples, work: LocalWork) -> Scores:
        return Scores(0.5, 1.0, len(samples))
