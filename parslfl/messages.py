"""What crosses between the driver and its workers, and what a run tells its reader.

Frozen values only. A task names its data and its model; neither ever travels in one.

Does not know: how messages are sent, or who acts on them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from parslfl.learning import LocalWork, Personal
from parslfl.protocols import Codec, Dataset, Model, Partition, Strategy, Transport


@dataclass(frozen=True, order=True)
class Client:
    """One partition of the federation's data, pinned to its site. `index` counts all clients."""

    index: int
    site: str

    def __str__(self) -> str:
        return f"{self.site}/{self.index}"


@dataclass(frozen=True)
class Ref:
    """Where bytes are: a file's `path`, or `data` itself. `size` in bytes, `checksum` xxh3-64."""

    size: int
    checksum: str
    path: str = ""
    data: bytes = field(default=b"", repr=False)


@dataclass(frozen=True)
class Difference:
    """What makes the model that `round` starts from of the one behind `base`; `ref` says where it is."""

    round: int
    base: Ref
    ref: Ref


@dataclass(frozen=True)
class ModelRef(Ref):
    """A global model that lies whole where any `Ref` says, and that who has an earlier one may put together.

    `differences`: the last few, oldest first, written by `codec`. `run`: the name under which a node keeps
    the models that it had.
    """

    differences: tuple[Difference, ...] = ()
    codec: Codec | None = None
    run: str = ""


@dataclass(frozen=True)
class Source:
    """Which data a client holds: names only. `folder` is read by the worker, at its site.

    `seed` fixes the split among `clients` clients.
    """

    dataset: Dataset
    partition: Partition
    folder: str
    clients: int
    seed: int


@dataclass(frozen=True)
class TrainTask:
    """One client's work in one round.

    `stop_at`: seconds since the epoch, by the worker's own clock, at which the client stops with what it
    has done: `STOP_SHARE` of a deadline; None for never.
    `store`: folder at the site where clients keep state between rounds ("": nobody needs one).
    `accepted`: the last round in which this client's update was folded, -1 for none: only the
    state of that round counts. `error_feedback`: what the codec leaves out is kept in the store.
    `strategy`: given where clients have a part of it to do (see `protocols.ClientSide`); `shared`: where
    the state is that its server sends them.
    """

    round: int
    client: Client
    model: Model
    source: Source
    work: LocalWork
    start: Ref
    codec: Codec
    transport: Transport
    seed: int
    stop_at: float | None = None
    store: str = ""
    accepted: int = -1
    error_feedback: bool = False
    strategy: Strategy | None = None
    shared: Ref | None = None

    @property
    def closed(self) -> str:
        """Name under which the driver leaves a mark in the transport once the round is closed."""
        return f"closed/round-{self.round:04d}"


def update_name(round: int, client: Client) -> str:
    """The only name under which `client` may put its update of `round` into a transport."""
    return f"updates/round-{round:04d}-client-{client.index:05d}"


#: Name of the model of round 0 on its way from the worker that makes it.
INITIAL = "updates/initial"


def partial_name(round: int, site: str, scale: int = 0) -> str:
    """The only name under which `site` may put the sum of its updates of `round` into a transport, for the
    strategy's scale number `scale`."""
    return f"updates/round-{round:04d}-site-{site}-{scale}"


@dataclass(frozen=True)
class MergeTask:
    """Add up what a site's clients delivered in one round, there. `start`: the round's global model."""

    round: int
    site: str
    strategy: Strategy
    codecs: Mapping[Client, Codec]
    works: Mapping[Client, LocalWork]
    start: Ref
    transport: Transport


@dataclass(frozen=True)
class RanksTask:
    """Train a site's clients of one round as one MPI job, which sends the sum of their updates.

    `launcher`: the command that starts the ranks, and `ranks` how many it must start: another number would
    add the updates in another order. `accelerators`: names of those on each node.
    `together`: all ranks train each client, instead of each rank its own. `closes_at`: seconds since the
    epoch after which the round no longer waits; None for never. The rest is as in `TrainTask`.
    """

    round: int
    site: str
    trains: tuple[TrainTask, ...]
    strategy: Strategy
    start: Ref
    transport: Transport
    launcher: str
    ranks: int
    accelerators: tuple[str, ...] = ()
    together: bool = False
    closes_at: float | None = None


