"""Synthetic images for tests and benchmarks: one random picture a class, and noise. Needs no files.

Does not know: clients, or how the examples are divided among them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from parslfl.learning import Samples
from parslfl.protocols import Labels
from parslfl.seeding import generator


@dataclass(frozen=True)
class Synthetic:
    """`samples` training and a fifth as many test images of `channels` x `side` x `side` pixels.

    Each is its class's picture plus normal `noise`, in units of the pixels' range. Classes are
    equally frequent (within one example), in random order. A pure function of the fields.
    """

    samples: int = 1000
    classes: int = 10
    channels: int = 1
    side: int = 8
    noise: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        for field in ("samples", "classes", "channels", "side"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field} is {getattr(self, field)}, must be at least 1")
        if not 0 <= self.noise < np.inf:
            raise ValueError(f"noise is {self.noise}, must be 0 or more")

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.channels, self.side, self.side)

    def available(self, folder: Path) -> bool:
        """Always."""
        return True

    def fetch(self, folder: Path) -> None:
        """Nothing to do."""

    def labels(self, folder: Path) -> Labels:
        """Labels of all training examples, int64 (samples,), read-only."""
        return _part(self, test=False).y

    def train(self, folder: Path, indices: npt.NDArray[np.int64]) -> Samples:
        """A copy of the training examples at `indices`."""
        part = _part(self, test=False)
        return Samples(part.x[indices], part.y[indices], self.classes, part.mean, part.std)

    def test(self, folder: Path) -> Samples:
        """All test examples, read-only: a fifth of `samples`, at least one a class."""
        return _part(self, test=True)


@lru_cache(maxsize=8)
def _part(data: Synthetic, test: bool) -> Samples:
    count = max(data.samples // 5, data.classes) if test else data.samples
    pictures = generator(data.seed, "synthetic pictures").random((data.classes, *data.shape), np.float32)
    draw = generator(data.seed, "synthetic examples", int(test))
    y = draw.permutation(np.arange(count, dtype=np.int64) % data.classes)
    x = pictures[y] + np.float32(data.noise) * draw.standard_normal((count, *data.shape), np.float32)
    pixels = np.rint(255 * np.clip(x, 0, 1)).astype(np.uint8)
    pixels.setflags(write=False)
    y.setflags(write=False)
    half = (0.5,) * data.channels
    return Samples(pixels, y, data.classes, half, half)
