"""A model that is a torch module: give `build`, get the rest.

Does not know: torch; `_torch` does, and is loaded when a model is first used.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

from parslfl.learning import Guide, LocalWork, Samples, Scores, Stop, Trained
from parslfl.params import Params

if TYPE_CHECKING:
    from torch import nn


class TorchModel(ABC):
    """Trained by stochastic gradient descent on the cross-entropy of its module's outputs.

    Subclasses are frozen dataclasses: they must be hashable, because a worker keeps the module
    of each one that it has met.
    """

    #: Clients may train a part of it, in a smaller module: see `LocalWork.keep`.
    shrinks: ClassVar[bool] = True

    @abstractmethod
    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        """A fresh module from (n, *shape) to (n, classes), on the CPU; import torch inside.

        All that it learns must be in its `state_dict`: whatever else it keeps would leak from one
        client to the next.
        """

    def init(self, shape: tuple[int, ...], classes: int, seed: int) -> Params:
        """Fresh parameters, float32, in the order of the module's `state_dict`."""
        from parslfl.models import _torch

        return _torch.init(self, shape, classes, seed)

    def train(
        self,
        params: Params,
        samples: Samples,
        work: LocalWork,
        seed: int,
        stop: Stop,
        guide: Guide | None = None,
    ) -> Trained:
        """Train from `params`; see `_torch.train`."""
        from parslfl.models import _torch

        return _torch.train(self, params, samples, work, seed, stop, guide)

    def evaluate(self, params: Params, samples: Samples, work: LocalWork) -> Scores:
        """Accuracy and mean loss; see `_torch.evaluate`."""
        from parslfl.models import _torch

        return _torch.evaluate(self, params, samples, work)
