"""From a round's updates to the next global model, on the driver: `merge` apps and one `finish`.

Updates are folded in cohort order into a few running sums ("lanes"), each a chain of merges, so
memory does not grow with the number of clients and the result has the same bits in whatever
order updates arrive. The sums stay on the `Desk`; only small `Merged` notes go through Parsl, which
keeps every result until Python's cycle collector runs. A strategy that needs all updates at once gets
them mapped, at the end: they stay in their files until then.

Does not know: Parsl, or which workers made the updates.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from parslfl.codecs import sparse
from parslfl.codecs.pieces import private
from parslfl.downlink import Outgoing, Taken, take
from parslfl.errors import PayloadError, QuorumError, RunError, naming
from parslfl.folding.checkpoints import mapped, write
from parslfl.folding.desk import Desk, Waiting
from parslfl.folding.parts import kept_of
from parslfl.folding.receiving import came, discard, open_update, read_update
from parslfl.folding.weighing import likely_width, scales_of, width_of, worth
from parslfl.learning import Cohort, Evidence, LocalWork
from parslfl.messages import Client, Failure, Outcome, RoundPlan, SitePartial, Update
from parslfl.params import Params, is_mapped, nbytes, require_like, squared_norm, trained, wide
from parslfl.protocols import Codec, NeedsAll, Strategy, Transport, caution, needs_all
from parslfl.stack import Stack

#: Chains of merges. Two cores fold twice as fast; more would only hold more memory. No setting and nothing of
#: the machine: the order of summation, and so the result's bits, depends on it.
_LANES = 2
#: Updates that are added together: the sum is then read and written once for so many.
_TOGETHER = 4
#: Those that wait are added once they hold more than one part in so many of what the model takes.
SHARE = 4


@dataclass(frozen=True)
class Merged:
    """What a lane holds so far; `evidence` has one for each of `updates`, `partials` tell of sites' sums."""

    weight: float = 0.0
    updates: tuple[Update, ...] = ()
    failures: tuple[Failure, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    partials: tuple[SitePartial, ...] = ()


@dataclass(frozen=True)
class Finished:
    """A finished round: accepted updates, failures, checksums of the new model and state ("" if
    there is none), seconds from the round's start until the model was on disk, and with a downlink codec
    checksums of the difference and of what it left out. `caution`: what the strategy does not hold, with
    fewer updates than were planned."""

    updates: tuple[Update, ...]
    failures: tuple[Failure, ...]
    model: str
    state: str
    seconds: float
    partials: tuple[SitePartial, ...] = ()
    difference: str = ""
    residual: str = ""
    caution: str = ""


@dataclass(frozen=True)
class Folding:
    """How a round's updates are merged; `started` is in `time.monotonic()`'s terms.

    `works`: what each client was asked to do. `clients`: how many the federation has. `spill`: folder
    for updates that are held and not mapped already; None leaves them in memory. `downlink`: how the
    round's step is written, where it goes out as a difference.
    Holds no arrays: Parsl keeps a task's arguments alive long after it is done.
    """

    strategy: Strategy
    codecs: Mapping[Client, Codec]
    transports: Mapping[str, Transport]
    desk: Desk
    started: float
    works: Mapping[Client, LocalWork]
    clients: int
    spill: Path | None = None
    downlink: Outgoing | None = None

    @property
    def lanes(self) -> int:
        """Chains of merges; one where each would hold two models, since together they are to hold two."""
        width = 1
        with contextlib.suppress(PayloadError, RunError):  # of a made-up update: real ones will tell
            width = likely_width(next(iter(self.works.values()), LocalWork()), self.strategy)
        return 1 if self.in_parts or width > 1 else _LANES

    @property
    def in_parts(self) -> bool:
        """Whether any client was asked for a part of the model only."""
        return any(work.keep < 1 for work in self.works.values())


def merge(folding: Folding, lane: int, before: Merged | None, *outcomes: Outcome) -> Merged:
    """Fold `outcomes` into `lane`, after what `before` tells is in it already."""
    note = merge_on(folding, lane, before, *outcomes)
    _add(folding, lane)
    return note


def merge_on(folding: Folding, lane: int, before: Merged | None, *outcomes: Outcome) -> Merged:
    """As `merge`, which must come after it in the same lane: sparse updates may wait for more of them.

    Not those that are mapped: others can write to the files, and the longer what was checked lies there, the
    more can happen to it.
    """
    if before is None and not needs_all(folding.strategy):
        begin(folding, lane)
    note = before or Merged()
    for outcome in outcomes:
        note = _fold(folding, lane, note, outcome)
        if _enough(folding.desk.waiting.get(lane, ()), folding.desk.like):
            _add(folding, lane)
    if not all(one.patient for one in folding.desk.waiting.get(lane, ())):
        _add(folding, lane)
    return note


def begin(folding: Folding, lane: int) -> None:
    """Nothing is in `lane`; where it will be the only one, the others' memory is given back."""
    folding.desk.clear(lane)
    if lane == 0 and folding.lanes == 1:
        folding.desk.keep_first_lane()


def _fold(folding: Folding, lane: int, note: Merged, outcome: Outcome) -> Merged:
    if isinstance(outcome, Failure):
        return replace(note, failures=(*note.failures, outcome))
    transport = folding.transports[outcome.client.site]
    try:
        evidence, weight = _take(folding, lane, outcome, transport)
    except PayloadError as error:
        refused = Failure(outcome.client, outcome.round, "refused", str(error), "", came(outcome, transport))
        return replace(note, failures=(*note.failures, refused))
    finally:
        waiting = folding.desk.waiting.get(lane, ())
        if outcome.client not in folding.desk.held and not any(one.update is outcome for one in waiting):
            discard(outcome, transport)
    folded = replace(outcome, ref=replace(outcome.ref, data=b""))  # its bytes are in the sum soon
    updates, seen = (*note.updates, folded), (*note.evidence, evidence)
    return replace(note, weight=note.weight + weight, updates=updates, evidence=seen)


def _take(folding: Folding, lane: int, update: Update, transport: Transport) -> tuple[Evidence, float]:
    """Let the update wait, or hold it where the strategy needs all; what is known of it, and its weight.

    Raises:
        PayloadError: it cannot be used; nothing has been done with it then.
    """
    client, desk, strategy = update.client, folding.desk, folding.strategy
    if needs_all(strategy):
        whole, norm = read_update(update, transport, folding.codecs[client], desk.like)
        evidence, weight = worth(update, folding.works[client], norm, folding.strategy)
        if weight:
            place = folding.spill and folding.spill / f"held-{client.index:05d}"
            desk.held[client] = mapped(whole, place)
        return evidence, weight
    delta, norm = open_update(update, transport, folding.codecs[client], desk.like)
    evidence, weight = worth(update, folding.works[client], norm, strategy)
    kept = kept_of(delta)
    if kept and folding.works[client].keep == 1:
        raise PayloadError("is of a part of the model, though the whole was asked for")
    weights = tuple(weight * scale for scale in scales_of(evidence, strategy))
    if folding.in_parts:
        desk.count(lane, kept, weight)
    patient = sparse.is_sparse(delta) and not any(map(is_mapped, delta.holds))
    desk.waiting[lane].append(
        Waiting(update, delta, weights, private(delta) + sparse.scratch(delta), patient)
    )
    return evidence, weight


def _enough(waiting: Sequence[Waiting], like: Params) -> bool:
    """Whether those that wait are to be added now: so many that more would gain little, or in memory that
    counts, which mapped files are not in."""
    most = sparse.TOGETHER if all(sparse.is_sparse(one.delta) for one in waiting) else _TOGETHER
    return len(waiting) >= most or sum(one.memory for one in waiting) > nbytes(like) / SHARE


def _add(folding: Folding, lane: int) -> None:
    """Add all that wait to the lane's sums, in order, and forget them and their files."""
    waiting = folding.desk.waiting.get(lane, [])
    for number in range(min((len(one.weights) for one in waiting), default=0)):
        folding.desk.add(lane, number, [(one.delta, one.weights[number]) for one in waiting])
    updates = [one.update for one in waiting]
    waiting.clear()  # before their files go: on some file systems, what is mapped stays
    for update in updates:
        discard(update, folding.transports[update.client.site])


def finish(
    folding: Folding, plan: RoundPlan, model_path: Path, state_path: Path, spare: Path | None, *lanes: Merged
) -> Finished:
    """Make the next global model and write it, with the strategy's state, to the given paths.

    `spare`: the model before the one that this round started from, which is written over.

    Raises:
        QuorumError: fewer updates were accepted than the plan's quorum.
    """
    accepted = sorted(
        ((u, e) for lane in lanes for u, e in zip(lane.updates, lane.evidence, strict=True)),
        key=lambda pair: pair[0].client,
    )
    updates = tuple(update for update, _ in accepted)
    failures = tuple(sorted((f for lane in lanes for f in lane.failures), key=lambda f: f.client))
    weight = sum(lane.weight for lane in lanes)
    if len(updates) < plan.quorum:
        raise QuorumError(_too_few(plan, updates, failures))
    if not weight > 0:
        raise QuorumError(
            f"round {plan.round + 1}: {type(folding.strategy).__name__}.weight gives none of the accepted "
            "updates any weight (clients without an example or a step have none): give clients more data or "
            "time, or choose another strategy"
        )
    if needs_all(folding.strategy):
        mean, cohort = _combined(folding, folding.strategy, accepted)
    else:
        mean, cohort = _averaged(folding, len(lanes), weight, [evidence for _, evidence in accepted])
    with naming(folding.strategy, "step"):
        new_state, params = folding.strategy.step(folding.desk.state, folding.desk.like, mean, cohort)
    _require_sound(folding, params)
    kept = write(state_path, new_state) if new_state else ""
    doubt = _caution(folding.strategy, len(cohort.evidence), plan.close_at)
    del new_state, mean, cohort  # a difference needs their memory
    params = dict(params)
    taken = _taken(folding, params)
    model = write(model_path, taken.model, spare)
    partials = tuple(partial for lane in lanes for partial in lane.partials)
    seconds = time.monotonic() - folding.started
    return Finished(
        updates, failures, model, kept, seconds, partials, taken.difference, taken.residual, doubt
    )


def _caution(strategy: Strategy, updates: int, planned: int) -> str:
    """What the strategy does not hold with so few updates; before the run it was asked of those planned."""
    if updates >= planned:
        return ""
    with naming(strategy, "caution"):
        return caution(strategy, updates)


def _require_sound(folding: Folding, params: Params) -> None:
    """Refuse a model that leads nowhere.

    Raises:
        RunError: it is not like the one before.
        ValueError: there are numbers in it that are none.
    """
    who = f"{type(folding.strategy).__name__}.step"
    require_like(params, folding.desk.like, who)
    _require_finite(params, who)


def _taken(folding: Folding, params: Params) -> Taken:
    """The step to `params`, as the strategy wants it or as a downlink codec writes it.

    Raises:
        RunError: it cannot be written.
        ValueError: it leads nowhere.
    """
    if folding.downlink is None:
        return Taken(params)
    folding.desk.totals.clear()  # only `params` may hold on to them now
    taken = take(folding.downlink, folding.desk.like, params, folding.desk.residual)
    _require_finite(taken.model, "the downlink codec")
    return taken


def _require_finite(params: Params, who: str) -> None:
    if not math.isfinite(squared_norm(trained(params))):
        raise ValueError(f"{who} made a model with NaN or Inf in it: lower the strategy's lr or --lr")


def _averaged(
    folding: Folding, lanes: int, weight: float, evidence: Sequence[Evidence]
) -> tuple[Params, Cohort]:
    """The means of a linear strategy; of the memory only theirs is left, where more will be needed."""
    width = width_of(evidence, folding.strategy)
    mean, *extra = (folding.desk.mean(lanes, scale, weight) for scale in range(width))
    if folding.desk.state or folding.downlink:
        folding.desk.keep_first_lane()
    return mean, Cohort(tuple(evidence), folding.clients, tuple(extra))


def _combined(
    folding: Folding, strategy: NeedsAll, accepted: Sequence[tuple[Update, Evidence]]
) -> tuple[Params, Cohort]:
    """What the strategy makes of all updates, in cohort order; these are forgotten then."""
    desk = folding.desk
    voting = [(update, evidence) for update, evidence in accepted if update.client in desk.held]
    cohort = Cohort(tuple(evidence for _, evidence in voting), folding.clients)
    stack = Stack(tuple(desk.held[update.client] for update, _ in voting))
    desk.clear(0)
    mean = dict(desk.sums(0, 0))
    with naming(strategy, "combine"):
        strategy.combine(stack, cohort, mean)
    require_like(mean, wide(desk.like), f"{type(strategy).__name__}.combine")
    del stack
    desk.held.clear()  # before their files may be written over
    for update, _ in voting:
        discard(update, folding.transports[update.client.site])
    return desk.narrow(mean), cohort


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
