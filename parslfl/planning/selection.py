"""Which clients train in a round, and when the round closes: a pure function of what it is given.

Does not know: how clients fared before, or how it is found out how long their sites make them wait.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from parslfl.learning import LocalWork
from parslfl.messages import STOP_SHARE, Assignment, Client, RoundPlan
from parslfl.protocols import Codec
from parslfl.seeding import generator


def plan_round(
    round: int,
    roster: Sequence[Client],
    count: int,
    seed: int,
    work: LocalWork,
    codec: Codec,
    *,
    quorum: int | None = None,
    fastest: int | None = None,
    deadline: float | None = None,
    waits: Mapping[str, float] = MappingProxyType({}),
) -> RoundPlan:
    """`count` of `roster` without replacement, every subset equally likely, in roster order.

    `quorum` defaults to half the cohort, rounded up; `fastest` to all of it. `waits`: seconds
    until a site can begin, where that is known: only `in_time` clients are drawn.
    """
    able = in_time(roster, count, deadline, waits)
    chosen = sorted(generator(seed, "select", round).choice(len(able), size=count, replace=False))
    return RoundPlan(
        round=round,
        cohort=tuple(Assignment(able[i], work, codec) for i in chosen),
        quorum=-(-count // 2) if quorum is None else quorum,
        close_at=count if fastest is None else fastest,
        deadline=deadline,
    )


def in_time(
    roster: Sequence[Client], count: int, deadline: float | None, waits: Mapping[str, float]
) -> Sequence[Client]:
    """Those of `roster` whose site can begin before clients stop; all, if these are fewer than `count`."""
    if deadline is None:
        return roster
    able = [client for client in roster if waits.get(client.site, 0.0) < STOP_SHARE * deadline]
    return able if len(able) >= count else roster
