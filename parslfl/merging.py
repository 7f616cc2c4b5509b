"""From a round's updates to the next global model, on the driver: `merge` apps and one `finish`.

Updates are folded in cohort order into a few running sums ("lanes"), each a chain of merges, so
memory does not grow with the number of clients and the result has the same bits in whatever
order updates arrive. The sums stay on the `Desk`; only small `Merged` notes go through Parsl, which
keeps every result until Python's cycle collector runs.

Does not know: Parsl, or which workers made the updates.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from parslfl.checkpoints import write
from parslfl.codecs import wire
from parslfl.errors import PayloadError, QuorumError
from parslfl.messages import Client, Failure, Outcome, RoundPlan, SitePartial, Update, update_name
from parslfl.params import Params, average, fold, require_like, squared_norm, trained
from parslfl.protocols import Codec, Strategy, Transport

#: Beyond these no honest update lies, and the sum of a million within them is still finite.
MAX_NORM, MAX_WEIGHT = 1e15, 1e12


@dataclass(frozen=True)
class Merged:
    """What a lane holds so far: total weight, how each of its clients ended, sites' sums in it."""

    weight: float = 0.0
    updates: tuple[Update, ...] = ()
    failures: tuple[Failure, ...] = ()
    partials: tuple[SitePartial, ...] = ()


@dataclass(frozen=True)
class Finished:
    """A finished round: accepted updates, failures, checksums of the new model and state ("" if
    there is none), and seconds from the round's start until the model was on disk."""

    updates: tuple[Update, ...]
    failures: tuple[Failure, ...]
    model: str
    state: str
    seconds: float
    partials: tuple[SitePartial, ...] = ()

    @property
    def bytes_up(self) -> int:
        """Bytes of what came to the driver: updates, or the sums of sites that merge theirs."""
        merged = {partial.site for partial in self.partials}
        apart = sum(u.ref.size for u in self.updates if u.client.site not in merged)
        return apart + sum(partial.bytes_up for partial in self.partials)


@dataclass
class Desk:
    """The driver's memory of parameters: all the big arrays it ever holds, in one place.

    `like`: the model the round started from. `state`: the strategy's. `lanes`: running sums, a
    set of arrays a lane, their memory kept from round to round.
    """

    like: Params = field(default_factory=dict)
    state: Params = field(default_factory=dict)
    lanes: dict[int, Params] = field(default_factory=dict)

    def clear(self, lane: int) -> None:
        """Set lane `lane` to zeros."""
        if lane not in self.lanes:
            self.lanes[lane] = {name: np.empty_like(a, order="C") for name, a in trained(self.like).items()}
        for array in self.lanes[lane].values():
            array.fill(0)


@dataclass(frozen=True)
class Folding:
    """How a round's updates are merged; `started` is in `time.monotonic()`'s terms.

    Holds no arrays: Parsl keeps a task's arguments alive long after it is done.
    """

    strategy: Strategy
    codecs: Mapping[Client, Codec]
    transports: Mapping[str, Transport]
    desk: Desk
    started: float


def merge(folding: Folding, lane: int, before: Merged | None, *outcomes: Outcome) -> Merged:
    """Fold `outcomes` into `lane`, after what `before` tells is in it already."""
    if before is None:
        folding.desk.clear(lane)
    note = before or Merged()
    for outcome in outcomes:
        note = _fold(folding, lane, note, outcome)
    return note


def _fold(folding: Folding, lane: int, note: Merged, outcome: Outcome) -> Merged:
    if isinstance(outcome, Failure):
        return replace(note, failures=(*note.failures, outcome))
    transport = folding.transports[outcome.client.site]
    try:
        delta = read_update(outcome, transport, folding.codecs[outcome.client], folding.desk.like)
        weight = weight_of(outcome, folding.strategy)
        fold(folding.desk.lanes[lane], delta, weight)
    except PayloadError as error:
        refused = Failure(outcome.client, outcome.round, "refused", str(error))
        return replace(note, failures=(*note.failures, refused))
    finally:
        discard(outcome, transport)
    folded = replace(outcome, ref=replace(outcome.ref, data=b""))  # its bytes are in the sum now
    return replace(note, weight=note.weight + weight, updates=(*note.updates, folded))


