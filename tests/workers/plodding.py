"""A model whose steps take a time that is known, and whose updates do too; workers import it from here.

Does not know: which client it trains, only the SECONDS_A_STEP of its site.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from parslfl.learning import LocalWork, Samples, Scores, Stop, Trained
from parslfl.params import Params
from parslfl.seeding import generator
from parslfl.submodel import Indices, take

UNITS, STEPS = 64, 7
#: From here on a step is slow.
SLOW = 0.5


@dataclass(frozen=True)
class Plodding:
    """A layer of UNITS numbers. Training adds 1 to those that it keeps, at slow sites 5; a step takes its
    site's time by the square of the share kept, as that of a layer between two layers does."""

    shrinks: ClassVar[bool] = True

    def init(self, shape: tuple[int, ...], classes: int, seed: int) -> Params:
        return {"w": np.zeros(UNITS, np.float32)}

    def train(self, params: Params, samples: Samples, work: LocalWork, seed: int, stop: Stop) -> Trained:
        kept = {"w": (units(seed, work.keep),)} if work.keep < 1 else {}
        pace, done = float(os.environ["SECONDS_A_STEP"]), 0
        while done < STEPS and not stop():
            time.sleep(pace * work.keep**2)
            done += 1
        made = take(params, kept)["w"] + np.float32(5 if pace >= SLOW else 1)
        return Trained({"w": made}, len(samples), done, STEPS, 1.0, 1.0, kept=kept)

    def evaluate(self, params: Params, samples: Samples, work: LocalWork) -> Scores:
        return Scores(0.5, 1.0, len(samples))


def units(seed: int, keep: float) -> Indices:
    """Which units the task with `seed` trains, ascending."""
    return np.sort(generator(seed, "units").permutation(UNITS)[: round(UNITS * keep)])
