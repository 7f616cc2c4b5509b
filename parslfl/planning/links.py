"""Which codec a client's update is written with, so that sending it is no bottleneck: a pure choice.

Does not know: what a codec does, only how many bytes it leaves and in which order they are to be tried.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from parslfl.messages import Client
from parslfl.planning.history import History, Record
from parslfl.protocols import Codec

#: Share of its training time that a client may spend on sending.
SHARE = 0.1
#: Seconds of sending that are never too long.
LEAST = 0.1
#: A milder codec is taken only with this much of the allowed time: residuals depend on what was sent before.
ROOM = 0.5
#: Updates whose way was not measured after which a milder codec is tried, to see the link again.
UNSEEN = 5


@dataclass(frozen=True)
class Rung:
    """A codec, its spec, and the bytes that it leaves of each byte, as far as known before a run."""

    codec: Codec
    spec: str
    share: float


@dataclass(frozen=True)
class Ladder:
    """`rungs` from the mildest to the strongest codec; `first`: which of them while nothing is known."""

    rungs: Sequence[Rung]
    first: int


def choose_codec(
    client: Client, history: History, ladder: Ladder, keep: float, deadline: float | None
) -> tuple[Rung, str]:
    """The mildest codec with which the client, which trains the share `keep` of the model, has sent its
    update in `SHARE` of its training time, or in `LEAST` seconds; and why."""
    rungs = ladder.rungs
    record = history.clients.get(client, Record())
    specs = [rung.spec for rung in rungs]
    now = specs.index(record.codec) if record.codec in specs else ladder.first
    rate, training, size = history.link(client), history.training(client, keep), history.size(keep)
    if not record.links and record.just_late(deadline):
        return rungs[min(now + 1, len(rungs) - 1)], "late at the deadline, its link not measured: stronger"
    if rate is None or training is None or size is None:
        return rungs[now], "link not measured yet"
    if record.links and record.unseen >= UNSEEN and now:
        return rungs[now - 1], f"link not measured by {UNSEEN} updates: milder, to see it"
    seconds = [size * history.shares.get(rung.spec, rung.share) / rate for rung in rungs]
    allowed = max(SHARE * training, LEAST)
    good = [i for i, needed in enumerate(seconds) if needed <= allowed * (ROOM if i < now else 1)]
    at = good[0] if good else len(rungs) - 1
    whose = "" if record.links else " (its site's)"
    raw = f" (raw: {_short(seconds[0])} s)" if at else ""
    return rungs[at], (
        f"link {_short(rate / 1e6)} MB/s{whose}, training {_short(training)} s: "
        f"{_short(seconds[at])} s of transfer{raw}"
    )


def _short(number: float) -> str:
    """Two digits, without an exponent."""
    if number < 0.001:
        return "<0.001"
    return f"{number:,.0f}" if number >= 10 else f"{float(f'{number:.2g}'):.6f}".rstrip("0").rstrip(".")
