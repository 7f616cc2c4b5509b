"""How large a part of the model a client trains, so that nobody waits for a slow one: a pure choice.

Does not know: how a smaller model is made, or how much memory a client has.
"""

from __future__ import annotations

from collections.abc import Sequence

from parslfl.messages import Client
from parslfl.planning.history import History, Record

#: Shares of each hidden layer's units that a client may keep.
KEEPS = (1.0, 0.75, 0.5, 0.25)
#: How much slower than the median client one may be.
SLOWER = 1.5
#: Seconds of training that are never too long: so short ones say little of a client.
LEAST = 1.0
#: Share of a deadline that training may take: the model must come, and the update go.
SHARE = 0.8
#: A larger model is given back only with this much of either limit.
ROOM = 2 / 3


def choose_keep(client: Client, history: History, deadline: float | None) -> tuple[float, str]:
    """The largest of `KEEPS` with which the client keeps up with the median client and with the deadline,
    smaller than any with which it was late in its last rounds; and why."""
    record = history.clients.get(client, Record())
    late = record.too_late(deadline)
    allowed = [keep for keep in KEEPS if not late or keep < min(late)] or [KEEPS[-1]]
    pace, typical = history.pace(client), history.typical
    if pace is None or typical is None:
        return allowed[0], _late(late) if late else "pace not measured yet"
    slower = pace / typical

    def burden(keep: float) -> float:
        seconds = pace * history.cost(keep) * record.steps
        behind = slower * history.cost(keep) / SLOWER if seconds > LEAST else 0.0
        return max(behind, seconds / (SHARE * deadline) if deadline else 0.0)

    good = [keep for keep in allowed if burden(keep) <= (ROOM if keep > record.keep else 1)]
    keep = good[0] if good else KEEPS[-1]
    seconds = pace * record.steps
    of = f", the whole model takes {seconds:.2g} s of {deadline:g} s" if deadline else ""
    told = f"{slower:.2g} x the median's seconds a step{of}"
    return keep, f"{_late(late)}; {told}" if late and keep == allowed[0] else told


def _late(keeps: Sequence[float]) -> str:
    least = min(keeps)
    part = f"{100 * least:.0f} % of the units" if least < 1 else "the whole model"
    return f"late at the deadline with {part}"
