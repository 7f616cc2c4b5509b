"""The smallest torch model; ranks and workers import it from here.

Does not know: who trains it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from parslfl.models.torch_model import TorchModel

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Linear(TorchModel):
    """One layer over the flattened example."""

    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        import math

        from torch import nn

        return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), classes))
