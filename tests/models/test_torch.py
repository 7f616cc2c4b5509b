"""Training with torch: FedProx by hand and by autograd, and a kept module that remembers nothing."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import nn

from parslfl.errors import ConfigError
from parslfl.learning import LocalWork, Samples
from parslfl.models import _device, _torch
from parslfl.models.torch_model import TorchModel
from parslfl.params import Params

WORK = LocalWork(epochs=2, batch_size=4, lr=0.1, device="cpu")


@dataclass(frozen=True)
class Line(TorchModel):
    """Outputs are w * x, without bias."""

    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        return nn.Linear(shape[0], classes, bias=False)


@dataclass(frozen=True)
class Noisy(TorchModel):
    """Dropout, and batch norm with its float and integer buffers."""

    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        return nn.Sequential(nn.BatchNorm1d(shape[0]), nn.Dropout(0.5), nn.Linear(shape[0], classes))


def never() -> bool:
    return False


def points(n: int = 10, features: int = 3) -> Samples:
    random = np.random.default_rng(0)
    x = random.normal(size=(n, features)).astype(np.float32)
    return Samples(x, np.arange(n, dtype=np.int64) % 2, classes=2)


@pytest.fixture
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_fedprox_worked_by_hand() -> None:
    """One example x = 1 of class 0, lr 1, mu 0.2, from w = (0, 0).

    Step 1: p = (1/2, 1/2), gradient (-1/2, 1/2), no pull at the start: w = (0.5, -0.5).
    Step 2: p0 = 1 / (1 + e^-1) = 0.731059, gradient -0.268941 + 0.2 * 0.5 = -0.168941: w0 = 0.668941.
    """
    one = Samples(np.ones((1, 1), np.float32), np.zeros(1, np.int64), classes=2)
    work = replace(WORK, lr=1.0, proximal=0.2)
    trained = Line().train({"weight": np.zeros((2, 1), np.float32)}, one, work, 0, never)
    assert trained.params["weight"].ravel() == pytest.approx([0.668941, -0.668941], abs=1e-6)
    assert trained.first_loss == pytest.approx(0.693147, abs=1e-6)  # ln 2
    assert trained.loss == pytest.approx(0.313262, abs=1e-6)  # -ln 0.731059


def test_fedprox_is_the_gradient_of_its_formula() -> None:
    """Against autograd of cross-entropy + mu/2 * ||w - w_global||^2, with momentum and decay."""
    samples, mu = points(), 0.7
    work = replace(WORK, proximal=mu, momentum=0.9, weight_decay=0.01)
    params = Line().init((3,), 2, seed=1)
    start = torch.from_numpy(params["weight"].copy())
    weight = start.clone().requires_grad_()
    optimizer = torch.optim.SGD([weight], lr=work.lr, momentum=0.9, weight_decay=0.01)
    order = torch.Generator().manual_seed(5)
    for _ in range(work.epochs):
        for rows in torch.randperm(len(samples), generator=order).split(work.batch_size):
            outputs = torch.from_numpy(samples.x)[rows] @ weight.T
            loss = nn.functional.cross_entropy(outputs, torch.from_numpy(samples.y)[rows])
            optimizer.zero_grad()
            (loss + mu / 2 * (weight - start).square().sum()).backward()
            optimizer.step()
    trained = Line().train(params, samples, work, 5, never)
    np.testing.assert_allclose(trained.params["weight"], weight.detach().numpy(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("decay", [0.0, 0.01])
def test_a_step_is_that_of_torch_s_optimizer_bit_for_bit(momentum: float, decay: float) -> None:
    work = replace(WORK, momentum=momentum, weight_decay=decay)
    mine = nn.Parameter(torch.linspace(-1, 1, 7))
    its = nn.Parameter(torch.linspace(-1, 1, 7))
    optimizer = torch.optim.SGD([its], lr=work.lr, momentum=momentum, weight_decay=decay)
    velocity = [torch.zeros(7)] if momentum else []
    for step in range(4):
        mine.grad, its.grad = (torch.sin(torch.arange(7.0) + step) for _ in range(2))
        _torch._step([mine], _torch._Steering([], [], velocity), work)
        optimizer.step()
        assert torch.equal(mine, its)


def test_training_does_not_load_torch_s_compiler() -> None:
    code = """
