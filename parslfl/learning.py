"""What passes between data, model and strategy inside one worker.

These values never cross a process border: `messages` holds the ones that do.

Does not know: rounds, clients, sites.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from parslfl.params import Params


@dataclass(frozen=True)
class Samples:
    """Examples and their labels.

    `x`: uint8 (n, channels, height, width) for images; the model scales it to [0, 1] and then
    by `mean` and `std` (one float a channel). `y`: int64 (n,), each in [0, classes).
    """

    x: npt.NDArray[np.generic]
    y: npt.NDArray[np.int64]
    classes: int
    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.5,)

    def __len__(self) -> int:
        return len(self.y)


@dataclass(frozen=True)
class LocalWork:
    """How a client trains: `epochs` passes of stochastic gradient descent over its samples.

    `proximal` is FedProx's mu: adds mu/2 * ||w - w_global||^2 to the loss (0 turns it off).
    `device` is `auto`, `cpu`, `cuda`, `cuda:1`, `mps`; `threads` bounds the CPU threads used.
    """

    epochs: int = 5
    batch_size: int = 32
    lr: float = 0.05
    momentum: float = 0.0
    weight_decay: float = 0.0
    proximal: float = 0.0
    device: str = "auto"
    threads: int = 1


@dataclass(frozen=True)
class Trained:
    """What local training made.

    `params`: the new model, which becomes the update in place: arrays that a model needs again
    itself must be copies, or read-only.
    `samples`: examples seen at least once; `steps` of `planned_steps` done, fewer when `stop`
    said so. `loss`: mean training loss of the last epoch, `first_loss` of the first.
    """

    params: Params
    samples: int
    steps: int
    planned_steps: int
    first_loss: float
    loss: float


@dataclass(frozen=True)
class Scores:
    """Evaluation of one model: `accuracy` in [0, 1], mean `loss`, over `samples` examples."""

    accuracy: float
    loss: float
    samples: int


#: Asked between batches: True means stop here and hand in what is done.
Stop = Callable[[], bool]
