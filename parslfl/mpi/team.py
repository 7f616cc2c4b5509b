"""One large client trained by all ranks at once: each takes its share of every batch, gradients are added.

Every rank holds the client's examples and the whole model. A batch's rows are dealt out to the ranks in
turn; the gradient is the mean over the batch, so the result is that of one process up to rounding.
A layer that looks at its batch as a whole (batch normalisation) sees its rank's share only.

Does not know: which clients there are, or how an update is sent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from parslfl.errors import RunError
from parslfl.learning import Guide, LocalWork, Samples, Scores, Stop, Trained
from parslfl.messages import Failure, Outcome
from parslfl.models.torch_model import TorchModel
from parslfl.params import Params


@dataclass(frozen=True)
class Ranks:
    """The ranks of `comm`, as `learning.Team`. Rank 0 alone says when to stop."""

    comm: Any

    @property
    def rank(self) -> int:
        return int(self.comm.rank)

    @property
    def size(self) -> int:
        return int(self.comm.size)

    def add_up(self, values: npt.NDArray[np.float32]) -> None:
        from mpi4py import MPI

        self.comm.Allreduce(MPI.IN_PLACE, values)

    def agree(self, stop: Stop) -> bool:
        return bool(self.comm.bcast(stop() if self.rank == 0 else None))


@dataclass(frozen=True, eq=False)
class Together:
    """`model`, trained by all ranks of `comm` until `stop`."""

    model: TorchModel
    comm: Any
    stop: Stop

    def init(self, shape: tuple[int, ...], classes: int, seed: int) -> Params:
        return self.model.init(shape, classes, seed)

    def train(
        self,
        params: Params,
        samples: Samples,
        work: LocalWork,
        seed: int,
        stop: Stop,
        guide: Guide | None = None,
    ) -> Trained:
        """Train as `_torch.train` does, all ranks as one; `stop` is not asked, since ranks might differ."""
        from parslfl.models import _torch

        return _torch.train(self.model, params, samples, work, seed, self.stop, guide, Ranks(self.comm))

    def evaluate(self, params: Params, samples: Samples, work: LocalWork) -> Scores:
        return self.model.evaluate(params, samples, work)


def require_same(outcome: Outcome) -> Outcome:
    """`outcome`, if all ranks are sure to have it: else the others wait for this one for ever.

    Raises:
        RunError: this rank failed by itself. A diverged loss is everybody's.
    """
    if not isinstance(outcome, Failure) or outcome.kind != "error":
        return outcome
    if outcome.reason.startswith(FloatingPointError.__name__):
        return outcome
    raise RunError(f"{outcome.client}: {outcome.reason}")
