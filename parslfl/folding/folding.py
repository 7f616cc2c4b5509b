"""How a round's updates are to be merged, and what memory that may take.

The driver, and a worker that merges for its site, have a budget of three models: by what sums, updates in
hand and the next state take, updates are added in one chain or two, and what does not fit lies in files.

Does not know: how updates are merged, or what any codec writes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from parslfl import submodel
from parslfl.downlink import Outgoing
from parslfl.errors import PayloadError, RunError
from parslfl.folding import scratch
from parslfl.folding.desk import Desk
from parslfl.folding.weighing import likely_width
from parslfl.learning import LocalWork
from parslfl.messages import Client
from parslfl.params import Params, nbytes, trained, wide
from parslfl.protocols import Codec, Strategy, Transport, at_most, in_hand, needs_all

#: Chains of merges. Two cores fold twice as fast; more would only hold more memory. No setting and nothing of
#: the machine: the order of summation, and so the result's bits, depends on it.
_LANES = 2
#: What sums, what waits and updates in hand may take, or sums, means and a next state, in models: of three,
#: pieces of a few megabytes have the rest.
_MODELS = 2.85


@dataclass(frozen=True)
class Folding:
    """How a round's updates are merged; `started` is in `time.monotonic()`'s terms.

    `works`: what each client was asked to do. `clients`: how many the federation has. `spill`: folder
    for updates that are held and not mapped already, and for what else would take too much memory; None
    leaves all in memory. `downlink`: how the round's step is written, where it goes out as a difference.
    `summed`: the sites whose updates come as one sum.
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
    summed: frozenset[str] = frozenset()

    @cached_property
    def lanes(self) -> int:
        """Chains of merges: one where more could take too much memory."""
        return _LANES if _LANES * (self._sums + self._hand) <= self._budget else 1

    @cached_property
    def room(self) -> float:
        """Bytes that may wait in a lane while an update is opened."""
        return self._budget / self.lanes - self._sums - self._hand

    @cached_property
    def folder(self) -> Path | None:
        """Where files for the sums are, if these would take too much memory: in one chain with an update in
        hand, or in a step with the next state."""
        return self.spill if max(self._sums + self._hand, self._end) > self._budget else None

    @property
    def in_stores(self) -> bool:
        """Whether the next model is in memory when it goes out."""
        return any(map(_fetches, self.transports.values()))

    def room_for_state(self) -> Params:
        """In a file, where the means and a new state would take too much memory; else none."""
        state = self.desk.state
        much = self.spill is not None and self._narrowed + nbytes(state) > self._budget
        return scratch.empty_like(state, self.spill) if much else {}

    @property
    def _narrowed(self) -> int:
        """Bytes of means that are in another dtype than their sums."""
        own = nbytes(trained(self.desk.like))
        return self._width * own if nbytes(wide(self.desk.like)) > own else 0

    @property
    def _budget(self) -> float:
        return _MODELS * nbytes(trained(self.desk.like))

    @cached_property
    def _sums(self) -> int:
        """Bytes of a lane's sums: for each of the strategy's scales, and those that count."""
        if needs_all(self.strategy):
            return 0
        return (self._width + self.in_parts) * nbytes(wide(self.desk.like))

    @cached_property
    def _width(self) -> int:
        """How many sums the strategy wants, and how many means it gets."""
        if not needs_all(self.strategy):
            with contextlib.suppress(PayloadError, RunError):  # of a made-up update: real ones will tell
                return likely_width(next(iter(self.works.values()), LocalWork()), self.strategy)
        return 1

    @property
    def _end(self) -> int:
        """Bytes of what a step is made of: sums, their means, and the next state."""
        return self._width * nbytes(wide(self.desk.like)) + self._narrowed + nbytes(self.desk.state)

    @cached_property
    def _hand(self) -> float:
        """Bytes that an update takes at most while it is opened and added, or made dense where it is held."""
        kinds = {(id(codec), client.site): codec for client, codec in self.codecs.items()}
        most = max((self._in_hand(codec, site) for (_, site), codec in kinds.items()), default=0.0)
        return most + (submodel.most(self.desk.like) if self.in_parts else 0)

    def _in_hand(self, codec: Codec, site: str) -> float:
        like, fetched = self.desk.like, _fetches(self.transports[site])
        if site in self.summed:
            return nbytes(wide(like)) if fetched else 0
        dense = nbytes(trained(like)) if needs_all(self.strategy) else 0
        return in_hand(codec, like) + dense + (at_most(codec, like) if fetched else 0)

    @cached_property
    def in_parts(self) -> bool:
        """Whether any client was asked for a part of the model only."""
        return any(work.keep < 1 for work in self.works.values())


def _fetches(transport: Transport) -> bool:
    return bool(getattr(transport, "fetches", False))
