"""Smaller networks for federated dropout: fewer channels and units, truly built so.

torch-pruning finds out which layers depend on each other and cuts them, so no architecture has rules
here. What it cuts are outlines: arrays without elements. A network of full size is never in memory.

Does not know: training, or what becomes of the sub-model's update.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Protocol

import numpy as np
import torch
import torch_pruning
from torch import nn

from parslfl.models._device import _seeded
from parslfl.models._outline import Outline, Unset
from parslfl.seeding import generator
from parslfl.submodel import Kept

#: Bytes of an array from which networks are followed on the device "meta". A CPU lays out a layer's weights
#: to compute with them, however they are seen: 113 MB for ResNet-18, whose largest array has 9.4 MB. "meta"
#: takes 47 MB, most of it modules that torch imports for it; a small network takes 2 MB on a CPU.
_LARGE = 1 << 22


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
    network, graph = _traced(builder, shape, classes)
    draw = generator(seed, "submodel")
    layers = dict(network.named_modules())
    for part in _parts(builder, shape, classes):
        each = part.units // part.runs
        stay = max(1, round(keep * each))
        chosen = [run * each + draw.choice(each, each - stay, replace=False) for run in range(part.runs)]
        dropped = sorted(np.concatenate(chosen).tolist())
        if dropped:
            layer = layers[part.layer]
            prune = graph.get_pruner_of_module(layer).prune_out_channels
            with torch.no_grad():
                graph.get_pruning_group(layer, prune, dropped).prune()
    full, left = _arrays(_outlined(builder, shape, classes)), _arrays(network)
    kept = {name: left[name].kept(full[name].shape) for name in left if left[name].shape != full[name].shape}
    # a copy: the graph, and what is in it, stays until Python looks for cycles
    return _exchanged(network, lambda array: array.filled()), kept


def _traced(builder: Builder, shape: tuple[int, ...], classes: int) -> tuple[nn.Module, Any]:
    """A network of outlines, and its torch-pruning graph of what depends on what."""
    network = _exchanged(_outlined(builder, shape, classes), lambda array: array)
    graph = torch_pruning.DependencyGraph()
    return network, graph.build_dependency(network, example_inputs=(_example(network, shape),))


@lru_cache(maxsize=2)
def _outlined(builder: Builder, shape: tuple[int, ...], classes: int) -> nn.Module:
    """The whole network, with an outline of every array of its state."""
    with _seeded(0, torch.device("cpu")), Unset():
        network = builder.build(shape, classes).eval()
    large = max(array.nbytes for array in _arrays(network).values()) > _LARGE
    bare = _exchanged(network, partial(Outline.of, device="meta"))
    device = "meta" if large and _passes(bare, shape) else "cpu"
    return _exchanged(network, partial(Outline.of, device=device))


def _passes(network: nn.Module, shape: tuple[int, ...]) -> bool:
    """Whether `network` can be followed on the device "meta", where nothing is computed.

    Recurrent layers are taken apart there: torch-pruning would not know them.
    """
    try:
        network(_example(network, shape))
    except Exception:  # noqa: BLE001 - it looks at values, or has others beside its state
        return False
    return not any(isinstance(module, nn.RNNBase) for module in network.modules())


def _exchanged(network: nn.Module, other: Callable[[Any], torch.Tensor]) -> nn.Module:
    """A copy of `network` that has what `other` makes of each array of its state in that array's place."""
    arrays = {id(array): array for array in _arrays(network).values()}
    return copy.deepcopy(network, {key: other(array) for key, array in arrays.items()})


def _arrays(network: nn.Module) -> dict[str, Any]:
    """The arrays of its state, themselves."""
    return dict(network.state_dict(keep_vars=True))


@lru_cache(maxsize=2)
def _parts(builder: Builder, shape: tuple[int, ...], classes: int) -> tuple[_Part, ...]:
    """The layers whose units are chosen: one of each set of layers that must agree."""
    network, graph = _traced(builder, shape, classes)
    names = {module: name for name, module in network.named_modules()}
    groups = graph.get_all_groups(
        ignored_layers=[_last(network, _example(network, shape))], root_module_types=[nn.Conv2d, nn.Linear]
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
    network(example)
    for hook in hooks:
        hook.remove()
    return called[-1]


def _example(network: nn.Module, shape: tuple[int, ...]) -> torch.Tensor:
    weight = next(network.parameters())
    return torch.zeros(1, *shape, dtype=weight.dtype, device=weight.device)
