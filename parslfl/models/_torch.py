"""The one place that trains with torch.

A worker keeps the module of each model it has met and only overwrites its parameters, so that a
task builds nothing. Momentum, order of batches and random numbers start afresh in every task:
equal inputs give equal bits on one CPU thread, whatever was trained before.

Does not know: which architecture it trains, federated learning beyond FedProx's term, or codecs.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Protocol

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from parslfl.errors import DataError
from parslfl.learning import Guide, LocalWork, Samples, Scores, Stop, Team, Trained
from parslfl.models._device import _prepare, _seeded
from parslfl.models._team import pool
from parslfl.models.tally import Tally, variance
from parslfl.params import Params
from parslfl.submodel import Kept, take

#: Examples scored at once: the outputs of early layers then still fit a core's share of L3.
_SCORED = 500


class Builder(Hashable, Protocol):
    """Makes a module. Hashable, and equal only to builders of equal modules."""

    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module: ...


def init(builder: Builder, shape: tuple[int, ...], classes: int, seed: int) -> Params:
    """The parameters of a fresh module, drawn from `seed`."""
    with _seeded(seed, torch.device("cpu")):
        return _arrays(builder.build(shape, classes))


def train(
    builder: Builder,
    params: Params,
    samples: Samples,
    work: LocalWork,
    seed: int,
    stop: Stop,
    guide: Guide | None = None,
    team: Team | None = None,
) -> Trained:
    """Stochastic gradient descent from `params`, which stay as they are.

    With a `team`, each member trains on its share of every batch, to the same result.

    The returned arrays are the kept module's own memory (on a CPU): valid until this thread
    trains the same kind of model again.

    Raises:
        FloatingPointError: the loss is no longer finite.
        ConfigError: the device that `work` asks for is not there.
        ValueError: `params` are not those of this model.
    """
    device = _prepare(work)
    network, kept = _to_train(builder, samples, work.keep, seed, device)
    _load(network, take(params, kept))
    network.train()
    tally, spread = Tally(), _Spread() if work.variance else None
    with _seeded(seed, device):
        if work.epochs:
            steering = _steering(network, work, guide, device)
            _descend(network, samples, work, seed, stop, steering, tally, spread, team)
    network.zero_grad(set_to_none=True)
    measured = spread.variance(tally.steps) if spread else None
    return replace(tally.trained(_arrays(network), len(samples), work, measured), kept=kept)


def _to_train(
    builder: Builder, samples: Samples, keep: float, seed: int, device: torch.device
) -> tuple[nn.Module, Kept]:
    """The module to train, and which part of the model it is: a smaller one for federated dropout."""
    shape = samples.x.shape[1:]
    if keep < 1:
        from parslfl.models._shrink import shrink

        network, kept = shrink(builder, shape, samples.classes, keep, seed)
        return network.to(device), kept
    return _network(_Place(builder, shape, samples.classes, device, "train")), {}


def evaluate(builder: Builder, params: Params, samples: Samples, work: LocalWork) -> Scores:
    """Accuracy and mean cross-entropy over `samples`.

    Raises:
        DataError: there are no samples.
        ConfigError, ValueError: as in `train`.
    """
    if not len(samples):
        raise DataError("there is no example to score the model on: check the data set's test part")
    device = _prepare(work)
    place = _Place(builder, samples.x.shape[1:], samples.classes, device, "evaluate")
    network = _network(place)  # not the one that trains: its arrays may still be in use
    _load(network, params)
    network.eval()
    right, loss = 0, 0.0
    for start in range(0, len(samples), _SCORED):
        part = slice(start, start + _SCORED)
        x, y = _tensors(replace(samples, x=samples.x[part], y=samples.y[part]), device)
        with torch.inference_mode():
            outputs = network(x)
            right += int((outputs.argmax(1) == y).sum())
            loss += float(cross_entropy(outputs, y, reduction="sum"))
    return Scores(right / len(samples), loss / len(samples), len(samples))


@dataclass(frozen=True)
class _Steering:
    """What a step needs for each weight, or nothing: where the proximal term pulls to, what is added to
    the gradient, the momentum."""

    anchor: list[torch.Tensor]
    correction: list[torch.Tensor]
    velocity: list[torch.Tensor]


def _steering(network: nn.Module, work: LocalWork, guide: Guide | None, device: torch.device) -> _Steering:
    named = {name: weight for name, weight in network.named_parameters() if weight.requires_grad}

    def tensors(params: Params) -> list[torch.Tensor]:
        return [torch.from_numpy(np.array(params[name])).to(device) for name in named]

    def anchor() -> list[torch.Tensor]:
        given = guide.anchor if guide else None
        return tensors(given) if given else [weight.detach().clone() for weight in named.values()]

    return _Steering(
        anchor=anchor() if work.proximal else [],
        correction=tensors(guide.correction) if guide and guide.correction else [],
        velocity=[torch.zeros_like(weight) for weight in named.values()] if work.momentum else [],
    )


def _descend(
    network: nn.Module,
    samples: Samples,
    work: LocalWork,
    seed: int,
    stop: Stop,
    steering: _Steering,
    tally: Tally,
    spread: _Spread | None,
    team: Team | None,
) -> None:
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    device = weights[0].device
    x, y = _tensors(samples, device)
    for epoch, rows in _batches(len(samples), work, seed, device):
        if team.agree(stop) if team else stop():
            break
        network.zero_grad(set_to_none=True)
        mine = rows[team.rank :: team.size] if team else rows
        loss = cross_entropy(network(x[mine]), y[mine]) if len(mine) else torch.zeros(1, device=device)
        if len(mine):
            loss.backward()
        if team:
            loss = pool(weights, loss.detach(), len(mine) / len(rows), team)
        if spread is not None:
            spread.add(weights)
        _step(weights, steering, work)
        tally.add(epoch, len(rows), loss.item())


@torch.no_grad()
def _step(weights: list[nn.Parameter], steering: _Steering, work: LocalWork) -> None:
    """One step of torch.optim.SGD, bit for bit, with FedProx's pull and SCAFFOLD's correction added to
    the gradients.

    The pull, mu * (w - anchor), is the gradient of mu/2 * ||w - anchor||^2 (FedProx, eq. 2); the
    difference comes first, so that it is exactly zero at the start. torch's own optimizers import
    its compiler when first made: a second of every worker's life.
    """
    for index, weight in enumerate(weights):
        gradient = weight.grad
        if gradient is None:
            continue
        if steering.anchor:
            gradient.add_(weight - steering.anchor[index], alpha=work.proximal)
        if steering.correction:
            gradient.add_(steering.correction[index])
        if work.weight_decay:
            gradient.add_(weight, alpha=work.weight_decay)
        if steering.velocity:
            gradient = steering.velocity[index].mul_(work.momentum).add_(gradient)
        weight.add_(gradient, alpha=-work.lr)


@dataclass
class _Spread:
    """What the gradients' variance follows from: their sum, and the sum of their squared norms."""

    total: dict[int, torch.Tensor] = field(default_factory=dict)
    squares: float = 0.0

    @torch.no_grad()
    def add(self, weights: list[nn.Parameter]) -> None:
        for index, weight in enumerate(weights):
            if weight.grad is not None:
                self.squares += float(weight.grad.square().sum())
                self.total[index] = weight.grad + self.total.get(index, 0)

    def variance(self, steps: int) -> float:
        return variance(self.squares, sum(float(t.square().sum()) for t in self.total.values()), steps)