import sys, numpy as np
from parslfl.learning import LocalWork, Samples
from parslfl.models.cnn import Cnn
samples = Samples(np.zeros((2, 1, 8, 8), np.uint8), np.zeros(2, np.int64), 2)
work = LocalWork(device="cpu", momentum=0.9, weight_decay=0.1, proximal=0.1)
trained = Cnn().train(Cnn().init((1, 8, 8), 2, 0), samples, work, 1, lambda: False)
Cnn().evaluate(trained.params, samples, work)
print("torch._dynamo" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_images_are_scaled_by_channel() -> None:
    x = np.zeros((1, 2, 1, 2), np.uint8)
    x[0, :, 0, :] = [[0, 255], [51, 102]]
    samples = Samples(x, np.zeros(1, np.int64), 2, mean=(0.5, 0.2), std=(0.25, 0.1))
    scaled, _ = _torch._tensors(samples, torch.device("cpu"))
    assert scaled.shape == (1, 2, 1, 2)
    assert scaled.ravel().tolist() == pytest.approx([-2, 2, 0, 2], abs=1e-6)


def test_other_inputs_keep_their_values() -> None:
    tokens = Samples(np.array([[3, 250]], np.int16), np.zeros(1, np.int64), 2)
    assert _torch._tensors(tokens, torch.device("cpu"))[0].dtype == torch.int64
    assert _torch._tensors(points(), torch.device("cpu"))[0].numpy() == pytest.approx(points().x)


def test_a_worker_builds_each_model_once() -> None:
    params = Line().init((3,), 2, seed=0)
    first = Line().train(params, points(), WORK, 1, never).params["weight"]
    kept = Line().train(params, points(), WORK, 2, never).params["weight"]
    assert np.shares_memory(first, kept)


def test_threads_do_not_share_a_module() -> None:
    params = Line().init((3,), 2, seed=0)

    def made(seed: int) -> list[float]:
        return [float(v) for v in Line().train(params, points(), WORK, seed, never).params["weight"].ravel()]

    alone = [made(seed) for seed in range(8)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(made, range(8))) == alone


def test_buffers_are_carried_and_counted() -> None:
    params = Noisy().init((3,), 2, seed=0)
    assert params["0.num_batches_tracked"].shape == ()
    trained = Noisy().train(params, points(8), WORK, 1, never)  # 2 epochs of 2 batches
    assert list(trained.params) == list(params)
    assert trained.params["0.num_batches_tracked"].dtype == np.int64
    assert trained.params["0.num_batches_tracked"] == 4
    assert not np.array_equal(trained.params["0.running_mean"], params["0.running_mean"])


def test_layers_draw_from_the_given_seed_alone() -> None:
    params = Noisy().init((3,), 2, seed=0)

    def bits(params: Params) -> list[bytes]:
        return [array.tobytes() for array in params.values()]

    torch.manual_seed(1)
    first = bits(Noisy().train(params, points(), WORK, 3, never).params)
    torch.manual_seed(2)
    mine = torch.get_rng_state()
    assert bits(Noisy().train(params, points(), WORK, 3, never).params) == first
    assert bits(Noisy().init((3,), 2, seed=0)) == bits(params)
    assert torch.equal(torch.get_rng_state(), mine)


def test_read_only_arrays_raise_no_warning() -> None:
    params = Noisy().init((3,), 2, seed=0)
    samples = points()
    for array in (*params.values(), samples.x, samples.y):
        array.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trained = Noisy().train(params, samples, WORK, 1, never)
        Noisy().evaluate(trained.params, samples, WORK)


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"weight": np.zeros((2, 4), np.float32)},
        {"weight": np.zeros((2, 3), np.float32), "x": np.zeros(1)},
    ],
)
def test_parameters_of_another_model_are_refused(params: Params) -> None:
    with pytest.raises(ValueError, match="of another model: (weight|x) does not fit"):
        Line().train(params, points(), WORK, 1, never)


@pytest.mark.parametrize("device", ["tpu", "cuda:99999" if not torch.cuda.is_available() else "abacus"])
def test_an_absent_device_is_named_with_those_there(device: str) -> None:
    with pytest.raises(ConfigError, match=rf"device: '{device}' is not available.*cpu"):
        Line().train(Line().init((3,), 2, 0), points(), replace(WORK, device=device), 1, never)


def test_auto_is_the_best_device_there() -> None:
    there = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert _device._device("auto").type == there


def test_threads_are_bounded(one_thread: None) -> None:
    Line().evaluate(Line().init((3,), 2, 0), points(), replace(WORK, threads=2))
    assert torch.get_num_threads() == 2
    Line().train(Line().init((3,), 2, 0), points(), replace(WORK, threads=1), 1, never)
    assert torch.get_num_threads() == 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_a_gpu_gives_what_the_cpu_gives() -> None:
    params = Line().init((3,), 2, seed=0)
    here = Line().train(params, points(), WORK, 1, never).params["weight"].copy()
    there = Line().train(params, points(), replace(WORK, device="cuda"), 1, never).params["weight"]
    np.testing.assert_allclose(there, here, rtol=1e-4)
