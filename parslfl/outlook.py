"""How the sites stand: before a round, all asked at once, for a bounded time, and in the planner's words;
meanwhile, those that wait in their queues.

What they said is kept in the run directory, so that a round that a killed driver had begun is
planned again as it was.

Does not know: how a site finds out, or what is planned from it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from parslfl.errors import RunError
from parslfl_executors.signals import Block, SiteSignals

if TYPE_CHECKING:
    from parsl.dataflow.dflow import DataFlowKernel

#: Seconds that a round waits for schedulers to say how they stand.
_PATIENCE = 5.0
#: Seconds between two looks at whether a site waits: an idle cluster has begun by the first.
_PERIOD = 15.0

Signals = Mapping[str, SiteSignals]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outlook:
    """The sites of one run; `told`: what was kept before it was taken up again, by round."""

    file: Path
    kernel: DataFlowKernel
    sites: Sequence[str]
    told: Mapping[int, Signals]

    @classmethod
    def of(cls, run: Path, kernel: DataFlowKernel, sites: Sequence[str]) -> Outlook:
        """For the run in directory `run`."""
        return cls(run / "signals.jsonl", kernel, sites, kept(run))

    def waits(self, round: int) -> dict[str, float]:
        """Seconds until each site can take a task as `round` is planned, where that is known."""
        found = self.told.get(round)
        if found is None:
            found = look(self.kernel, self.sites)
            self._keep(round, found)
        known = {site: told.soonest() for site, told in found.items()}
        return {site: seconds for site, seconds in known.items() if seconds is not None}

    def _keep(self, round: int, found: Signals) -> None:
        """Not forced to disk: a power failure costs a plan, which is made anew."""
        entry = {"round": round, "signals": {site: asdict(told) for site, told in found.items()}}
        try:
            with self.file.open("a") as stream:
                stream.write(json.dumps(entry) + "\n")
        except OSError as error:
            raise RunError(f"cannot write {self.file}: {error.strerror}") from None


def look(kernel: DataFlowKernel, sites: Sequence[str]) -> dict[str, SiteSignals]:
    """The signals of those of `sites` that tell in time, in their order."""
    from parslfl.launch import signals  # loads Parsl, which `kept` does not need

    found: dict[str, SiteSignals] = {}

    def ask(site: str) -> None:
        try:
            told = signals(kernel, site)
        except Exception as error:  # noqa: BLE001 - a scheduler that is away costs the round no more than news
            _log.warning("%s does not say how it stands: %s", site, error)
            return
        if told is not None:
            found[site] = told

    threads = [threading.Thread(target=ask, args=[site], daemon=True) for site in sites]
    for thread in threads:
        thread.start()
    until = time.monotonic() + _PATIENCE
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    return {site: found[site] for site in sites if site in found}


@contextlib.contextmanager
def vigil(
    kernel: DataFlowKernel, sites: Sequence[str], tell: Callable[[str, str], object], period: float = _PERIOD
) -> Iterator[None]:
    """Meanwhile, `tell` (site, reason) of every site that waits in its queue: once for each reason.

    A site that waits for hours is no failure, but whoever looks on wants to know.
    """
    from parslfl.launch import waiting

    over, told = threading.Event(), dict[str, str]()

    def look_on() -> None:
        while not over.wait(period):
            for site in sites:
                try:
                    reason = waiting(kernel, site)
                except Exception as error:  # noqa: BLE001 - the next look may do better
                    _log.warning("%s does not say why it waits: %s", site, error)
                    continue
                if reason and told.get(site) != reason:
                    tell(site, reason)
                told[site] = reason

    watcher = threading.Thread(target=look_on, name="parslfl-vigil", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def kept(run: Path) -> dict[int, Signals]:
    """How the sites stood before each planned round of the run in `run`; damaged lines are skipped."""
    try:
        lines = (run / "signals.jsonl").read_text(errors="replace").splitlines()
    except OSError:
        return {}
    return dict(filter(None, map(_line, lines)))


def _line(text: str) -> tuple[int, Signals] | None:
    try:
        entry = json.loads(text)
        return int(entry["round"]), {site: _signals(told) for site, told in entry["signals"].items()}
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def _signals(entry: dict[str, object]) -> SiteSignals:
    blocks = entry["blocks"]
    told = tuple(Block(**block) for block in blocks) if isinstance(blocks, list) else ()
    return SiteSignals(**{**entry, "blocks": told})  # type: ignore[arg-type]  # a TypeError, where it is damaged