def _batches(
    examples: int, work: LocalWork, seed: int, device: torch.device
) -> Iterator[tuple[int, torch.Tensor]]:
    """(epoch, rows) of every step; the last batch of an epoch may be smaller.

    Drawn on the CPU, so that every kind of device sees the same order.
    """
    order = torch.Generator().manual_seed(seed)
    for epoch in range(work.epochs):
        rows = torch.randperm(examples, generator=order).to(device)
        for start in range(0, examples, work.batch_size):
            yield epoch, rows[start : start + work.batch_size]


def _tensors(samples: Samples, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs and labels as tensors: uint8 images scaled to (x / 255 - mean) / std in float32.

    Other floating inputs become float32, integers int64, unscaled. Images lie channels last in
    memory: on a CPU convolutions run a third and pooling ten times faster so.
    """
    image = samples.x.ndim == 4
    x = samples.x.transpose(0, 2, 3, 1) if image else samples.x
    scaled = samples.x.dtype == np.uint8
    dtype = np.float32 if scaled or np.issubdtype(x.dtype, np.floating) else np.int64
    inputs = torch.from_numpy(np.array(x, dtype, order="C")).to(device)  # a copy: x may be read-only
    if scaled:
        std = torch.tensor(samples.std, device=device)
        inputs.mul_(1 / (255 * std)).sub_(torch.tensor(samples.mean, device=device) / std)
    labels = torch.from_numpy(np.array(samples.y, np.int64)).to(device)
    return inputs.permute(0, 3, 1, 2) if image else inputs, labels


@dataclass(frozen=True)
class _Place:
    """What a kept module is for. `thread` and `use` keep those apart that are in use at once."""

    builder: Builder
    shape: tuple[int, ...]
    classes: int
    device: torch.device
    use: str
    thread: int = field(default_factory=threading.get_ident)


@lru_cache(maxsize=4)
def _network(place: _Place) -> nn.Module:
    with _seeded(0, torch.device("cpu")):
        return place.builder.build(place.shape, place.classes).to(place.device)


def _load(network: nn.Module, params: Params) -> None:
    state = network.state_dict()
    layout = {name: tuple(tensor.shape) for name, tensor in state.items()}
    given = {name: array.shape for name, array in params.items()}
    if given != layout:
        wrong = sorted(name for name, _ in given.items() ^ layout.items())
        raise ValueError(f"these parameters are of another model: {wrong[0]} does not fit")
    for name, tensor in state.items():
        if tensor.device.type == "cpu":
            np.copyto(tensor.numpy(), params[name])  # torch would warn of a read-only map
        else:
            tensor.copy_(torch.from_numpy(np.array(params[name])))


def _arrays(network: nn.Module) -> Params:
    """The module's state as contiguous arrays: its own memory on a CPU, copies otherwise."""
    return {name: tensor.cpu().contiguous().numpy() for name, tensor in network.state_dict().items()}
