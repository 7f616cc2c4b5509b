"""A network whose steps take a time that is known; workers import it from here.

Does not know: which client it trains, only the SECONDS_A_STEP of its site.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

from parslfl.learning import Guide, LocalWork, Samples, Stop, Trained
from parslfl.models.cnn import Cnn
from parslfl.params import Params


@dataclass(frozen=True)
class Plodding(Cnn):
    """A `Cnn` that takes as long as the whole model would on its site's machine, times the square of the
    units that it keeps."""

    def train(
        self,
        params: Params,
        samples: Samples,
        work: LocalWork,
        seed: int,
        stop: Stop,
        guide: Guide | None = None,
    ) -> Trained:
        pause = float(os.environ["SECONDS_A_STEP"]) * work.keep**2

        def tired() -> bool:
            time.sleep(pause)
            return stop()

        return super().train(params, samples, work, seed, tired, guide)
