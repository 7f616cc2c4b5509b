"""Outlines: what is selected from them, without any memory."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from parslfl.models._outline import Outline, Unset

HUGE = 1 << 20


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_what_is_selected_says_which_indices_are_left(device: str) -> None:
    bare = Outline.of(torch.empty(4, 3), device)
    with torch.no_grad():
        rows = torch.index_select(bare, 0, torch.LongTensor([3, 0, 2]).to(bare.device))
        both = torch.index_select(rows, -1, torch.LongTensor([1, 2]))
        last = both[[1, 2]]
    (at, columns) = last.kept((4, 3))
    assert at is not None
    assert columns is not None
    assert (at.tolist(), columns.tolist()) == ([2, 3], [1, 2])
    assert (tuple(last.shape), bare.kept((4, 3))) == ((2, 2), (None, None))
    assert tuple(last.filled().shape) == (2, 2)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_matrix_of_four_terabytes_is_cut(device: str) -> None:
    zero = torch.zeros(()).expand(HUGE, HUGE)
    bare = Outline.of(zero, device)
    with torch.no_grad():
        few = torch.index_select(torch.index_select(bare, 0, torch.tensor([5, 9])), 1, torch.tensor([7]))
    assert few.filled().shape == (2, 1)


def test_networks_compute_with_outlines() -> None:
    layer = nn.Linear(3, 2)
    layer.weight = Outline.of(layer.weight, "cpu")
    made = layer(torch.ones(1, 3))
    assert type(made) is torch.Tensor
    assert made.tolist() == [layer.bias.tolist()]
    assert made.grad_fn is not None


@pytest.mark.parametrize("trained", [True, False])
def test_a_frozen_parameter_stays_so(trained: bool) -> None:
    bare = Outline.of(nn.Parameter(torch.ones(4), requires_grad=trained), "cpu")
    with torch.no_grad():
        cut = nn.Parameter(torch.index_select(bare, 0, torch.tensor([1])))
    filled = cut.filled()
    assert isinstance(filled, nn.Parameter)
    assert filled.requires_grad is trained


def test_only_parameters_stay_unset() -> None:
    with Unset():
        weight = nn.Parameter(torch.full((1, 3), 7.0))
        for fill in (
            nn.init.uniform_,
            nn.init.kaiming_uniform_,
            nn.init.kaiming_normal_,
            nn.init.xavier_normal_,
        ):
            fill(weight)
        other = torch.full((3,), 7.0).uniform_()
    assert weight.tolist() == [[7.0] * 3]
    assert max(other.tolist()) <= 1
