"""The device and the threads that torch uses for one task, and its random state.

Does not know: what is computed there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from parslfl.errors import ConfigError, Problem
from parslfl.learning import LocalWork


def _prepare(work: LocalWork) -> torch.device:
    if torch.get_num_threads() != work.threads:
        torch.set_num_threads(work.threads)
    return _device(work.device)


def _device(name: str) -> torch.device:
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind, usable in there.items() if usable))
    if not there.get(name.partition(":")[0], False):
        usable = ", ".join(kind for kind in there if there[kind])
        problem = f"{name!r} is not available on this worker (there is: {usable}); 'auto' takes the best"
        raise ConfigError([Problem("", "device", problem)])
    return torch.device(name)


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """torch's global random state seeded for layers that draw from it, and put back after."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield
