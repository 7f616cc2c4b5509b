"""MedMNIST v2: small medical images, 28x28, one label each, in the medmnist package's npz files.

The twelve 2D sets but `chestmnist`, whose images carry several labels at once. Reading needs
numpy alone: importing the package would load torch and make a folder in the home directory.

Source: J. Yang et al., MedMNIST v2, Scientific Data 10, 41, 2023. Not for clinical use.

Does not know: clients, or how the examples are divided among them.
"""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from parslfl.data.download import staging
from parslfl.data.folder import find, place
from parslfl.errors import DataError
from parslfl.learning import Samples
from parslfl.params import Array
from parslfl.protocols import Labels
from parslfl.specs import hint
from parslfl.vision import load_torchvision

#: Classes, channels, training and test examples of each set (a test compares them with the package).
SETS = {
    "pathmnist": (9, 3, 89_996, 7_180),
    "dermamnist": (7, 3, 7_007, 2_005),
    "octmnist": (4, 1, 97_477, 1_000),
    "pneumoniamnist": (2, 1, 4_708, 624),
    "retinamnist": (5, 3, 1_080, 400),
    "breastmnist": (2, 1, 546, 156),
    "bloodmnist": (8, 3, 11_959, 3_421),
    "tissuemnist": (8, 1, 165_466, 47_280),
    "organamnist": (11, 1, 34_561, 17_778),
    "organcmnist": (11, 1, 12_975, 8_216),
    "organsmnist": (11, 1, 13_932, 8_827),
}


@dataclass(frozen=True)
class MedMnist:
    """One MedMNIST set, from `NAME.npz` in `folder` or `folder/medmnist`; its validation part is not used."""

    name: str = "pneumoniamnist"

    def __post_init__(self) -> None:
        if self.name not in SETS:
            raise ValueError(f"unknown set {self.name!r}{hint(self.name, SETS)}")

    @property
    def classes(self) -> int:
        return SETS[self.name][0]

    @property
    def shape(self) -> tuple[int, ...]:
        return (SETS[self.name][1], 28, 28)

    def available(self, folder: Path) -> bool:
        """Whether the file is there; whether it is whole shows when it is read."""
        try:
            return self._file(folder).is_file()
        except (DataError, OSError):  # OSError: a folder that may not be read
            return False

    def fetch(self, folder: Path) -> None:
        """Download the file into `folder/medmnist` unless it is there. For the driver only.

        Raises:
            DataError: it cannot be downloaded.
        """
        if self.available(folder):
            return
        into = place(folder) / "medmnist"
        with staging(into, f"{self.name}.npz") as room:
            _download(self.name, room)
            (room / f"{self.name}.npz").replace(into / f"{self.name}.npz")

    def labels(self, folder: Path) -> Labels:
        """Labels of all training examples, int64 (n,), read-only."""
        return self._labels(folder, "train")

    def train(self, folder: Path, indices: npt.NDArray[np.int64]) -> Samples:
        """A copy of the training examples at `indices`; x is uint8 (n, channels, 28, 28)."""
        x, y = self._images(folder, "train"), self._labels(folder, "train")
        return self._samples(x[indices], y[indices])

    def test(self, folder: Path) -> Samples:
        """All test examples, read-only; x is uint8 (n, channels, 28, 28)."""
        return self._samples(self._images(folder, "test"), self._labels(folder, "test"))

    def _samples(self, x: Array, y: Labels) -> Samples:
        half = (0.5,) * self.shape[0]
        return Samples(x, y, self.classes, half, half)

    def _file(self, folder: Path) -> Path:
        folder = place(folder)
        return find(f"{self.name}.npz", [folder, folder / "medmnist"])

    def _images(self, folder: Path, part: str) -> Array:
        return _images(self._file(folder), part, self._count(part), self.shape)

    def _labels(self, folder: Path, part: str) -> Labels:
        return _labels(self._file(folder), part, self._count(part), self.classes)

    def _count(self, part: str) -> int:
        return SETS[self.name][2 if part == "train" else 3]


def _download(name: str, into: Path) -> None:
    """What medmnist's own `download` does, which hides the reason when it fails, and Ctrl-C too."""
    load_torchvision()
    from medmnist import INFO
    from torchvision.datasets.utils import download_url

    download_url(INFO[name]["url"], str(into), filename=f"{name}.npz", md5=INFO[name]["MD5"])


@cache
def _images(file: Path, part: str, count: int, shape: tuple[int, ...]) -> Array:
    stored = (count, 28, 28) if shape[0] == 1 else (count, 28, 28, shape[0])
    images = _array(file, f"{part}_images", stored)
    if images.dtype != np.uint8:
        raise _damaged(file, f"{part}_images holds {images.dtype}, not uint8")
    images = np.ascontiguousarray(np.moveaxis(images.reshape(count, 28, 28, -1), -1, 1))
    images.setflags(write=False)
    return images


@cache
def _labels(file: Path, part: str, count: int, classes: int) -> Labels:
    labels = _array(file, f"{part}_labels", (count, 1)).reshape(count).astype(np.int64)
    if labels.min() < 0 or labels.max() >= classes:
        raise _damaged(file, f"{part}_labels are {labels.min()} to {labels.max()}, not 0 to {classes - 1}")
    labels.setflags(write=False)
    return labels


def _array(file: Path, name: str, shape: tuple[int, ...]) -> Array:
    try:
        with file.open("rb") as opened, np.load(opened, allow_pickle=False) as content:
            array: Array = content[name]
    except OSError as error:
        raise DataError(f"cannot read {file}: {error}") from error
    except (TypeError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise _damaged(file, str(error)) from error
    if array.shape != shape:
        raise _damaged(file, f"{name} has the shape {array.shape}, not {shape}")
    return array


def _damaged(file: Path, reason: str) -> DataError:
    return DataError(f"{file} is damaged: {reason}; copy it again, or remove it to have it downloaded")
