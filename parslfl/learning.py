"""What passes between data, model and strategy inside one process.

Those that hold arrays never cross a process border: `messages` has the ones that do.

Does not know: rounds, clients, sites.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from parslfl.params import Params
from parslfl.submodel import Kept


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
    `start_loss`: score the global model on the client's samples first (one pass more). `variance`:
    measure that of the gradients (see `Trained`). `held_out`: share of the samples kept from training.
    `keep`: share of each hidden layer's units that is trained, in a smaller model (federated dropout).
    """

    epochs: int = 5
    batch_size: int = 32
    lr: float = 0.05
    momentum: float = 0.0
    weight_decay: float = 0.0
    proximal: float = 0.0
    device: str = "auto"
    threads: int = 1
    start_loss: bool = False
    variance: bool = False
    held_out: float = 0.0
    keep: float = 1.0


@dataclass(frozen=True)
class Guide:
    """Arrays that steer local training. `correction` is added to every gradient (SCAFFOLD's c - c_i);
    `anchor` is where the proximal term pulls to. Empty: no correction; the model that training began with.
    """

    correction: Params = field(default_factory=dict)
    anchor: Params = field(default_factory=dict)


@dataclass(frozen=True)
class Trained:
    """What local training made.

    `params`: the new model, which becomes the update in place: arrays that a model needs again
    itself must be copies, or read-only.
    `samples`: examples seen at least once; `steps` of `planned_steps` done, fewer when `stop`
    said so. `loss`: mean training loss of the last epoch, `first_loss` of the first. `variance`, where
    asked for: mean squared distance of the batches' gradients from their mean, over all steps.
    `kept`: which part of the model `params` are, where that is not all of it.
    """

    params: Params
    samples: int
    steps: int
    planned_steps: int
    first_loss: float
    loss: float
    variance: float | None = None
    kept: Kept = field(default_factory=dict)


@dataclass(frozen=True)
class Scores:
    """Evaluation of one model: `accuracy` in [0, 1], mean `loss`, over `samples` examples."""

    accuracy: float
    loss: float
    samples: int


@dataclass(frozen=True)
class Personal:
    """A client's own model beside the global one, on `samples` examples that neither was trained on there:
    accuracies in [0, 1]."""

    accuracy: float
    global_accuracy: float
    samples: int


@dataclass(frozen=True)
class Visit:
    """One client's round once it has trained: what a strategy needs to say what the client keeps.

    `start`: the global model. `shared`: the strategy's state as the driver sent it. `kept`: what the
    client kept before. `delta`: its update as the driver decodes it. `train(params, work, guide)` trains
    once more on the client's samples; `score` scores a model on those held out, None without any.
    """

    start: Params
    shared: Params
    kept: Params
    delta: Params
    steps: int
    work: LocalWork
    train: Callable[[Params, LocalWork, Guide], Trained]
    score: Callable[[Params], Scores | None]


@dataclass(frozen=True)
class Evidence:
    """What the driver knows of an update when it decides how much it counts.

    The client's word: `samples` it has seen, `examples` it has (at least as many; more, where it was
    stopped within its first epoch), `steps`, its losses (of the first and last epoch, and of the global
    model before training), `variance`, and whether it began `afresh`, having lost what it had kept for the
    strategy. The driver's own: `work`, what it had asked for, and `norm`, the
    L2 norm of the decoded update.
    """

    samples: int
    steps: int
    work: LocalWork
    norm: float
    first_loss: float = math.nan
    loss: float = math.nan
    start_loss: float | None = None
    variance: float | None = None
    examples: int = 0
    afresh: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "examples", max(self.examples, self.samples))


@dataclass(frozen=True)
class Cohort:
    """The accepted updates of a round, in cohort order, among `clients` in the federation.

    `extra`: the means for the strategy's second and further scales (see `protocols.Scaled`). `room`: where a
    next state would take too much memory, arrays like the state's in a file, which hold anything: a strategy
    may fill them all and return them as the next state. Else {}.
    """

    evidence: tuple[Evidence, ...]
    clients: int
    extra: tuple[Params, ...] = ()
    room: Params = field(default_factory=dict)


#: Asked between batches: True means stop here and hand in what is done.
Stop = Callable[[], bool]


class Team(Protocol):
    """Processes that train one model on one client's examples; each does the same steps on its share."""

    @property
    def rank(self) -> int: ...
    @property
    def size(self) -> int: ...
    def add_up(self, values: npt.NDArray[np.float32]) -> None:
        """Replace `values` (contiguous) by their sum over all members."""
        ...

    def agree(self, stop: Stop) -> bool:
        """Whether all stop here; the same answer for every member."""
        ...
