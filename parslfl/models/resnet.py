"""ResNet-18 for small images, with group norm in place of batch norm.

Does not know: how it is trained.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from parslfl.models.torch_model import TorchModel
from parslfl.vision import load_torchvision

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class ResNet18(TorchModel):
    """He et al. 2016 with the CIFAR stem of its section 4.2: 3x3, stride 1, no pooling.

    11.2 M parameters for (3, 32, 32) and 10 classes; images from 8 x 8 up, of any number of
    channels. Batch statistics of different clients do not average, so each norm is over `groups`
    groups of channels (Wu and He 2018; Hsieh et al. 2020, section 5).
    """

    groups: int = 32

    def __post_init__(self) -> None:
        if self.groups < 1 or 64 % self.groups:
            raise ValueError(f"groups must divide 64, got {self.groups}")

    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        load_torchvision()
        from torch import nn
        from torchvision.models import resnet18

        network: nn.Module = resnet18(num_classes=classes, norm_layer=partial(nn.GroupNorm, self.groups))
        stem = nn.Conv2d(shape[0], 64, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(stem.weight, mode="fan_out", nonlinearity="relu")
        network.conv1, network.maxpool = stem, nn.Identity()
        return network
