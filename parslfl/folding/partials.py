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
from pathlib import Path

from parslfl.codecs import wire
from parslfl.codecs.layout import stand_in
from parslfl.codecs.raw import Raw
from parslfl.errors import PayloadError
from parslfl.folding.checkpoints import mapped
from parslfl.folding.desk import Desk
from parslfl.folding.folding import Folding
from parslfl.folding.merging import Merged, begin, merge, without_bytes
from parslfl.folding.receiving import MAX_NORM, sane
from parslfl.folding.weighing import scales_of, weigh, weight_of
from parslfl.learning import Evidence
from parslfl.messages import Client, Failure, MergeTask, Outcome, Ref, SitePartial, Update, partial_name
from parslfl.params import Params, fold, squared_norm, wide
from parslfl.protocols import Buffer, Strategy, Transport
from parslfl.tasks import receive
from parslfl.transport.file import UPDATES, File

#: A sum is at most as long as its terms together, and a little more where these were rounded.
_ROUNDING = 1.01
#: Each update was found to be sound where it was added, so the client is not to blame.
_UNLIKE = (
    "the site's merge or its transport is at fault, not its updates: look there, or let the driver merge "
    "(sites.{site}.merge=driver; not with kind: mpi)"
)


@dataclass(frozen=True)
class Partial:
    """A site's part of a round: `refs` say where `sum(weight * scale * delta)` over `merged.updates` lies, in
    cohort order and in the dtypes of `params.wide`, for each of the strategy's scales; without an update
    there are none. `seconds`: what adding up took.
    """

    site: str
    round: int
    refs: tuple[Ref, ...]
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
    desk = Desk(like=_shapes(task.transport, task.start))
    reading = {task.site: _Lasting(task.transport)}
    spill = Path(task.transport.root) / UPDATES if isinstance(task.transport, File) else None
    folding = Folding(task.strategy, task.codecs, reading, desk, started, task.works, len(task.works), spill)
    merged = merge(folding, 0, None, *outcomes)
    sums = [desk.sums(0, scale) for scale in range(width(merged, task.strategy))]
    partial = stored(task.site, task.round, merged, sums, task.transport)
    return replace(partial, seconds=time.monotonic() - started)


def _shapes(transport: Transport, ref: Ref) -> Params:
    """Arrays like the global model's; where that is in the worker's own memory, it is given back."""
    model = receive(transport, ref).params
    found = {name: stand_in(array.dtype, *array.shape) for name, array in model.items()}
    receive.cache_clear()
    return found


def width(merged: Merged, strategy: Strategy) -> int:
    """How many sums the strategy wants of what was `merged`; 0 if that is nothing."""
    return len(scales_of(merged.evidence[0], strategy)) if merged.evidence else 0


def stored(site: str, round: int, merged: Merged, sums: Sequence[Params], transport: Transport) -> Partial:
    """The partial whose sums are `sums`, put where the driver finds them."""
    refs = []
    for scale, one in enumerate(sums):
        packed = wire.pack(one)
        refs.append(transport.put(partial_name(round, site, scale), packed.buffers, packed.checksum))
    return Partial(site, round, tuple(refs), merged)


def nothing(site: str, round: int, outcomes: Sequence[Outcome], why: str = "") -> Partial:
    """The partial of a site whose sum there is not, for the reason `why`: nobody delivered."""
    failures = tuple(
        o if isinstance(o, Failure) else Failure(o.client, o.round, "lost", why) for o in outcomes
    )
    return Partial(site, round, (), Merged(failures=failures))


def reported(answer: object, site: str, round: int, clients: Sequence[Client]) -> tuple[Outcome, ...]:
    """What a site that trained and merged in one says of each of its `clients`, in their order.

    Raises:
        PayloadError: it is not the answer to what was asked.
    """
    partial = _own(answer, site, round)
    outcomes: list[Outcome] = [*partial.merged.updates, *partial.merged.failures]
    told = {outcome.client: outcome for outcome in outcomes if outcome.round == round}
    if set(told) != set(clients) or len(outcomes) != len(clients):
        raise PayloadError("its clients are not those that were asked for")
    return tuple(told[client] for client in clients)


def agreed(answer: object, site: str, round: int, outcomes: Sequence[Outcome]) -> Partial:
    """A site's `answer`, with the driver's own record of its clients' `outcomes`.

    Of the site's word remain which updates it refused, and why; the norms of the others, which `fold_partial`
    bounds but cannot check; and `seconds`, which only a report shows.

    Raises:
        PayloadError: it is not the answer to what was asked.
    """
    partial = _own(answer, site, round)
    refused = {f.client: replace(f, bytes_up=0) for f in partial.merged.failures if f.kind == "refused"}
    seen = {u.client: e for u, e in zip(partial.merged.updates, partial.merged.evidence, strict=True)}
    updates = tuple(o for o in outcomes if isinstance(o, Update) and o.client in seen)
    lacking = [o for o in outcomes if isinstance(o, Update) and o.client not in seen]
    if len(updates) != len(partial.merged.updates) or any(o.client not in refused for o in lacking):
        raise PayloadError("its clients are not those that delivered")
    failures = (*(o for o in outcomes if isinstance(o, Failure)), *(refused[o.client] for o in lacking))
    evidence = tuple(seen[update.client] for update in updates)
    return replace(partial, merged=Merged(updates=updates, failures=failures, evidence=evidence))


