"""The runs of a sweep: which are finished, going on with the others, and how long that will take.

All state is in the run directories, so a sweep that was killed goes on where it was. A run that stopped
below its quorum (it diverged) counts as not finished: each sweep tries its last round again.

Does not know: what is swept, or what its tables look like.
"""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

from sweep_grid import Run, Setting

from parslfl.errors import QuorumError
from parslfl.orchestrator import rounds
from parslfl.reports import Event, RoundReport, RoundStarted
from parslfl.rundir import journal
from parslfl.rundir.records import Scored

#: Rounds after which a run that is only timed is left; the first loads what the others find loaded.
_TIMED = 2


@dataclass(frozen=True)
class Outcome:
    """What one run's journal says; `stopped`: why it went no further, "" if it is whole."""

    run: Run
    reports: tuple[RoundReport, ...]
    stopped: str = ""

    def scored(self) -> list[tuple[int, int, float]]:
        """(rounds done, bytes sent up until then, accuracy in percent) at each evaluation."""
        sent, found = 0, []
        for report in self.reports:
            sent += report.bytes_up
            if report.accuracy is not None:
                found.append((report.round + 1, sent, 100 * report.accuracy))
        return found

    def bytes_up(self) -> int:
        return sum(report.bytes_up for report in self.reports)


@dataclass(frozen=True)
class Went:
    """How a piece of a run went: `start`, seconds until its first round began; `stopped` as in `Outcome`."""

    start: float
    stopped: str = ""


def finished(run: Run) -> bool:
    """Whether all of its rounds are done and the last is scored."""
    last = run.experiment.rounds - 1
    return any(isinstance(line, Scored) and line.round == last for line in journal.events(run.path))


def outcome(run: Run, stopped: str = "") -> Outcome:
    return Outcome(run, tuple(journal.reports(run.path)), stopped)


def time_first(run: Run) -> Went:
    """Begin `run` and leave it after two rounds; `complete` takes it up from there."""
    return _go(run, _TIMED)


def complete(run: Run) -> Went:
    """Do what is left of `run`; what its clients kept from round to round is removed then."""
    went = _go(run, run.experiment.rounds)
    if finished(run):
        shutil.rmtree(run.path / "clients", ignore_errors=True)
    return went


def _go(run: Run, most: int) -> Went:
    began, started = time.monotonic(), list[float]()

    def watch(event: Event) -> None:
        if isinstance(event, RoundStarted):
            started.append(time.monotonic())

    resume = (run.path / "run.yaml").exists()
    going = rounds(run.federation, run.experiment, run.path, resume=resume, watch=watch)
    stopped = ""
    with closing(going):
        try:
            for _, _ in zip(range(most), going, strict=False):
                pass
        except QuorumError as error:  # it diverged: that is a result
            stopped = str(error)
    return Went(started[0] - began if started else 0.0, stopped)


def pace(run: Run) -> float | None:
    """Seconds a round of `run`, from its journal; None before it has one."""
    seconds = [report.seconds for report in journal.reports(run.path)]
    return statistics.median(seconds[1:] or seconds) if seconds else None


def left(todo: Sequence[tuple[Setting, int]], paces: Sequence[tuple[Setting, float]], start: float) -> float:
    """Seconds that runs will take, given for each its setting and the rounds that are left, and `start` for
    each to begin. `paces`: seconds a round of those that were timed; a setting that was not is as fast as
    the mean of all."""
    return sum(start + rounds * _pace(setting, paces) for setting, rounds in todo)


def rounds_left(run: Run) -> int:
    return run.experiment.rounds - len(journal.reports(run.path))


def _pace(setting: Setting, paces: Sequence[tuple[Setting, float]]) -> float:
    alike = [pace for other, pace in paces if other == setting]
    return statistics.mean(alike or [pace for _, pace in paces])
