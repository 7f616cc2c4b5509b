"""The seams of the house: every family that can be extended, as a Protocol of few methods.

Each implementation is a frozen dataclass, listed by name in its family's `names.py`; the
contract tests in `tests/contracts` run over that list. A new one is a file and a dict line.

Does not know: any implementation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from parslfl.learning import LocalWork, Samples, Scores, Stop, Trained
from parslfl.params import Array, Params

Buffer = bytes | memoryview
Labels = npt.NDArray[np.int64]


class Dataset(Protocol):
    """A data set on disk, split by its publisher into training and test examples.

    `folder` is a site's data folder. Every method raises `DataError` naming the folder, the
    file and the cure when something is missing or damaged.
    """

    @property
    def classes(self) -> int: ...
    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one example, such as (3, 32, 32)."""
        ...

    def available(self, folder: Path) -> bool:
        """Whether the files are there; reading may still find them damaged. Never raises."""
        ...

    def fetch(self, folder: Path) -> None:
        """Download into `folder` what is not `available`. Only the driver calls this, once."""
        ...

    def labels(self, folder: Path) -> Labels:
        """Labels of all training examples, int64 (n,), in the data set's fixed order."""
        ...

    def train(self, folder: Path, indices: npt.NDArray[np.int64]) -> Samples:
        """The training examples at `indices`."""
        ...

    def test(self, folder: Path) -> Samples:
        """All test examples."""
        ...


class Partition(Protocol):
    """How training examples are divided among clients."""

    def split(self, labels: Labels, clients: int, seed: int) -> list[npt.NDArray[np.int64]]:
        """Disjoint, non-empty, sorted index arrays, one a client; a pure function.

        Raises:
            DataError: there are not enough examples for that many clients.
        """
        ...


class Model(Protocol):
    """A model family. `shape` is that of one example, `classes` the number of outputs."""

    def init(self, shape: tuple[int, ...], classes: int, seed: int) -> Params:
        """Fresh parameters; equal seeds give equal bits."""
        ...

    def train(self, params: Params, samples: Samples, work: LocalWork, seed: int, stop: Stop) -> Trained:
        """Train from `params` (read-only arrays, left as they are) on `samples`."""
        ...

    def evaluate(self, params: Params, samples: Samples, work: LocalWork) -> Scores:
        """Accuracy and mean loss on `samples`; `work` gives batch size, device and threads."""
        ...


class Codec(Protocol):
    """A reversible (or lossy) way to write an update's arrays."""

    def encode(self, delta: Params) -> tuple[Params, dict[str, Any]]:
        """Arrays to send and a small JSON-able note that `decode` needs."""
        ...

    def decode(self, arrays: Params, note: Mapping[str, Any], like: Params) -> Params:
        """The update with the names, shapes and dtypes of `like`.

        Raises:
            PayloadError: `arrays` cannot be an update for a model like `like`.
        """
        ...


class Strategy(Protocol):
    """How a round's updates become the next global model.

    The round computes `mean = sum(weight * delta) / sum(weight)` over the accepted updates in
    cohort order, and `step` turns it into the next model.
    """

    def local(self, work: LocalWork) -> LocalWork:
        """`work` as clients of this strategy do it (FedProx sets `proximal`)."""
        ...

    def weight(self, samples: int, steps: int) -> float:
        """Weight of an update made from `samples` examples in `steps` steps."""
        ...

    def start(self, params: Params) -> Params:
        """The server's state before round 0; empty for stateless strategies."""
        ...

    def step(self, state: Params, params: Params, mean: Params) -> tuple[Params, Params]:
        """(next state, next params). `mean` may be overwritten and returned."""
        ...


def keeps(thing: object) -> bool:
    """Whether a codec or strategy keeps state of each client at its site from round to round.

    Those that do have an attribute `keeps` that is true.
    """
    return bool(getattr(thing, "keeps", False))


def linear(strategy: object) -> bool:
    """Whether a strategy needs no more of a round's updates than their weighted sum, so that a site may
    add its own up first. One with a method `combine` must see them all.
    """
    return not hasattr(strategy, "combine")


class Transport(Protocol):
    """Moves bytes between processes by reference."""

    def put(self, name: str, buffers: Sequence[Buffer], checksum: str) -> Any:
        """Store the concatenated buffers as `name`; returns a `messages.Ref` that carries
        their size and `checksum`. Doing it again replaces what was there."""
        ...

    def get(self, ref: Any) -> memoryview:
        """The bytes behind `ref`, read-only, mapped where possible.

        Raises:
            PayloadError: missing, or not of the size that `ref` declares.
        """
        ...

    def drop(self, ref: Any) -> None:
        """Forget `ref`; never raises for one already gone."""
        ...

    def __hash__(self) -> int:
        """Workers remember by transport what they have read."""
        ...

    def has(self, name: str) -> bool:
        """Whether something is stored as `name`: cheap enough to ask between two batches."""
        ...


__all__ = [
    "Array",
    "Buffer",
    "Codec",
    "Dataset",
    "Labels",
    "Model",
    "Partition",
    "Strategy",
    "Transport",
    "keeps",
    "linear",
]
