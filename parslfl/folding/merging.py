"""A round's updates become sums, on the driver, as they come: `merge` apps.

Updates are folded in cohort order into a few running sums ("lanes"), each a chain of merges, so
memory does not grow with the number of clients and the result has the same bits in whatever
order updates arrive. The sums stay on the `Desk`; only small `Merged` notes go through Parsl, which
keeps every result until Python's cycle collector runs. For a strategy that needs all updates at once they
stay in their files, mapped, until `finishing`.

Does not know: Parsl, or which workers made the updates.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace

from parslfl.codecs import sparse
from parslfl.codecs.pieces import private
from parslfl.errors import PayloadError
from parslfl.folding.checkpoints import mapped
from parslfl.folding.desk import Desk, Waiting
from parslfl.folding.folding import Folding
from parslfl.folding.parts import kept_of
from parslfl.folding.receiving import came, discard, open_update, read_update
from parslfl.folding.weighing import scales_of, worth
from parslfl.learning import Evidence
from parslfl.messages import Failure, Outcome, SitePartial, Update
from parslfl.params import is_mapped, nbytes
from parslfl.protocols import Transport, needs_all

#: Updates that are added together: the sum is then read and written once for so many.
_TOGETHER = 4
#: Those that wait are added once they hold more than one part in so many of what the model takes. In a lane
#: without a sum, which a mean may never need, sparse ones may hold more; in both lanes less than a sum takes.
SHARE, _FIRST_SHARE = 4, 2.4
#: Updates of `brief` codecs, up to so many bytes, are opened one at a time in all lanes. One thread after the
#: other has the interpreter for it: two take turns a dozen times an update, and twice as long.
_SHORT = 1 << 20
_turn, _at_once = threading.Lock(), contextlib.nullcontext()
#: Of two lanes, the first to begin says where all sums are.
_begun = threading.Lock()


@dataclass(frozen=True)
class Merged:
    """What a lane holds so far; `evidence` has one for each of `updates`, `partials` tell of sites' sums."""

    weight: float = 0.0
    updates: tuple[Update, ...] = ()
    failures: tuple[Failure, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    partials: tuple[SitePartial, ...] = ()


def merge(folding: Folding, lane: int, before: Merged | None, *outcomes: Outcome) -> Merged:
    """Fold `outcomes` into `lane`, after what `before` tells is in it already.

    The last sparse updates may be left waiting: a mean adds them as well, and so does `Desk.sums`.
    """
    note = merge_on(folding, lane, before, *outcomes)
    if folding.desk.unsummed(lane) is None:
        folding.desk.settle(lane)
    return note


def merge_on(folding: Folding, lane: int, before: Merged | None, *outcomes: Outcome) -> Merged:
    """As `merge`, where it or this comes again in the same lane: sparse updates may wait for more of them.

    Not those that are mapped: others can write to the files, and the longer what was checked lies there, the
    more can happen to it.
    """
    if before is None:
        begin(folding, lane)
    note = before or Merged()
    for outcome in outcomes:
        if _are_many(folding.desk, lane) or _memory(folding.desk, lane) > folding.room:
            _add(folding, lane)
        with _turn if _is_short(folding, outcome) else _at_once:
            note = _fold(folding, lane, note, outcome)
        if _are_heavy(folding.desk, lane):
            _add(folding, lane)
    if not all(one.patient for one in folding.desk.waiting.get(lane, ())):
        _add(folding, lane)
    return note


def _is_short(folding: Folding, outcome: Outcome) -> bool:
    """Whether to fold it is mostly Python's work, and its bytes are at hand."""
    if isinstance(outcome, Failure) or needs_all(folding.strategy):
        return False
    ref, codec = outcome.ref, folding.codecs[outcome.client]
    at_hand = ref.path != "" or len(ref.data) == ref.size
    return at_hand and ref.size <= _SHORT and getattr(codec, "brief", False)


def begin(folding: Folding, lane: int) -> None:
    """Nothing is in `lane`; where it will be the only one, the others' memory is given back, and all where
    none is needed yet."""
    folding.desk.clear(lane)
    with _begun:
        folding.desk.keep_in(folding.folder)
    if needs_all(folding.strategy):
        folding.desk.totals.clear()
    elif lane == 0 and folding.lanes == 1:
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
        in_file = (one.update for one in folding.desk.waiting.get(lane, ()) if not one.patient)
        if outcome.client not in folding.desk.held and not any(update is outcome for update in in_file):
            discard(outcome, transport)
    return Merged(
        note.weight + weight,
        (*note.updates, without_bytes(outcome)),
        note.failures,
        (*note.evidence, evidence),
        note.partials,
    )


def without_bytes(update: Update) -> Update:
    """`update`, of which only what is known of it is kept."""
    if not update.ref.data:
        return update
    return replace(update, ref=replace(update.ref, data=b""))


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
    if patient:
        update = without_bytes(update)
    desk.waiting[lane].append(Waiting(update, delta, weights, private(delta), patient))
    return evidence, weight


def _are_many(desk: Desk, lane: int) -> bool:
    """Whether so many wait that more would gain little."""
    waiting = desk.waiting.get(lane, ())
    return len(waiting) >= (sparse.TOGETHER if _are_light(waiting) else _TOGETHER)


def _are_heavy(desk: Desk, lane: int) -> bool:
    """Whether those that wait hold memory that counts."""
    first = _are_light(desk.waiting.get(lane, ())) and not desk.has_sums(lane)
    return _memory(desk, lane) > nbytes(desk.like) / (_FIRST_SHARE if first else SHARE)


def _memory(desk: Desk, lane: int) -> float:
    """Bytes that those that wait hold; mapped files do not count."""
    return sum(one.memory for one in desk.waiting.get(lane, ()))


def _are_light(waiting: Sequence[Waiting]) -> bool:
    return all(sparse.is_sparse(one.delta) for one in waiting)


def _add(folding: Folding, lane: int) -> None:
    """Add all that wait to the lane's sums, in order, and forget them and their files."""
    waiting = folding.desk.waiting.get(lane, ())
    in_files = [one.update for one in waiting if not one.patient]
    folding.desk.settle(lane)
    for update in in_files:  # only now: on some file systems, what is mapped stays
        discard(update, folding.transports[update.client.site])