def _own(answer: object, site: str, round: int) -> Partial:
    """`answer`, once it is known to be a partial of `site` for `round`, with what belongs into one."""
    if not isinstance(answer, Partial) or (answer.site, answer.round) != (site, round):
        raise PayloadError("the worker answered for another task")
    merged = answer.merged
    kinds: list[tuple[object, type]] = [(answer.refs, Ref)]
    if isinstance(merged, Merged):
        kinds += [(merged.updates, Update), (merged.failures, Failure), (merged.evidence, Evidence)]
    good = isinstance(merged, Merged) and all(
        isinstance(items, tuple) and all(isinstance(item, kind) for item in items) for items, kind in kinds
    )
    if not good or len(merged.updates) != len(merged.evidence):
        raise PayloadError("the worker's answer is not what a merge returns")
    return answer


def fold_partial(folding: Folding, lane: int, before: Merged | None, partial: Partial) -> Merged:
    """Add a site's sum to `lane`, after what `before` tells is in it already."""
    if before is None:
        begin(folding, lane)
    note, merged = before or Merged(), partial.merged
    failures = (*note.failures, *merged.failures)
    if not merged.updates:
        return replace(note, failures=failures)
    try:
        weight, evidence = _fold(folding, lane, partial)
    except PayloadError as error:
        why = f"the sum of site {partial.site}: {error}"
        lost = (Failure(u.client, u.round, "refused", why) for u in merged.updates)
        return replace(note, failures=(*failures, *lost))
    finally:
        discard_partial(partial, folding.transports[partial.site])
    return Merged(
        note.weight + weight,
        (*note.updates, *map(without_bytes, merged.updates)),
        failures,
        (*note.evidence, *evidence),
        (*note.partials, _record(partial)),
    )


def _fold(folding: Folding, lane: int, partial: Partial) -> tuple[float, list[Evidence]]:
    """Check the sums and add them; their weight and evidence by the driver's own reckoning.

    The updates' norms are the site's word: the sum may not be longer than they allow.
    """
    evidence = [
        weigh(update, folding.works[update.client], _norm(seen))
        for update, seen in zip(partial.merged.updates, partial.merged.evidence, strict=True)
    ]
    weights = [weight_of(one, folding.strategy) for one in evidence]
    scales = [scales_of(one, folding.strategy) for one in evidence]
    wanted = len(scales[0])
    if len(partial.refs) != wanted:
        raise PayloadError(f"brings {len(partial.refs)} arrays of sums, not {wanted}")
    norms = [weight * one.norm for weight, one in zip(weights, evidence, strict=True)]
    limits = [
        _ROUNDING * sum(norm * abs(scale[number]) for norm, scale in zip(norms, scales, strict=True))
        for number in range(wanted)
    ]
    folding.desk.settle(lane)  # these take the memory of what waits
    sums = [_read(folding, partial, n, ref, limits[n]) for n, ref in enumerate(partial.refs)]
    for number, one in enumerate(sums):  # none is added before all are known to be good
        fold(folding.desk.sums(lane, number), one, 1.0)
    return sum(weights), evidence


def _norm(seen: Evidence) -> float:
    if not isinstance(seen.norm, float) or not 0 <= seen.norm <= MAX_NORM:
        raise PayloadError(f"claims an update of the norm {seen.norm!r}")
    return seen.norm


def _read(folding: Folding, partial: Partial, scale: int, ref: Ref, limit: float) -> Params:
    if ref.path not in {"", partial_name(partial.round, partial.site, scale)}:
        raise PayloadError(f"points at {ref.path!r}, which is not its place")
    arrays, note = wire.unpack(folding.transports[partial.site].get(ref), ref.checksum)
    sums = Raw().decode(arrays, note, wide(folding.desk.like))
    sane(math.sqrt(squared_norm(sums)), limit, _UNLIKE.format(site=partial.site))
    if len(partial.refs) == 1:
        return sums
    return mapped(sums, folding.spill and folding.spill / f"sum-{partial.site}-{scale}")


def discard_partial(partial: Partial, transport: Transport) -> None:
    """Forget a partial's bytes, and nothing else that its references might name."""
    for scale, ref in enumerate(partial.refs):
        if ref.path == partial_name(partial.round, partial.site, scale):
            with contextlib.suppress(PayloadError, OSError):
                transport.drop(ref)


def _record(partial: Partial) -> SitePartial:
    return SitePartial(
        partial.site,
        len(partial.merged.updates),
        bytes_up=sum(ref.size for ref in partial.refs),
        bytes_there=sum(update.ref.size for update in partial.merged.updates),
        seconds=partial.seconds,
        in_result=sum(ref.size for ref in partial.refs if not ref.path),
    )
