"""Digits: 1,797 handwritten digits, 8x8 grey, that come with scikit-learn. Needs no files.

Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998.

Does not know: clients, or how the examples are divided among them.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from parslfl.errors import DataError
from parslfl.learning import Samples
from parslfl.protocols import Labels
from parslfl.seeding import generator

#: Part of each class that is kept for the test.
TEST_SHARE = 0.2

#: Of all images' pixels in [0, 1].
MEAN, STD = (0.3053,), (0.3760,)


@dataclass(frozen=True)
class Digits:
    """scikit-learn's digits, split 80/20 within every class. Every `folder` is ignored."""

    @property
    def classes(self) -> int:
        return 10

    @property
    def shape(self) -> tuple[int, ...]:
        return (1, 8, 8)

    def available(self, folder: Path) -> bool:
        """Whether scikit-learn is installed."""
        return importlib.util.find_spec("sklearn") is not None

    def fetch(self, folder: Path) -> None:
        """Nothing to download; raises `DataError` when scikit-learn is not installed."""
        if not self.available(folder):
            raise _not_installed()

    def labels(self, folder: Path) -> Labels:
        """Labels of the 1,438 training examples, int64, read-only."""
        return _parts()[0].y

    def train(self, folder: Path, indices: npt.NDArray[np.int64]) -> Samples:
        """A copy of the training examples at `indices`; x is uint8 (n, 1, 8, 8), 0 to 255."""
        part = _parts()[0]
        return Samples(part.x[indices], part.y[indices], self.classes, MEAN, STD)

    def test(self, folder: Path) -> Samples:
        """All 359 test examples, read-only; x is uint8 (359, 1, 8, 8), 0 to 255."""
        return _parts()[1]


@lru_cache(maxsize=1)
def _parts() -> tuple[Samples, Samples]:
    """Training and test part, read-only; once a process."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise _not_installed() from error
    pixels, labels = load_digits(return_X_y=True)
    x = np.rint(pixels * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8)
    y = labels.astype(np.int64)
    test = _test_rows(y)
    return _part(x[~test], y[~test]), _part(x[test], y[test])


def _test_rows(labels: Labels) -> npt.NDArray[np.bool_]:
    chosen = np.zeros(len(labels), bool)
    for label in range(10):
        rows = generator(0, "digits test rows", label).permutation(np.flatnonzero(labels == label))
        chosen[rows[: round(TEST_SHARE * len(rows))]] = True
    return chosen


def _part(x: npt.NDArray[np.uint8], y: Labels) -> Samples:
    x.setflags(write=False)
    y.setflags(write=False)
    return Samples(x, y, 10, MEAN, STD)


def _not_installed() -> DataError:
    return DataError("digits are part of scikit-learn, which is not installed: pip install scikit-learn")
