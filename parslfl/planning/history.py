"""What finished rounds showed of each client: its link, its pace, where it came too late.

Folded from the reports in the journal and from nothing else, so that a run that is taken up again
plans as it would have. What a worker says of itself decides its own work; of others only the median.

Does not know: what is decided from it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from statistics import median
from typing import TypeVar

from parslfl.messages import STOP_SHARE, Client, Update
from parslfl.reports import Choice, RoundReport

K = TypeVar("K")

#: Measurements of a kind that are kept of a client.
_KEPT = 3
#: Its last rounds in which it is remembered that it was late.
_REMEMBERED = 5


@dataclass(frozen=True)
class Late:
    """A client had not delivered when its round was over, after `seconds`; it trained the share `keep`.

    One whose site had workers for less than half of the round waited for them: that is not its doing.
    """

    keep: float
    seconds: float


@dataclass(frozen=True)
class Record:
    """One client. `codec`, `keep`: what it was asked for last; `measured`: what it delivered last with.

    `links`: bytes/s of its last uploads. `unseen`: updates since one's way was measured. `paces`: seconds a
    step of its last trainings, by the kept share of the model. `steps`: how many a round has. `late`:
    one entry for each of its last rounds, None where it was not late.
    """

    codec: str = ""
    keep: float = 1.0
    measured: float = 1.0
    links: tuple[float, ...] = ()
    unseen: int = 0
    paces: Mapping[float, tuple[float, ...]] = field(default_factory=dict)
    steps: int = 0
    late: tuple[Late | None, ...] = ()

    def too_late(self, deadline: float | None) -> list[float]:
        """Shares of the model with which it missed a deadline like this one, oldest first."""
        if deadline is None:
            return []
        return [late.keep for late in self.late if late and late.seconds >= STOP_SHARE * deadline]

    def just_late(self, deadline: float | None) -> bool:
        """Whether it missed such a deadline in its last round."""
        return bool(self.late[-1:] and replace(self, late=self.late[-1:]).too_late(deadline))


@dataclass(frozen=True)
class History:
    """All clients. `sizes`: bytes of an update before it is encoded, by the kept share of the model;
    `shares`: bytes after for each byte before, by codec: medians of the last round that had any."""

    clients: Mapping[Client, Record] = field(default_factory=dict)
    sizes: Mapping[float, float] = field(default_factory=dict)
    shares: Mapping[str, float] = field(default_factory=dict)

    def after(self, report: RoundReport) -> History:
        """The history once `report` belongs to it; clients without a `Choice` are left as they were."""
        chosen = {choice.client: choice for choice in report.choices}
        known = [u for u in report.updates if _sane(u.raw_bytes) and _sane(u.ref.size)]
        came = [(chosen[update.client], update) for update in known if update.client in chosen]
        updates = {update.client: update for update in report.updates}
        without = {times.site for times in report.sites if times.ready < report.seconds / 2}
        missed = [failure.client for failure in report.failures if failure.kind == "late"]
        late = {client for client in missed if client.site not in without}
        clients = {
            client: _next(
                self.clients.get(client, Record()),
                choice,
                updates.get(client),
                Late(choice.keep, report.seconds) if client in late else None,
            )
            for client, choice in chosen.items()
        }
        return History(
            {**self.clients, **clients},
            {**self.sizes, **_medians((choice.keep, update.raw_bytes) for choice, update in came)},
            {**self.shares, **_medians((c.codec, u.ref.size / u.raw_bytes) for c, u in came)},
        )

    def link(self, client: Client) -> float | None:
        """Bytes/s of the client's uploads, else the median of its site's clients; None: not known."""
        return self._known(client, lambda record: median(record.links) if record.links else None)

    def pace(self, client: Client) -> float | None:
        """Seconds a step of the client, scaled to the whole model; None before it has delivered."""
        record = self.clients.get(client)
        return self._whole(record) if record else None

    @cached_property
    def typical(self) -> float | None:
        """The median of all clients' paces."""
        found = [pace for pace in map(self._whole, self.clients.values()) if pace]
        return median(found) if found else None

    def training(self, client: Client, keep: float) -> float | None:
        """Seconds that the client trains the share `keep` of the model for, else the median of its site's
        clients; None: not known."""

        def seconds(record: Record) -> float | None:
            pace = self._whole(record)
            return pace * self.cost(keep) * record.steps if pace else None

        return self._known(client, seconds)

    def cost(self, keep: float) -> float:
        """Time of a step with the share `keep` of every layer's units, as a share of the whole model's.

        The median of what clients that trained both have shown, else keep squared, as of a layer between
        two layers. It is never less than that, so that a machine that got faster is noticed.
        """
        return self._costs.get(keep, keep**2)

    def size(self, keep: float) -> float | None:
        """Bytes of an update of the share `keep` of the model, before it is encoded; None: not known."""
        if keep in self.sizes:
            return self.sizes[keep]
        largest = max(self.sizes, default=None)
        return None if largest is None else self.sizes[largest] * (keep / largest) ** 2

    @cached_property
    def _costs(self) -> dict[float, float]:
        both = [record.paces for record in self.clients.values() if 1.0 in record.paces]
        shown = _medians((keep, median(p[keep]) / median(p[1.0])) for p in both for keep in p)
        return {keep: min(1.0, max(keep**2, share)) for keep, share in shown.items()}

    def _whole(self, record: Record) -> float | None:
        paces = record.paces.get(record.measured)
        return median(paces) / self.cost(record.measured) if paces else None

    def _known(self, client: Client, what: Callable[[Record], float | None]) -> float | None:
        own = what(self.clients.get(client, Record()))
        if own is not None:
            return own
        beside = [what(record) for one, record in self.clients.items() if one.site == client.site]
        found = [value for value in beside if value is not None]
        return median(found) if found else None


def _next(before: Record, choice: Choice, update: Update | None, late: Late | None) -> Record:
    """A client's record after a round in which it was asked for `choice`."""
    record = replace(before, codec=choice.codec, keep=choice.keep, late=(*before.late, late)[-_REMEMBERED:])
    if update is None:
        return record
    spent, record = update.spent, replace(record, unseen=before.unseen + 1)
    if _sane(spent.send) and _sane(update.ref.size):
        links = (*before.links, update.ref.size / spent.send)[-_KEPT:]
        record = replace(record, links=links, unseen=0)
    if _sane(spent.train) and _sane(update.steps) and _sane(update.planned_steps):
        paces = (*before.paces.get(choice.keep, ()), spent.train / update.steps)[-_KEPT:]
        paced = {**before.paces, choice.keep: paces}
        record = replace(record, measured=choice.keep, paces=paced, steps=update.planned_steps)
    return record


def _medians(pairs: Iterable[tuple[K, float]]) -> dict[K, float]:
    groups: dict[K, list[float]] = {}
    for key, value in pairs:
        groups.setdefault(key, []).append(value)
    return {key: median(values) for key, values in groups.items()}


def _sane(number: object) -> bool:
    """Whether what a worker says is a number that one can divide by."""
    return isinstance(number, int | float) and math.isfinite(number) and 1e-9 < number < 1e15
