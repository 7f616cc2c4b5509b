"""The end of a round: what its lanes have summed becomes the next global model, on disk.

Does not know: Parsl, or how updates came and were folded.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from parslfl.downlink import Taken, take
from parslfl.errors import QuorumError, naming
from parslfl.folding.checkpoints import write
from parslfl.folding.folding import Folding
from parslfl.folding.merging import Merged
from parslfl.folding.receiving import discard
from parslfl.folding.states import not_finite, require_state
from parslfl.folding.weighing import width_of
from parslfl.learning import Cohort, Evidence
from parslfl.messages import Failure, RoundPlan, SitePartial, Update
from parslfl.params import Params, require_like, wide
from parslfl.protocols import NeedsAll, Strategy, caution, needs_all
from parslfl.stack import Stack
from parslfl.transport.buffers import POOL


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


def finish(
    folding: Folding, plan: RoundPlan, model_path: Path, state_path: Path, spare: Path | None, *lanes: Merged
) -> Finished:
    """Make the next global model and write it, with the strategy's state, to the given paths.

    `spare`: the model before the one that this round started from, which is written over.

    Raises:
        QuorumError: fewer updates were accepted than the plan's quorum.
        RunError, TypeError, ValueError: by a fault of the strategy's or the downlink codec's, which is named;
            no model is written then.
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
    require_state(new_state, folding.desk.state, folding.strategy)
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
        TypeError, ValueError: it is not like the one before, or has NaN or Inf in it.
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
    if not_finite(params):
        raise ValueError(f"{who} made a model with NaN or Inf in it: lower the strategy's lr or --lr")


def _averaged(
    folding: Folding, lanes: int, weight: float, evidence: Sequence[Evidence]
) -> tuple[Params, Cohort]:
    """The means of a linear strategy; of the memory only theirs is left, where more will be needed."""
    width = width_of(evidence, folding.strategy)
    mean, *extra = (folding.desk.mean(lanes, scale, weight) for scale in range(width))
    if folding.desk.state or folding.downlink or folding.in_stores:
        folding.desk.keep_first_lane()
        POOL.forget()
    return mean, Cohort(tuple(evidence), folding.clients, tuple(extra), folding.room_for_state())


def _combined(
    folding: Folding, strategy: NeedsAll, accepted: Sequence[tuple[Update, Evidence]]
) -> tuple[Params, Cohort]:
    """What the strategy makes of all updates, in cohort order; these are forgotten then.

    Raises:
        RunError, TypeError, ValueError: `combine` failed, or what it made is no mean.
    """
    desk = folding.desk
    voting = [(update, evidence) for update, evidence in accepted if update.client in desk.held]
    cohort = Cohort(tuple(e for _, e in voting), folding.clients, room=folding.room_for_state())
    stack = Stack(tuple(desk.held[update.client] for update, _ in voting))
    desk.clear(0)
    mean = dict(desk.sums(0, 0))
    with naming(strategy, "combine"):
        strategy.combine(stack, cohort, mean)
    who = f"{type(strategy).__name__}.combine"
    require_like(mean, wide(desk.like), who)
    if not_finite(mean):
        raise ValueError(
            f"{who} made a mean with NaN or Inf in it, of updates that have none: look there for a division "
            "by zero or an overflow"
        )
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
