"""What runs reached, in numbers for the cells of a table: means and spreads over seeds.

Does not know: how runs are made, or which table the numbers go into.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import Literal

from sweep_grid import Setting
from sweep_runs import Outcome

#: Share of the rounds, the last ones, whose mean is where a run ended up: with few classes a client a single
#: evaluation moves by points from round to round.
LAST = 0.25

Score = Literal["best", "last", "end"]
SCORES: tuple[Score, ...] = ("best", "last", "end")


def accuracy(one: Outcome, score: Score) -> float | None:
    """Percent; None if the run stopped early, or was never scored."""
    found = [(done, percent) for done, _, percent in one.scored()]
    if one.stopped or not found:
        return None
    if score == "best":
        return max(percent for _, percent in found)
    from_here = found[-1][0] - (LAST * found[-1][0] if score == "end" else 1)
    return statistics.mean(percent for done, percent in found if done > from_here)


def by_setting(found: Iterable[Outcome]) -> dict[Setting, list[Outcome]]:
    """The runs of each setting, in the order in which the settings come."""
    sorted_out: dict[Setting, list[Outcome]] = {}
    for one in found:
        sorted_out.setdefault(one.run.setting, []).append(one)
    return sorted_out


def over_seeds(runs: Sequence[Outcome], score: Score) -> str:
    """`54.5 (53.9 to 55.1)`, or how many of the runs stopped early."""
    found = [accuracy(one, score) for one in runs]
    numbers = [number for number in found if number is not None]
    stopped = f"{len(found) - len(numbers)} of {len(found)} stopped" if len(numbers) < len(found) else ""
    return ", ".join(filter(None, [_spread(numbers), stopped]))


def _spread(numbers: Sequence[float]) -> str:
    if not numbers:
        return ""
    mean = f"{statistics.mean(numbers):.1f}"
    return mean if len(numbers) == 1 else f"{mean} ({min(numbers):.1f} to {max(numbers):.1f})"


def below(mine: Sequence[Outcome], plain: Sequence[Outcome], score: Score) -> str:
    """Points by which `mine` are below `plain`, mean over the seeds that both have; negative is above."""
    bar = {one.run.seed: accuracy(one, score) for one in plain}
    pairs = [(bar.get(one.run.seed), accuracy(one, score)) for one in mine]
    gaps = [theirs - ours for theirs, ours in pairs if theirs is not None and ours is not None]
    return f"{statistics.mean(gaps):+.2f}" if gaps else "-"


def sent(mine: Sequence[Outcome]) -> float:
    """Bytes that came up in a run, mean over the seeds."""
    return statistics.mean(one.bytes_up() for one in mine)


def bytes_and_times(mine: Sequence[Outcome], plain: Sequence[Outcome]) -> list[str]:
    """Bytes up of a run, and how many times fewer than of `plain`: of runs that went to their end."""
    if any(one.stopped for one in [*mine, *plain]) or not plain:
        return [f"{sent(mine):,.0f}", "-"]
    return [f"{sent(mine):,.0f}", f"{sent(plain) / sent(mine):.1f}"]


def training(mine: Sequence[Outcome]) -> float:
    """Median seconds that a worker trained a client."""
    spent = [u.spent.train for one in mine for report in one.reports for u in report.updates]
    return statistics.median(spent) if spent else float("nan")


def personal(mine: Sequence[Outcome]) -> tuple[float, float] | None:
    """Mean accuracy of the clients' own models and of the global one on the same examples, in percent, over
    the last round's clients; None where they have none."""
    updates = [u for one in mine for report in one.reports[-1:] for u in report.updates]
    found = [update.personal for update in updates if update.personal is not None]
    if not found:
        return None
    own, ours = ([p.accuracy for p in found], [p.global_accuracy for p in found])
    return 100 * statistics.mean(own), 100 * statistics.mean(ours)