@dataclass(frozen=True)
class InitTask:
    """Make the model of round 0."""

    model: Model
    shape: tuple[int, ...]
    classes: int
    seed: int
    transport: Transport


@dataclass(frozen=True)
class EvaluateTask:
    """Score the model at `model_ref` on the central test set in `folder`."""

    round: int
    model: Model
    dataset: Dataset
    folder: str
    work: LocalWork
    model_ref: Ref
    transport: Transport


@dataclass(frozen=True)
class Spent:
    """Seconds a worker spent on one task, by phase, and the process that did it.

    `setup`: to load its libraries, before its first task. `started`: when it began, since the epoch.
    `send`: the part of `encode` in which the update was put into the transport; 0 where it rides in the
    task's result, whose way nobody measures.
    """

    load: float = 0.0
    train: float = 0.0
    encode: float = 0.0
    started: float = 0.0
    host: str = ""
    pid: int = 0
    setup: float = 0.0
    send: float = 0.0


@dataclass(frozen=True)
class Update:
    """A client's answer: where its encoded delta is, and what it took to make it.

    `raw_bytes` is the delta's size before encoding; `ref.size` after; `bytes_down` that of the model
    it started from, or of the differences that this was made of; `raw_down` what the whole would have
    been where there is a downlink codec, else 0. `notes`: what its reader
    should know about this update, such as state that was expected at the site and not found.
    `examples`: those it trains on; it may have been stopped before it saw them all, as `samples` tells.
    `start_loss`, `variance` (see `learning.Evidence`) and `personal`: None unless the strategy asks.
    `afresh`: what its client had kept for the strategy was lost; `notes` say where.
    """

    client: Client
    round: int
    ref: Ref
    samples: int
    steps: int
    planned_steps: int
    first_loss: float
    loss: float
    raw_bytes: int
    spent: Spent = Spent()
    notes: tuple[str, ...] = ()
    bytes_down: int = 0
    raw_down: int = 0
    start_loss: float | None = None
    variance: float | None = None
    personal: Personal | None = None
    examples: int = 0
    afresh: bool = False


#: error: training raised. lost: its worker or block died. late: the round closed first.
#: refused: the update came, but its bytes were not acceptable.
FailureKind = Literal["error", "lost", "late", "refused"]


@dataclass(frozen=True)
class Failure:
    """A client that gave the round nothing, and why. `detail` may hold a traceback; `bytes_up` came
    with an update that was refused."""

    client: Client
    round: int
    kind: FailureKind
    reason: str
    detail: str = ""
    bytes_up: int = 0


Outcome = Update | Failure


@dataclass(frozen=True)
class Assignment:
    """What one client is asked to do in a round. `why`: the planner's reason, where it had a choice."""

    client: Client
    work: LocalWork
    codec: Codec
    why: str = ""


#: Share of a deadline after which clients stop: what they have done then must still be encoded and come.
STOP_SHARE = 0.9


@dataclass(frozen=True)
class RoundPlan:
    """Who trains in `round`, and when it closes.

    It closes when `close_at` updates are in, or `deadline` seconds after its start, or when
    every client has settled; it counts only with at least `quorum` updates.
    """

    round: int
    cohort: tuple[Assignment, ...]
    quorum: int
    close_at: int
    deadline: float | None = None


@dataclass(frozen=True)
class SitePartial:
    """The one sum that `site` sent for `updates` of its clients: `bytes_up` that came to the driver in place
    of the `bytes_there` of those updates; `seconds` that adding them up took there. `in_result`: how many of
    `bytes_up` rode in the task's result.
    """

    site: str
    updates: int
    bytes_up: int
    bytes_there: int
    seconds: float
    in_result: int = 0
