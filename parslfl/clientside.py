"""The part of a strategy that its clients do: what steers their training, and what they keep at their site.

Does not know: which strategy it is, or how a model trains.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from parslfl.codecs import wire
from parslfl.errors import naming
from parslfl.keep import ClientStore
from parslfl.learning import Guide, LocalWork, Personal, Scores, Trained, Visit
from parslfl.messages import Ref, TrainTask
from parslfl.params import Params, require_like, squared_norm, trained
from parslfl.protocols import ClientSide, Transport, shares


@dataclass(frozen=True)
class ClientPart:
    """A client's part in one round. `kept` is from its last accepted round, or fresh; `notes` say why."""

    task: TrainTask
    strategy: ClientSide
    start: Params
    shared: Params
    kept: Params
    notes: tuple[str, ...]

    @property
    def afresh(self) -> bool:
        """Whether what it had kept is lost."""
        return bool(self.notes)

    def guide(self) -> Guide:
        """What steers its training."""
        with naming(self.strategy, "guide"):
            return self.strategy.guide(self.shared, self.kept)

    def finish(
        self,
        delta: Params,
        steps: int,
        train: Callable[[Params, LocalWork, Guide], Trained],
        score: Callable[[Params], Scores | None],
    ) -> Personal | None:
        """Keep what the strategy says, for the next round that this one is accepted before.

        Raises:
            FloatingPointError: it is no longer finite.
            RunError: it cannot be written.
        """
        task, who = self.task, type(self.strategy).__name__
        visit = Visit(self.start, self.shared, self.kept, delta, steps, task.work, train, score)
        with naming(self.strategy, "keep"):
            kept, personal = self.strategy.keep(visit)
        require_like(kept, self.kept, f"{who}.keep")
        if not math.isfinite(squared_norm(trained(kept))):
            raise FloatingPointError(f"what {who} keeps at the client holds NaN or Inf: lower --lr")
        ClientStore(task.store).save(task.client, who.lower(), task.round, task.accepted, kept)
        return personal


def begin(task: TrainTask, params: Params) -> ClientPart | None:
    """The client's part in `task`, whose global model is `params`; None if the strategy has none."""
    strategy: object = task.strategy
    if not isinstance(strategy, ClientSide):
        return None
    with naming(strategy, "fresh"):
        name, fresh = type(strategy).__name__.lower(), strategy.fresh(params)
    found, notes = ClientStore(task.store).recall(task.client, name, task.accepted, fresh)
    kept = fresh if task.accepted < 0 or notes else found
    shared = read_shared(task.transport, task.shared) if task.shared else {}
    after = ", and all clients with it from the next round" if shares(strategy) else ""
    said = tuple(f"{note.removesuffix(': from zeros')}: begun afresh{after}" for note in notes)
    return ClientPart(task, strategy, params, shared, kept, said)


@lru_cache(maxsize=1)
def read_shared(transport: Transport, ref: Ref) -> Params:
    """The state that the strategy's server shares, mapped and verified once a round and worker."""
    return wire.unpack(transport.get(ref), ref.checksum)[0]
