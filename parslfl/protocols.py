"""The seams of the house: every family that can be extended, as a Protocol of few methods.

Each implementation is a frozen dataclass, listed by name in its family's `names.py`; the
contract tests in `tests/contracts` run over that list. A new one is a file and a dict line.

Does not know: any implementation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, TypeGuard, runtime_checkable

import numpy as np
import numpy.typing as npt

from parslfl.learning import (
    Cohort,
    Evidence,
    Guide,
    LocalWork,
    Personal,
    Samples,
    Scores,
    Stop,
    Trained,
    Visit,
)
from parslfl.params import Params, nbytes, trained
from parslfl.stack import Stack

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
        """Train from `params` (read-only arrays, left as they are) on `samples`.

        Strategies with a part at the client (SCAFFOLD, Ditto) pass a sixth argument,
        `guide: learning.Guide`: a model without it is refused with them.
        """
        ...

    def evaluate(self, params: Params, samples: Samples, work: LocalWork) -> Scores:
        """Accuracy and mean loss on `samples`; `work` gives batch size, device and threads."""
        ...


class Delta(Protocol):
    """An update that has been checked, in the form in which it came: dense, sparse or in whole numbers."""

    def norm(self) -> float:
        """Its Euclidean norm; NaN or Inf if it is not finite."""
        ...

    def add(self, total: Params, weight: float) -> None:
        """`total += weight * update`, in place; `total` has the trained arrays of its model."""
        ...


class Codec(Protocol):
    """A reversible (or lossy) way to write an update's arrays.

    One that can fold an update without making it dense is also an `Opener`. One whose error does
    not average out has an attribute `biased` that is true: error feedback is then on by default. One whose
    updates are opened so quickly that this is mostly Python's work has an attribute `brief` that is true:
    they are opened one at a time.

    It may say what memory its updates take (`in_hand`, `at_most`) by two methods: `hand(like)`, the bytes
    that opening one and adding it takes at most, beside the bytes that came and pieces of a constant size,
    and `most(like)`, stand-ins for the largest arrays that `encode` makes. Both follow from the settings and
    from shapes and dtypes: how sums are made, and so their bits, depends on them.
    """

    def encode(self, delta: Params, seed: int = 0) -> tuple[Params, dict[str, Any]]:
        """Arrays to send and a small JSON-able note that `decode` needs. All random choice
        follows from `seed`. `delta` holds floating arrays only, and is left as it is.

        Raises:
            PayloadError: `delta` is not finite, or cannot be written in this way.
        """
        ...

    def decode(self, arrays: Params, note: Mapping[str, Any], like: Params) -> Params:
        """The update with the names, shapes and dtypes of `like`, the trained arrays of the model.

        Raises:
            PayloadError: `arrays` cannot be an update for a model like `like`.
        """
        ...


@runtime_checkable
class Opener(Protocol):
    """A codec that can give an update without making it dense."""

    def open(self, arrays: Params, note: Mapping[str, Any], like: Params) -> Delta:
        """What `decode` gives, in the form in which it came; refuses what `decode` refuses."""
        ...


class Strategy(Protocol):
    """How a round's updates become the next global model.

    The round computes `mean = sum(weight * delta) / sum(weight)` over the accepted updates (with federated
    dropout, for each number over those that have it), and `step` turns it into the next model. Such a
    strategy is linear: updates are folded as they come, in a chain or two, and may be merged at their site
    first; the order of additions is the same whatever comes first. One that also has `combine`
    (`NeedsAll`) is not. Where it has `caution(updates)`, that says in words, after its name, what it does
    not hold with so few updates a round; "" if nothing.
    """

    def local(self, work: LocalWork) -> LocalWork:
        """`work` as clients of this strategy do it (FedProx sets `proximal`)."""
        ...

    def weight(self, evidence: Evidence) -> float:
        """Weight of an update, at least 0."""
        ...

    def start(self, params: Params) -> Params:
        """The server's state before round 0: arrays of finite numbers; empty for stateless strategies."""
        ...

    def step(self, state: Params, params: Params, mean: Params, cohort: Cohort) -> tuple[Params, Params]:
        """(next state, next params), finite, with the names, shapes and dtypes that each had; only an empty
        state may get some. `mean` lacks what is not averaged, integer buffers, which go on as they are; it
        and `cohort.extra` may be overwritten and returned."""
        ...


@runtime_checkable
class Scaled(Protocol):
    """A strategy whose weight and scale differ: `mean = sum(weight * scale * delta) / sum(weight)`."""

    def scales(self, evidence: Evidence) -> tuple[float, ...]:
        """One scale for each mean that `step` wants, always as many: `mean`, then `cohort.extra`.
        Several cost the driver as many sums, in one chain of merges instead of two."""
        ...


@runtime_checkable
class NeedsAll(Protocol):
    """A strategy that must see all updates of a round at once: most robust ones.

    They are kept until the round ends, as mapped files where they can be, and walked block by block.
    """

    def combine(self, stack: Stack, cohort: Cohort, out: Params) -> None:
        """Write what `step` gets as `mean` into `out`; `stack` and `cohort.evidence` go together."""
        ...


@runtime_checkable
class ClientSide(Protocol):
    """A strategy with a part that clients do, and something that they keep from round to round.

    Its class has `shares = True` if clients need the server's state. That goes with what clients keep: where
    one has lost that (`Evidence.afresh`), all begin afresh in the next round.
    """

    def fresh(self, params: Params) -> Params:
        """What a client has before its first accepted round, given the global model."""
        ...

    def guide(self, shared: Params, kept: Params) -> Guide:
        """What steers the client's training; `shared` is the server's state, if it is shared."""
        ...

    def keep(self, visit: Visit) -> tuple[Params, Personal | None]:
        """What the client keeps, with names, shapes and dtypes as from `fresh`; how its own model does."""
        ...


@lru_cache(maxsize=256)
def _fits(kind: type, protocol: type) -> bool:
    """Whether a class has a protocol's methods. Looked up once: it takes Python 3.11 40 us."""
    return issubclass(kind, protocol)


def opens(codec: Codec) -> TypeGuard[Opener]:
    return _fits(type(codec), Opener)


def is_scaled(strategy: Strategy) -> TypeGuard[Scaled]:
    return _fits(type(strategy), Scaled)


def needs_all(strategy: Strategy) -> TypeGuard[NeedsAll]:
    return _fits(type(strategy), NeedsAll)


def caution(strategy: Strategy, updates: int) -> str:
    """What a strategy does not hold with so few updates a round: "" where it has nothing to say."""
    return str(getattr(strategy, "caution", lambda _: "")(updates) or "")


def in_hand(codec: object, like: Params) -> float:
    """Bytes of memory that opening and adding an update of `codec` takes at most, for a model like `like`."""
    found = getattr(codec, "hand", None)
    return float(found(trained(like))) if found else float(nbytes(trained(like)))


def at_most(codec: object, like: Params) -> float:
    """Bytes of the largest update that `codec` makes."""
    found = getattr(codec, "most", trained)
    return float(nbytes(found(trained(like))))


def shares(strategy: object) -> bool:
    """Whether clients of this strategy are sent the server's state."""
    return bool(getattr(strategy, "shares", False))


class Transport(Protocol):
    """Moves bytes between processes by reference. One whose `get` gives memory of its own, not a mapped file
    nor what the reference holds, has an attribute `fetches` that is true."""

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
