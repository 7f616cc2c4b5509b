"""A small convolutional network, made for a CPU core.

Does not know: how it is trained.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from parslfl.models.torch_model import TorchModel

if TYPE_CHECKING:
    from torch import nn

#: Smaller images than this keep their size in the stem.
_SMALL = 16


@dataclass(frozen=True)
class Cnn(TorchModel):
    """Two convolutions and two linear layers, as in McMahan et al. 2017, cut to a CPU's budget.

    0.17 M parameters for (3, 32, 32) and 10 classes; images from 8 x 8 up, of any number of
    channels. The stem has a stride and pooling comes before norm and ReLU, so that little is
    computed at full size; each norm is over `groups` groups of the `width` channels, because
    batch statistics of different clients do not average (Wu and He 2018).
    """

    width: int = 64
    hidden: int = 128
    groups: int = 8

    def __post_init__(self) -> None:
        if min(self.width, self.hidden, self.groups) < 1 or self.width % self.groups:
            raise ValueError("width, hidden and groups must be positive, and groups must divide width")

    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        """See `TorchModel.build`; `shape` is (channels, height, width)."""
        from torch import nn

        if len(shape) != 3 or min(shape[1:]) < 8:
            raise ValueError(f"cnn wants images of at least 8 x 8, not examples of shape {shape}")
        channels, height, width = shape
        kernel, stride = (3, 1) if min(height, width) < _SMALL else (4, 2)
        left = (height // (4 * stride)) * (width // (4 * stride))  # two poolings follow
        layers: dict[str, nn.Module] = {
            "stem": nn.Conv2d(channels, self.width, kernel, stride, padding=1),
            **self._shrink("stem"),
            "conv": nn.Conv2d(self.width, self.width, 3, padding=1),
            **self._shrink("conv"),
            "flat": nn.Flatten(),
            "hidden": nn.Linear(self.width * left, self.hidden),
            "hidden_relu": nn.ReLU(inplace=True),
            "output": nn.Linear(self.hidden, classes),
        }
        return nn.Sequential(OrderedDict(layers))

    def _shrink(self, layer: str) -> dict[str, nn.Module]:
        from torch import nn

        return {
            f"{layer}_pool": nn.MaxPool2d(2),
            f"{layer}_norm": nn.GroupNorm(self.groups, self.width),
            f"{layer}_relu": nn.ReLU(inplace=True),
        }
