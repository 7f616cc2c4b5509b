"""One sum for a whole site: its clients' updates are added up next to them, and only the sum travels.

The site checks every update exactly as the driver would, with the driver's own code: a bad one is a
`Failure` in the partial. The driver keeps its own record of what each client reported, and checks the sum.

Does not know: Parsl, or when a site is asked.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from parslfl.codecs import wire
from parslfl.codecs.raw import Raw
from parslfl.errors import PayloadError
from parslfl.merging import Desk, Folding, Merged, merge, require_sane, weight_of
from parslfl.messages import Client, Failure, MergeTask, Outcome, Ref, SitePartial, Update, partial_name
from parslfl.params import Params, fold
from parslfl.protocols import Buffer, Transport
from parslfl.tasks import read_model


@dataclass(frozen=True)
class Partial:
    """A site's part of a round: `ref` is where `sum(weight * delta)` over `merged.updates` lies, in cohort
    order and in the model's dtypes; it is empty if there are none. `seconds`: what adding up took.
    """

    site: str
    round: int
    ref: Ref
    merged: Merged
    seconds: float = 0.0


@dataclass(frozen=True)
class _Lasting:
    """The site's transport, which forgets nothing: a merge that is tried again finds its updates."""

    inner: Transport

    def put(self, name: str, buffers: Sequence[Buffer], checksum: str) -> Ref:
        ref: Ref = self.inner.put(name, buffers, checksum)
        return ref

    def get(self, ref: Ref) -> memoryview:
        return self.inner.get(ref)

    def drop(self, ref: Ref) -> None:
        """Nothing: the driver does it, once the partial is in."""

    def has(self, name: str) -> bool:
        return self.inner.has(name)


def merge_site(task: MergeTask, *outcomes: Outcome) -> Partial:
    """Add up the updates among `outcomes`, which are in cohort order, on one of the site's workers."""
    started = time.monotonic()
    desk = Desk(like=read_model(task.transport, task.start))
    reading = {task.site: _Lasting(task.transport)}
    folding = Folding(task.strategy, task.codecs, reading, desk, started)
    merged = merge(folding, 0, None, *outcomes)
    partial = stored(task.site, task.round, merged, desk.lanes[0], task.transport)
    return replace(partial, seconds=time.monotonic() - started)


def stored(site: str, round: int, merged: Merged, sums: Params, transport: Transport) -> Partial:
    """The partial whose sum is `sums`, put where the driver finds it."""
    ref = Ref(0, "")
    if merged.updates:
        packed = wire.pack(sums)
        ref = transport.put(partial_name(round, site), packed.buffers, packed.checksum)
    return Partial(site, round, ref, merged)


def nothing(site: str, round: int, outcomes: Sequence[Outcome], why: str = "") -> Partial:
    """The partial of a site whose sum there is not, for the reason `why`: nobody delivered."""
    failures = tuple(
        o if isinstance(o, Failure) else Failure(o.client, o.round, "lost", why) for o in outcomes
    )
    return Partial(site, round, Ref(0, ""), Merged(failures=failures))


def reported(answer: object, site: str, round: int, clients: Sequence[Client]) -> tuple[Outcome, ...]:
    """What a site that trained and merged in one says of each of its `clients`, in their order.

    Raises:
        PayloadError: it is not the answer to what was asked.
    """
    if not isinstance(answer, Partial) or (answer.site, answer.round) != (site, round):
        raise PayloadError("the worker answered for another task")
    outcomes: list[Outcome] = [*answer.merged.updates, *answer.merged.failures]
    told = {outcome.client: outcome for outcome in outcomes if outcome.round == round}
    if set(told) != set(clients) or len(outcomes) != len(clients):
        raise PayloadError("its clients are not those that were asked for")
    return tuple(told[client] for client in clients)


def agreed(answer: object, site: str, round: int, outcomes: Sequence[Outcome]) -> Partial:
    """A site's `answer`, with the driver's own record of its clients' `outcomes`.

    Of the site's word only remains which updates it refused, and why.

    Raises:
        PayloadError: it is not the answer to what was asked.
    """
    if not isinstance(answer, Partial) or (answer.site, answer.round) != (site, round):
        raise PayloadError("the worker answered for another task")
    refused = {f.client: f for f in answer.merged.failures if f.kind == "refused"}
    taken = {u.client for u in answer.merged.updates}
    updates = tuple(o for o in outcomes if isinstance(o, Update) and o.client in taken)
    lacking = [o for o in outcomes if isinstance(o, Update) and o.client not in taken]
    if len(updates) != len(answer.merged.updates) or any(o.client not in refused for o in lacking):
        raise PayloadError("its clients are not those that delivered")
    failures = (*(o for o in outcomes if isinstance(o, Failure)), *(refused[o.client] for o in lacking))
    return replace(answer, merged=Merged(updates=updates, failures=failures))


def fold_partial(folding: Folding, lane: int, before: Merged | None, partial: Partial) -> Merged:
    """Add a site's sum to `lane`, after what `before` tells is in it already."""
    if before is None:
        folding.desk.clear(lane)
    note, merged = before or Merged(), partial.merged
    failures = (*note.failures, *merged.failures)
    if not merged.updates:
        return replace(note, failures=failures)
    try:
        weight = _fold(folding, lane, partial)
    except PayloadError as error:
        why = f"the sum of site {partial.site}: {error}"
        lost = (Failure(u.client, u.round, "refused", why) for u in merged.updates)
        return replace(note, failures=(*failures, *lost))
    finally:
        discard_partial(partial, folding.transports[partial.site])
    return Merged(
        note.weight + weight,
        (*note.updates, *(replace(u, ref=replace(u.ref, data=b"")) for u in merged.updates)),
        failures,
        (*note.partials, _record(partial)),
    )


def _fold(folding: Folding, lane: int, partial: Partial) -> float:
    """Check the sum and add it; returns its weight, by the driver's own reckoning."""
    if partial.ref.path not in {"", partial_name(partial.round, partial.site)}:
        raise PayloadError(f"points at {partial.ref.path!r}, which is not its place")
    weight = math.fsum(weight_of(update, folding.strategy) for update in partial.merged.updates)
    arrays, note = wire.unpack(folding.transports[partial.site].get(partial.ref), partial.ref.checksum)
    sums = Raw().decode(arrays, note, folding.desk.like)
    require_sane(sums, weight)
    fold(folding.desk.lanes[lane], sums, 1.0)
    return weight


def discard_partial(partial: Partial, transport: Transport) -> None:
    """Forget a partial's bytes, and nothing else that its reference might name."""
    if partial.ref.path == partial_name(partial.round, partial.site):
        with contextlib.suppress(PayloadError, OSError):
            transport.drop(partial.ref)


def _record(partial: Partial) -> SitePartial:
    there = sum(update.ref.size for update in partial.merged.updates)
    count = len(partial.merged.updates)
    return SitePartial(partial.site, count, partial.ref.size, there, partial.seconds)
