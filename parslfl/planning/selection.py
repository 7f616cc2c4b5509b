"""Which clients train in a round, and when the round closes: a pure function of the seed.

Does not know: how clients fared before, or how busy their sites are.
"""

from __future__ import annotations

from collections.abc import Sequence

from parslfl.learning import LocalWork
from parslfl.messages import Assignment, Client, RoundPlan
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
) -> RoundPlan:
    """`count` of `roster` without replacement, every subset equally likely, in roster order.

    `quorum` defaults to half the cohort, rounded up; `fastest` to all of it.
    """
    chosen = sorted(generator(seed, "select", round).choice(len(roster), size=count, replace=False))
    return RoundPlan(
        round=round,
        cohort=tuple(Assignment(roster[i], work, codec) for i in chosen),
        quorum=-(-count // 2) if quorum is None else quorum,
        close_at=count if fastest is None else fastest,
        deadline=deadline,
    )
