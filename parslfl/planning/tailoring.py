"""A round's plan, cut to what each client's link and pace are known to be.

Does not know: who was chosen, or why.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from parslfl.messages import Assignment, RoundPlan
from parslfl.planning.history import History
from parslfl.planning.links import Ladder, choose_codec
from parslfl.planning.paces import choose_keep


def tailored(
    plan: RoundPlan, history: History, ladder: Ladder | None, *, shrink: bool, unsent: Collection[str] = ()
) -> RoundPlan:
    """`plan` with a codec from `ladder`, if there is one, and a part of the model, if `shrink`.

    `unsent`: sites whose updates stay there, in memory: their codec is the ladder's mildest.
    """

    def fit(given: Assignment) -> Assignment:
        client, reasons = given.client, list[str]()
        if shrink:
            keep, why = choose_keep(client, history, plan.deadline)
            given = replace(given, work=replace(given.work, keep=keep))
            reasons.append(why)
        if ladder and client.site in unsent:
            given = replace(given, codec=ladder.rungs[0].codec)
            reasons.append("its update stays at its site")
        elif ladder:
            rung, why = choose_codec(client, history, ladder, given.work.keep, plan.deadline)
            given = replace(given, codec=rung.codec)
            reasons.append(why)
        return replace(given, why="; ".join(reasons))

    return replace(plan, cohort=tuple(map(fit, plan.cohort)))