def discard(update: Update, transport: Transport) -> None:
    """Forget an update's bytes, and nothing else that its reference might name."""
    if update.ref.path in {"", update_name(update.round, update.client)}:
        with contextlib.suppress(PayloadError, OSError):
            transport.drop(update.ref)


def read_update(update: Update, transport: Transport, codec: Codec, like: Params) -> Params:
    """The decoded delta, once it is known to be whole, of the right shape, and finite.

    Raises:
        PayloadError: it is not.
    """
    if update.ref.path not in {"", update_name(update.round, update.client)}:
        raise PayloadError(f"points at {update.ref.path!r}, which is not this update's place")
    arrays, note = wire.unpack(transport.get(update.ref), update.ref.checksum)
    try:
        delta = codec.decode(arrays, note, like)
    except PayloadError:
        raise
    except Exception as error:
        raise PayloadError(f"cannot be decoded: {type(error).__name__}: {error}") from error
    require_sane(delta)
    return delta


def require_sane(delta: Params, weight: float = 1.0) -> None:
    """Check that `delta`, a sum of updates of that total weight, is finite and of possible size.

    Raises:
        PayloadError: it is not.
    """
    norm = math.sqrt(squared_norm(delta))
    if not norm <= MAX_NORM * weight:
        what = f"has the norm {norm:.3g}" if math.isfinite(norm) else "holds NaN or Inf"
        raise PayloadError(f"{what}: the client's training diverged; a lower --lr may help")


def weight_of(update: Update, strategy: Strategy) -> float:
    """How much `update` counts.

    Raises:
        PayloadError: its numbers are impossible.
    """
    if update.samples < 0 or update.steps < 0:
        raise PayloadError(f"claims {update.samples} samples in {update.steps} steps")
    weight = strategy.weight(update.samples, update.steps)
    if not 0 <= weight <= MAX_WEIGHT:
        raise PayloadError(f"has the impossible weight {weight}")
    return weight


def finish(
    folding: Folding, plan: RoundPlan, model_path: Path, state_path: Path, spare: Path | None, *lanes: Merged
) -> Finished:
    """Make the next global model and write it, with the strategy's state, to the given paths.

    `spare`: the model before the one that this round started from, which is written over.

    Raises:
        QuorumError: fewer updates were accepted than the plan's quorum.
    """
    updates = tuple(sorted((u for lane in lanes for u in lane.updates), key=lambda u: u.client))
    failures = tuple(sorted((f for lane in lanes for f in lane.failures), key=lambda f: f.client))
    weight = sum(lane.weight for lane in lanes)
    if len(updates) < plan.quorum:
        raise QuorumError(_too_few(plan, updates, failures))
    if not weight > 0:
        raise QuorumError(f"round {plan.round + 1}: the accepted updates have no weight at all (no samples)")
    mean = average([folding.desk.lanes[lane] for lane in range(len(lanes))], weight)
    new_state, params = folding.strategy.step(folding.desk.state, folding.desk.like, mean)
    who = f"{type(folding.strategy).__name__}.step"
    require_like(params, folding.desk.like, who)
    if not math.isfinite(squared_norm(trained(params))):
        raise ValueError(f"{who} made a model with NaN or Inf in it")
    model = write(model_path, params, spare)
    kept = write(state_path, new_state) if new_state else ""
    partials = tuple(partial for lane in lanes for partial in lane.partials)
    return Finished(updates, failures, model, kept, time.monotonic() - folding.started, partials)


def _too_few(plan: RoundPlan, updates: Sequence[Update], failures: Sequence[Failure]) -> str:
    causes: dict[str, list[str]] = {}
    for failure in failures:
        causes.setdefault(f"{failure.kind}: {failure.reason}", []).append(str(failure.client))
    ranked = sorted(causes.items(), key=lambda item: -len(item[1]))
    lines = [
        f"  {len(who)} x {cause} ({', '.join(who[:3])}{', ...' if len(who) > 3 else ''})"
        for cause, who in ranked[:5]
    ]
    head = (
        f"round {plan.round + 1}: {len(updates)} of {len(plan.cohort)} clients delivered, "
        f"the quorum is {plan.quorum}. Mend the cause and resume, or lower --quorum:"
    )
    return "\n".join([head, *lines])
