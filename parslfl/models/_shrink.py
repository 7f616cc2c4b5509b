"""Smaller networks for federated dropout: fewer channels and units, truly built so.

torch-pruning finds out which layers depend on each other, so no architecture has rules here. Each
parameter of a template holds the numbers of its own elements, 0 to n-1; what is left in the pruned
template says which elements those are.

Does not know: training, or what becomes of the sub-model's update.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Hashable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import torch
import torch_pruning
from torch import nn

from parslfl.seeding import generator
from parslfl.submodel import Indices, Kept

#: float32 holds whole numbers exactly up to here.
_EXACT = 1 << 24


class Builder(Hashable, Protocol):
    """Makes a module."""

    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module: ...


@dataclass(frozen=True)
class _Part:
    """A layer by its name, its `units`, and the number of equal runs of units that must stay equal."""

    layer: str
    units: int
    runs: int


def shrink(
    builder: Builder, shape: tuple[int, ...], classes: int, keep: float, seed: int
) -> tuple[nn.Module, Kept]:
    """A module with about `keep` of the units of every hidden layer, drawn from `seed`, and what it kept.

    Its weights mean nothing yet. Units of a layer with group norm are kept in equal numbers from
    each group. Equal arguments keep the same units.

    Raises:
        ValueError: the network has no hidden layer that can be made smaller.
    """
    numbered = _template(builder, shape, classes)
    network = copy.deepcopy(numbered)
    draw = generator(seed, "submodel")
    example = torch.zeros(1, *shape, dtype=_dtype(network))
    graph = torch_pruning.DependencyGraph().build_dependency(network, example_inputs=example)
    layers = dict(network.named_modules())
    for part in _parts(builder, shape, classes):
        each = part.units // part.runs
        stay = max(1, round(keep * each))
        chosen = [run * each + draw.choice(each, each - stay, replace=False) for run in range(part.runs)]
        dropped = sorted(np.concatenate(chosen).tolist())
        if dropped:
            layer = layers[part.layer]
            prune = graph.get_pruner_of_module(layer).prune_out_channels
            graph.get_pruning_group(layer, prune, dropped).prune()
    full = {name: tuple(array.shape) for name, array in numbered.state_dict().items()}
    left = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    kept = {name: _kept(array, full[name]) for name, array in left.items() if array.shape != full[name]}
    return network.float(), kept


@lru_cache(maxsize=2)
def _template(builder: Builder, shape: tuple[int, ...], classes: int) -> nn.Module:
    """A module whose every array holds 0, 1, 2, ..."""
    network = builder.build(shape, classes).eval()
    largest = max(tensor.numel() for tensor in network.state_dict().values())
    network = network if largest <= _EXACT else network.double()
    with torch.no_grad():
        for tensor in network.state_dict().values():
            tensor.copy_(torch.arange(tensor.numel(), dtype=torch.float64).view(tensor.shape))
    return network


@lru_cache(maxsize=2)
def _parts(builder: Builder, shape: tuple[int, ...], classes: int) -> tuple[_Part, ...]:
    """The layers whose units are chosen: one of each set of layers that must agree."""
    network = copy.deepcopy(_template(builder, shape, classes))
    example = torch.zeros(1, *shape, dtype=_dtype(network))
    names = {module: name for name, module in network.named_modules()}
    graph = torch_pruning.DependencyGraph().build_dependency(network, example_inputs=example)
    groups = graph.get_all_groups(
        ignored_layers=[_last(network, example)], root_module_types=[nn.Conv2d, nn.Linear]
    )
    parts = tuple(_part(group, names) for group in groups)
    if not parts:
        raise ValueError(f"{builder} has no hidden layer that can be made smaller for federated dropout")
    return parts


def _part(group: Any, names: dict[nn.Module, str]) -> _Part:
    root = group[0].dep.target.module
    units = len(group[0].idxs)
    members = [item.dep.target.module for item in group]
    norms = [m.num_groups for m in members if isinstance(m, nn.GroupNorm)]
    split = [m.groups for m in members if isinstance(m, nn.Conv2d)]
    return _Part(names[root], units, math.lcm(*norms, *split))


def _last(network: nn.Module, example: torch.Tensor) -> nn.Module:
    """The layer that is computed last: its units are the classes."""
    called: list[nn.Module] = []
    hooks = [
        module.register_forward_hook(lambda module, _args, _out: called.append(module))
        for module in network.modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    ]
    with torch.inference_mode():
        network(example)
    for hook in hooks:
        hook.remove()
    return called[-1]


def _kept(numbers: np.ndarray[Any, Any], full: tuple[int, ...]) -> tuple[Indices | None, ...]:
    """For each dimension of an array of shape `full`, the indices in which the elements `numbers` lie."""
    steps = [math.prod(full[dim + 1 :]) for dim in range(len(full))]
    dims = [_along(numbers, dim) // step % n for dim, (n, step) in enumerate(zip(full, steps, strict=True))]
    grid = np.ix_(*(at.astype(numbers.dtype) for at in dims))
    if not np.array_equal(sum(at * step for at, step in zip(grid, steps, strict=True)), numbers):
        raise ValueError("what was kept of an array is no outer product of its dimensions")
    return tuple(None if len(at) == n else at for at, n in zip(dims, full, strict=True))


def _along(numbers: np.ndarray[Any, Any], dim: int) -> Indices:
    first = tuple(slice(None) if axis == dim else 0 for axis in range(numbers.ndim))
    return numbers[first].astype(np.int64)


def _dtype(network: nn.Module) -> torch.dtype:
    return next(network.parameters()).dtype
