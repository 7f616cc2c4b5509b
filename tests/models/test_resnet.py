"""ResNet-18's size and stem."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from parslfl.models.resnet import ResNet18
from parslfl.params import size


def test_size_with_the_small_stem() -> None:
    """torchvision's 11,181,642 with 10 classes, its 7x7 stem (9,408) made 3x3 (1,728)."""
    assert size(ResNet18().init((3, 32, 32), 10, seed=0)) == 11_181_642 - 9_408 + 1_728


def test_grey_images_and_no_batch_norm() -> None:
    network = ResNet18().build((1, 8, 8), 3).eval()
    assert not [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    with torch.inference_mode():
        assert network(torch.zeros(2, 1, 8, 8)).shape == (2, 3)


def test_the_stem_keeps_the_size() -> None:
    network = ResNet18().build((3, 32, 32), 10)
    with torch.inference_mode():
        assert network.maxpool(network.conv1(torch.zeros(1, 3, 32, 32))).shape == (1, 64, 32, 32)


def test_groups_must_fit_every_layer() -> None:
    with pytest.raises(ValueError, match="groups must divide 64, got 48"):
        ResNet18(groups=48)
