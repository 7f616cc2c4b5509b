"""CIFAR-10: 50,000 training and 10,000 test photographs, 32x32 RGB, in 10 classes.

Reads the folder `cifar-10-batches-py` as torchvision leaves it, without importing torchvision, so
that a worker has its data after about 0.3 s. The images stay in the operating system's file
cache: read-only maps that all workers of a node share, instead of 150 MB in each.

Source: A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009.

Does not know: clients, or how the examples are divided among them.
"""

from __future__ import annotations

import hashlib
import mmap
import pickle
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from parslfl.data.download import staging
from parslfl.data.folder import find, missing, place
from parslfl.errors import DataError
from parslfl.learning import Samples
from parslfl.protocols import Labels
from parslfl.vision import load_torchvision

NAME = "cifar-10-batches-py"
TRAINING = tuple(f"data_batch_{number}" for number in range(1, 6))
TEST = "test_batch"

#: As published with the set, and as torchvision checks them.
MD5 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}

#: Images in every file, and the bytes they take.
ROWS, SHAPE = 10_000, (3, 32, 32)
PIXELS = ROWS * 3 * 32 * 32

#: Of the training images' pixels in [0, 1], per channel.
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)

Images = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Cifar10:
    """CIFAR-10, from `folder`, `folder/cifar-10`, or `folder` itself being `cifar-10-batches-py`."""

    @property
    def classes(self) -> int:
        return 10

    @property
    def shape(self) -> tuple[int, ...]:
        return SHAPE

    def available(self, folder: Path) -> bool:
        """Whether all files are there; whether they are whole shows when they are read."""
        try:
            batches = _batches(folder)
            return all((batches / name).is_file() for name in MD5)
        except (DataError, OSError):  # OSError: a folder that may not be read
            return False

    def fetch(self, folder: Path) -> None:
        """Download the set into `folder` (170 MB) unless it is there. For the driver only.

        Raises:
            DataError: it cannot be downloaded, or a part of it is there, which is left as it is.
        """
        into = place(folder)
        present = (into / NAME).exists()  # asked first: another process may just now rename its copy there
        if self.available(folder):
            return
        if present:
            raise DataError(f"{into / NAME} is incomplete: remove it, and the next run downloads all of it")
        with staging(into, NAME) as room:
            _download(room)
            try:
                (room / NAME).rename(into / NAME)
            except OSError:
                if not self.available(folder):  # else another process was faster: use its copy
                    raise

    def labels(self, folder: Path) -> Labels:
        """Labels of all training examples, int64 (50000,), batch after batch."""
        batches = _batches(folder)
        return np.concatenate([_load(batches / name)[1] for name in TRAINING])

    def train(self, folder: Path, indices: npt.NDArray[np.int64]) -> Samples:
        """A copy of the training examples at `indices`; x is uint8 (n, 3, 32, 32)."""
        batches, labels = _batches(folder), self.labels(folder)
        indices = np.arange(len(labels))[indices]  # refuses what is out of range
        x = np.empty((len(indices), *SHAPE), np.uint8)
        batch, row = np.divmod(indices, ROWS)
        for number, name in enumerate(TRAINING):
            here = batch == number
            x[here] = _load(batches / name)[0][row[here]]
        return Samples(x, labels[indices], self.classes, MEAN, STD)

    def test(self, folder: Path) -> Samples:
        """All 10,000 test examples, read-only; x is uint8 (10000, 3, 32, 32)."""
        return Samples(*_load(_batches(folder) / TEST), self.classes, MEAN, STD)


def _batches(folder: Path) -> Path:
    folder = place(folder)
    itself = [folder.parent] if folder.name == NAME else []
    return find(NAME, [folder, folder / "cifar-10", *itself])


def _download(into: Path) -> None:
    load_torchvision()
    from torchvision.datasets import CIFAR10
    from torchvision.datasets.utils import download_and_extract_archive

    download_and_extract_archive(CIFAR10.url, str(into), filename=CIFAR10.filename, md5=CIFAR10.tgz_md5)


@cache
def _load(file: Path) -> tuple[Images, Labels]:
    """Images (10000, 3, 32, 32) and labels (10000,) of one file, both read-only; once a process."""
    content = _content(file)
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != MD5[file.name]:
        raise DataError(
            f"{file} is damaged: its md5 is {found}, not {MD5[file.name]}; copy the file again, or remove "
            f"the folder {file.parent}, and the next run downloads it"
        )
    stored = pickle.loads(content, encoding="bytes")  # noqa: S301  the md5 says that it is the publisher's
    labels = np.array(stored[b"labels"], np.int64)
    labels.setflags(write=False)
    # The images are one bytes object in the pickle: opcode T, its length in four bytes, the pixels.
    start = content.find(b"T" + PIXELS.to_bytes(4, "little")) + 5
    return np.frombuffer(content, np.uint8, PIXELS, start).reshape(-1, *SHAPE), labels


def _content(file: Path) -> mmap.mmap | bytes:
    try:
        with file.open("rb") as opened:
            try:
                return mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
            except (OSError, ValueError):  # a file system without maps, or an empty file
                return opened.read()
    except FileNotFoundError:
        raise missing(file.name, [file.parent]) from None
    except OSError as error:
        raise DataError(f"cannot read {file}: {error}") from error
