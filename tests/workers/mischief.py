"""A model that misbehaves on chosen tasks; workers import it from here.

Does not know: which client it trains, only the seed of its task.
"""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from parslfl.learning import LocalWork, Samples, Scores, Stop, Trained
from parslfl.models.softmax import Softmax
from parslfl.params import Params


@dataclass(frozen=True)
class Mischief:
    """Softmax, but tasks whose seed is in `seeds` do `act`: raise, die, die-once, hang-once, sleep, deaf
    (sleep that nothing stops), dawdle (`seconds` a step); or return what they should not: nan, missing,
    reshape, integer, turn (their update `seconds` times the other way). `blind` and `doze` are for
    evaluation.
    """

    act: str
    seeds: tuple[int, ...]
    mark: str = ""
    seconds: float = 0.0

    def init(self, shape: tuple[int, ...], classes: int, seed: int) -> Params:
        return Softmax().init(shape, classes, seed)

    def train(self, params: Params, samples: Samples, work: LocalWork, seed: int, stop: Stop) -> Trained:
        if seed in self.seeds:
            self._act(stop)
            stop = partial(self._dawdling, stop) if self.act == "dawdle" else stop
        made = Softmax().train(params, samples, replace(work, variance=False), seed, stop)
        if self.act == "turn" and seed in self.seeds:
            lie = {n: params[n] - np.float32(self.seconds) * (a - params[n]) for n, a in made.params.items()}
            return replace(made, params=lie)
        return replace(made, params=self._spoilt(made.params)) if seed in self.seeds else made

    def evaluate(self, params: Params, samples: Samples, work: LocalWork) -> Scores:
        if self.act == "blind":
            raise RuntimeError("no glasses")
        if self.act == "doze":
            time.sleep(self.seconds)
        return Softmax().evaluate(params, samples, work)

    def _dawdling(self, stop: Stop) -> bool:
        time.sleep(self.seconds)
        return stop()

    def _spoilt(self, params: Params) -> Params:
        name, array = next(iter(params.items()))
        other = {
            "nan": np.full_like(array, np.nan),
            "reshape": array.reshape(1, -1),
            "integer": array.astype(np.int64),
        }
        if self.act == "missing":
            return {key: value for key, value in params.items() if key != name}
        return {**params, name: other.get(self.act, array)}

    def _act(self, stop: Stop) -> None:
        if self.act == "raise":
            raise RuntimeError("the disk is on fire")
        if self.act == "die" or (self.act == "die-once" and not Path(self.mark).exists()):
            Path(self.mark).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if self.act == "deaf":
            time.sleep(self.seconds)
        if self.act == "sleep" or (self.act == "hang-once" and not Path(self.mark).exists()):
            if self.mark:
                Path(self.mark).touch()
            until = time.time() + self.seconds
            while time.time() < until and not stop():
                time.sleep(0.05)
