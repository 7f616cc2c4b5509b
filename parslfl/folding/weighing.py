"""What an update is worth: the evidence for it, its weight and scales, each checked.

Does not know: parameters, or what becomes of an update.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator

from parslfl.errors import PayloadError, RunError, naming
from parslfl.learning import Evidence, LocalWork
from parslfl.messages import Update
from parslfl.protocols import Strategy, is_scaled

#: Beyond these no honest update lies, and the sum of a million within them is still finite.
MAX_WEIGHT, MAX_STEPS = 1e12, 1_000_000_000
#: In sums of float32 less is soon nothing: were all weights so small, their mean would be 0 / 0.
MIN_WEIGHT = 1e-36


def worth(update: Update, work: LocalWork, norm: float, strategy: Strategy) -> tuple[Evidence, float]:
    """What is known of an update that has `norm`, and its weight.

    Raises:
        PayloadError: what it claims is impossible or incomplete.
    """
    evidence = weigh(update, work, norm)
    return evidence, weight_of(evidence, strategy)


def weigh(update: Update, work: LocalWork, norm: float) -> Evidence:
    """What is known of an update, once it is found possible and complete.

    Raises:
        PayloadError: it is not.
    """
    if min(update.samples, update.examples) < 0 or not 0 <= update.steps <= MAX_STEPS:
        raise PayloadError(f"claims {update.samples} samples of {update.examples} in {update.steps} steps")
    measured = {
        "the loss at the global model": (work.start_loss, update.start_loss),
        "the variance of its gradients": (work.variance, update.variance),
    }
    for what, (wanted, value) in measured.items():
        if wanted and (value is None or not 0 <= value < math.inf):
            raise PayloadError(f"brings {value} as {what}; its model must measure that")
    return Evidence(
        samples=update.samples,
        steps=update.steps,
        work=work,
        norm=norm,
        first_loss=update.first_loss,
        loss=update.loss,
        start_loss=update.start_loss if work.start_loss else None,
        variance=update.variance if work.variance else None,
        examples=update.examples,
        afresh=update.afresh,
    )


def weight_of(evidence: Evidence, strategy: Strategy) -> float:
    """How much the update counts.

    Raises:
        PayloadError: the strategy's answer is no possible weight; what the update claims is to blame.
        RunError: the strategy has no answer, for no fault of the update's.
    """
    with _reckoning(strategy, "weight"):
        weight = float(strategy.weight(evidence))
    if weight != 0 and not MIN_WEIGHT <= weight <= MAX_WEIGHT:
        raise PayloadError(
            f"has the impossible weight {weight:g} by {type(strategy).__name__}.weight, from what it claims "
            f"and the strategy's fields: 0, and {MIN_WEIGHT:g} to {MAX_WEIGHT:g}, are possible"
        )
    return weight


def scales_of(evidence: Evidence, strategy: Strategy) -> tuple[float, ...]:
    """What the update is multiplied by, beside its weight: once for each mean that the strategy wants.

    Raises:
        PayloadError, RunError: as in `weight_of`.
    """
    scales: tuple[float, ...] = (1.0,)
    if is_scaled(strategy):
        with _reckoning(strategy, "scales"):
            scales = tuple(map(float, strategy.scales(evidence)))
    if not all(abs(scale) <= MAX_WEIGHT for scale in scales):
        raise PayloadError(
            f"has the impossible scales {scales} by {type(strategy).__name__}.scales, from what it claims "
            f"and the strategy's fields: up to {MAX_WEIGHT:g} are possible"
        )
    return scales


def width_of(found: Iterable[Evidence], strategy: Strategy) -> int:
    """How many scales the updates have.

    Raises:
        RunError: none, or not as many for all.
    """
    widths = {len(scales_of(evidence, strategy)) for evidence in found}
    if len(widths) != 1 or 0 in widths:
        raise RunError(
            f"{type(strategy).__name__}.scales returned {sorted(widths)} scales: give every update "
            "as many, at least one"
        )
    return widths.pop()


def likely_width(work: LocalWork, strategy: Strategy) -> int:
    """How many scales an update will have, judged by a made-up one of `work`.

    Raises:
        PayloadError, RunError: as in `weight_of`.
    """
    some = Evidence(1, 1, work, 1.0, 1.0, 1.0, start_loss=1.0, variance=1.0)
    return len(scales_of(some, strategy))


@contextlib.contextmanager
def _reckoning(strategy: object, method: str) -> Iterator[None]:
    """A division by zero or an overflow follows from what the update claims; all else is a mistake in it."""
    with naming(strategy, method):
        try:
            yield
        except ArithmeticError as error:
            who = f"{type(strategy).__name__}.{method}"
            raise PayloadError(f"claims what {who} has no answer to: {error}") from error
