"""Smaller networks: their size, what they keep, and that they are the same for the same seed."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from parslfl import submodel
from parslfl.models import _shrink
from parslfl.models._shrink import shrink
from parslfl.models.cnn import Cnn
from parslfl.models.resnet import ResNet18
from parslfl.params import size
from parslfl.submodel import Kept

SHAPE = (3, 32, 32)


def lists(kept: Kept) -> dict[str, list[list[int] | None]]:
    return {name: [None if at is None else at.tolist() for at in dims] for name, dims in kept.items()}


@pytest.mark.parametrize("model", [Cnn(), ResNet18()])
def test_half_the_units_are_a_quarter_of_the_weights(model: Cnn | ResNet18) -> None:
    network, kept = shrink(model, SHAPE, 10, 0.5, 1)
    whole = model.init(SHAPE, 10, 0)
    part = submodel.take(whole, kept)
    assert 0.24 < size(part) / size(whole) < 0.27
    state = network.state_dict()
    assert {n: (tuple(t.shape), t.dtype) for n, t in state.items()} == {
        n: (a.shape, torch.from_numpy(a).dtype) for n, a in part.items()
    }
    assert tuple(network(torch.zeros(2, *SHAPE)).shape) == (2, 10)


def test_the_units_are_drawn_from_the_seed() -> None:
    one, again, other = (lists(shrink(Cnn(), SHAPE, 10, 0.5, seed)[1]) for seed in (1, 1, 2))
    assert one == again != other


#: (model, share kept, seed) -> which units were kept when networks were still cut at full size.
RECORDED = {
    (Cnn(), 0.5, 0): "6b475a710eb20744",
    (Cnn(), 0.75, 1): "3cd4a29932fd343b",
    (ResNet18(), 0.5, 0): "b59204742ea70d0e",
    (ResNet18(), 0.75, 1): "9de16a5385eb96fb",
}


@pytest.mark.parametrize(("asked", "digest"), RECORDED.items())
def test_the_same_units_as_ever(asked: tuple[Cnn | ResNet18, float, int], digest: str) -> None:
    model, keep, seed = asked
    kept = lists(shrink(model, SHAPE, 10, keep, seed)[1])
    found = hashlib.blake2b("".join(json.dumps([*item]) for item in kept.items()).encode(), digest_size=8)
    assert found.hexdigest() == digest


def test_each_group_of_a_norm_keeps_as_many() -> None:
    model = Cnn()
    kept = shrink(model, SHAPE, 10, 0.5, 1)[1]
    at = kept["stem_norm.weight"][0]
    assert at is not None
    assert np.bincount(at // (model.width // model.groups)).tolist() == [4] * model.groups


def test_layers_agree_on_what_is_left() -> None:
    """A part of the model computes what the whole computes once its dropped units are silent."""
    model = Cnn()
    network, kept = shrink(model, SHAPE, 10, 0.5, 3)
    whole = model.init(SHAPE, 10, 5)
    full = model.build(SHAPE, 10)
    for name in ("hidden", "output"):  # behind the norms, whose statistics know all of their group
        assert (kept[f"{name}.weight"][1] is not None) or name == "output"
    part = submodel.take(whole, kept)
    network.load_state_dict({name: torch.from_numpy(array) for name, array in part.items()})
    silent = {name: torch.zeros_like(torch.from_numpy(array)) for name, array in whole.items()}
    for name, array in whole.items():
        grid = np.ix_(*_all(kept.get(name, (None,) * array.ndim), array.shape))
        silent[name].numpy()[grid] = array[grid]
    full.load_state_dict(silent)
    head, cut = full[-3:], network[-3:]
    features = torch.rand(4, model.width, 4, 4)
    at = kept["conv.weight"][0]
    assert at is not None
    flat, less = features.flatten(1), features[:, torch.from_numpy(at)].flatten(1)
    wide, narrow = head[0].in_features, cut[0].in_features
    assert torch.allclose(head(flat[:, :wide]), cut(less[:, :narrow]), atol=1e-5)


def _all(dims: tuple[np.ndarray | None, ...], shape: tuple[int, ...]) -> list[np.ndarray]:
    return [np.arange(n) if at is None else at for at, n in zip(dims, shape, strict=True)]


def test_everything_is_kept_of_one() -> None:
    assert shrink(Cnn(), SHAPE, 10, 1.0, 0)[1] == {}


def test_something_is_kept_of_nothing() -> None:
    network, _ = shrink(Cnn(), SHAPE, 10, 0.001, 0)
    assert min(t.numel() for t in network.parameters()) >= 1


@dataclass(frozen=True)
class Flat:
    """No hidden layer at all."""

    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, classes))


def test_a_network_without_hidden_layers_is_told() -> None:
    with pytest.raises(ValueError, match="no hidden layer"):
        shrink(Flat(), SHAPE, 10, 0.5, 0)


class Fixed(nn.Module):
    """With a frozen layer and two constants that are in no state."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3 * 32 * 32, 64), nn.Linear(64, 10)
        self.first.requires_grad_(False)
        self.register_buffer("three", torch.full((1,), 3.0), persistent=False)
        self.four = torch.full((1,), 4.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = self.last(self.first(x.flatten(1)) * self.three * self.four)
        return made


@dataclass(frozen=True)
class FixedBuilder:
    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        return Fixed()


@pytest.mark.parametrize("large", [1 << 40, 0])
def test_what_is_not_trained_stays(large: int, monkeypatch: pytest.MonkeyPatch) -> None:
    _shrink._outlined.cache_clear()
    monkeypatch.setattr(_shrink, "_LARGE", large)
    network, kept = shrink(FixedBuilder(), SHAPE, 10, 0.5, 0)
    assert isinstance(network, Fixed)
    _shrink._outlined.cache_clear()
    assert lists(kept)["first.weight"][1] is None
    trained = {name: weight.requires_grad for name, weight in network.named_parameters()}
    assert [name for name, does in trained.items() if does] == ["last.weight", "last.bias"]
    assert (network.three.tolist(), network.four.tolist()) == ([3.0], [4.0])
    assert network.first.out_features == 32


@pytest.mark.parametrize("model", [Cnn(), ResNet18()])
def test_the_same_units_wherever_it_is_followed(
    model: Cnn | ResNet18, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for large in (1 << 40, 0):
        monkeypatch.setattr(_shrink, "_LARGE", large)
        _shrink._outlined.cache_clear()
        found.append(lists(shrink(model, SHAPE, 10, 0.5, 7)[1]))
        devices = {array.device.type for array in _shrink._outlined(model, SHAPE, 10).parameters()}
        assert devices == {"meta" if large == 0 else "cpu"}
    _shrink._outlined.cache_clear()
    assert found[0] == found[1]


WIDE = """
from pathlib import Path
from torch import nn
from parslfl.models._shrink import shrink
class Wide:
    def build(self, shape, classes):
        return nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 50_000), nn.ReLU(), nn.Linear(50_000, 10))
def peak():
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) / 1024
before = peak()
network, _ = shrink(Wide(), (3, 32, 32), 10, 0.01, 0)
print(peak() - before, network[1].weight.numel())
"""


def test_a_whole_network_is_never_in_memory() -> None:
    """Of a network of 588 MiB: a hundredth is left, and the memory of a process does not see the rest."""
    said = subprocess.run([sys.executable, "-c", WIDE], check=True, capture_output=True, text=True).stdout
    mebibytes, left = said.split()
    assert int(left) == 500 * 3 * 32 * 32
    assert float(mebibytes) < 200
