"""Aggregation that a minority of faulty or hostile clients cannot steer.

    Median       coordinate-wise median             Yin et al. 2018, "Byzantine-Robust Distributed
    TrimmedMean  coordinate-wise, ends cut off      Learning", Algorithm 1, options I and II
    Krum         the update nearest to its n-f-2    Blanchard et al. 2017, "Machine Learning with
                 neighbours, or the mean of the     Adversaries", sections 4 and 5.3 (multi-Krum)
                 `keep` nearest
    GeometricMedian  argmin_v sum_i ||v - d_i||     Pillutla et al. 2022, "Robust Aggregation for
                 by smoothed Weiszfeld iterations   Federated Learning", Algorithm 2
    NormClip     mean of min(1, norm / ||d_i||) d_i Sun et al. 2019, "Can You Really Backdoor
                                                    Federated Learning?", section 4

Where f clients may be hostile, all but the clips may first mix: each update becomes the mean of its n - f
nearest, itself among them (Allouah et al. 2023, "Fixing by Mixing", NNM: nearest neighbour mixing). What
sets honest updates apart from each other averages out, so that no liar can hide within it.

All but NormClip with a fixed norm need every update of a round at once: these stay in files, in the shared
folder that they came through or else the run's, until the round ends (one model a client, mapped, so the
driver's own memory stays that of FedAvg) and cannot be merged at their sites. Clients count alike, whatever
number of samples they claim.

Does not know: who is hostile.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from parslfl.learning import Cohort, Evidence, LocalWork
from parslfl.params import Params
from parslfl.stack import Matrix, Rows, Stack, in_order, squared_distances
from parslfl.strategies.fedavg import apply, require_no_less, require_positive

Row = npt.NDArray[np.float64]

#: The least distance that one divides by (Pillutla et al., section 4).
_SMOOTH = 1e-6
#: Iterations end when no weight changes by more; some tens do, unless rounding keeps weights moving.
_SETTLED, _MOST = 1e-9, 1000


@dataclass(frozen=True, kw_only=True)
class _Alike:
    """What robust strategies share: every client with samples has one vote."""

    lr: float = 1.0

    def __post_init__(self) -> None:
        require_positive("lr", self.lr)

    def local(self, work: LocalWork) -> LocalWork:
        return work

    def weight(self, evidence: Evidence) -> float:
        return 1.0 if evidence.samples else 0.0

    def start(self, params: Params) -> Params:
        return {}

    def step(self, state: Params, params: Params, mean: Params, cohort: Cohort) -> tuple[Params, Params]:
        return state, apply(params, mean, self.lr)


@dataclass(frozen=True, kw_only=True)
class _Mixing(_Alike):
    """What those share that may mix the updates first; `mix`: how many clients may be hostile, 0 mixes none.

    Mixing takes n^2 products of updates and as many additions; what comes after must stand against as many.
    """

    mix: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_whole("mix", self.mix, 0)

    def caution(self, updates: int) -> str:
        least = 2 * self.mix + 1
        if self.mix and updates < least:
            return (
                f"mixes against {self.mix} hostile clients: that takes {least} updates a round, not {updates}"
            )
        return ""

    def mixed(self, stack: Stack) -> Stack:
        if not self.mix:
            return stack
        near = max(1, len(stack) - self.mix)
        nearest = stack.squared_distances().argsort(axis=1, kind="stable")[:, :near]
        shares = np.zeros((len(stack), len(stack)))
        np.put_along_axis(shares, nearest, 1 / near, axis=1)
        return stack.mixed(shares)


@dataclass(frozen=True, kw_only=True)
class Median(_Mixing):
    """The middle value of every coordinate; of an even number, the mean of the middle two.

    Needs all updates of a round, kept until its end. Sorts every coordinate: five times as long as
    FedAvg's sum for 20 clients. Holds against fewer than half.
    """

    def combine(self, stack: Stack, cohort: Cohort, out: Params) -> None:
        self.mixed(stack).reduce(lambda rows: _middle(rows, (len(rows) - 1) // 2), out)


@dataclass(frozen=True, kw_only=True)
class TrimmedMean(_Mixing):
    """The mean of every coordinate without its lowest and highest `cut` share of the values.

    Needs all updates of a round, kept until its end; sorts as Median does. Holds against `cut`.
    """

    cut: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.cut < 0.5:
            raise ValueError(f"cut must be at least 0 and below 0.5, got {self.cut}")

    def caution(self, updates: int) -> str:
        if self.cut and not self._off(updates):
            return f"cuts nothing off {updates} updates: their plain mean, which one client can steer"
        if self.mix > self._off(updates):
            return f"cuts {self._off(updates)} off each end of {updates} updates, fewer than it mixes against"
        return super().caution(updates)

    def combine(self, stack: Stack, cohort: Cohort, out: Params) -> None:
        self.mixed(stack).reduce(lambda rows: _middle(rows, self._off(len(rows))), out)

    def _off(self, updates: int) -> int:
        """How many are cut off each end: 0.29 of 100 are 29, though their product is a little less."""
        return min(int(self.cut * updates + 1e-9), (updates - 1) // 2)


@dataclass(frozen=True, kw_only=True)
class Krum(_Mixing):
    """The mean of the `keep` updates whose n - f - 2 nearest neighbours are nearest (1: Krum; else
    multi-Krum), with f = `hostile` clients of n; equal scores go by the cohort's order.

    Needs all updates of a round, kept until its end, and n^2 products of updates. The proof asks for
    n > 2 f + 2. Krum's one update is noisy: its model is one client's.
    """

    hostile: int = 1
    keep: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_whole("hostile", self.hostile, 0)
        _require_whole("keep", self.keep, 1)

    def caution(self, updates: int) -> str:
        least = 2 * self.hostile + 3
        if updates < least:
            return f"is proven to hold for {least} updates a round and more, not for {updates}"
        if self.keep > updates - self.hostile:
            return f"keeps more than the {updates - self.hostile} honest ones among {updates} updates"
        if self.mix > self.hostile:
            return f"stands against {self.hostile} hostile clients, but mixes against {self.mix}"
        return super().caution(updates)

    def combine(self, stack: Stack, cohort: Cohort, out: Params) -> None:
        stack = self.mixed(stack)
        chosen = self.choose(stack.squared_distances().tolist())
        stack.only(chosen).weighted([1 / len(chosen)] * len(chosen), out)

    def choose(self, distances: Sequence[Sequence[float]]) -> list[int]:
        """Which updates to average, in order, from their squared distances."""
        count = len(distances)
        near = max(1, count - self.hostile - 2)
        scores = [
            sum(sorted(d for j, d in enumerate(row) if j != i)[:near]) for i, row in enumerate(distances)
        ]
        return sorted(sorted(range(count), key=scores.__getitem__)[: self.keep])


@dataclass(frozen=True, kw_only=True)
class GeometricMedian(_Mixing):
    """The point with the least sum of distances to all updates.

    Needs all updates of a round, kept until its end, and n^2 products of updates: the iterations work on
    these alone, since every iterate is a weighted mean of the updates. They begin near the update that has
    the least sum: from the mean, one huge update would take very many. Holds against fewer than half.
    """

    def combine(self, stack: Stack, cohort: Cohort, out: Params) -> None:
        stack = self.mixed(stack)
        stack.weighted(self.weights(stack.products()).tolist(), out)

    def weights(self, products: Matrix) -> Row:
        """What each update counts, of 1 in all, from their inner products about an origin near to them.

        ||v - d_i||^2 for v = sum_j found_j d_j is reckoned about an update that has most others near. A huge
        one counts the less the longer it is, so that no term is then much larger than the honest distances.
        From the squared distances alone, two terms as long as it is would have to cancel, and rounding would
        take one update for v.
        """
        away = np.sqrt(squared_distances(products))
        nearest = away[away.sum(axis=1).argmin()]
        found = _shares(nearest + np.median(nearest))
        inmost = int(np.median(away, axis=1).argmin())
        about = products - products[inmost]
        about -= about[:, inmost, None]
        for _ in range(_MOST):
            towards = about @ found
            moved = about.diagonal() - 2 * towards + found @ towards
            found, before = _shares(np.sqrt(np.maximum(moved, 0))), found
            if np.abs(found - before).max() < _SETTLED:
                break
        return found


@dataclass(frozen=True, kw_only=True)
class NormClip(_Alike):
    """Every update shortened to at most `norm`, then averaged. Linear: costs no more than FedAvg.

    It bounds what a client can do, and does not take it away: for large updates that are few.
    """

    norm: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive("norm", self.norm)

    def scales(self, evidence: Evidence) -> tuple[float, ...]:
        return (min(1.0, self.norm / evidence.norm) if evidence.norm else 1.0,)


@dataclass(frozen=True, kw_only=True)
class MedianClip(_Alike):
    """As NormClip, to `factor` times the median norm of the round's updates.

    Needs all updates of a round, kept until its end: only then is the median known.
    """

    factor: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive("factor", self.factor)

    def combine(self, stack: Stack, cohort: Cohort, out: Params) -> None:
        norms = [e.norm for e in cohort.evidence]
        most = self.factor * float(np.median(norms))
        stack.weighted([min(1.0, most / norm if norm else 1.0) / len(norms) for norm in norms], out)


def _require_whole(name: str, number: object, least: int) -> None:
    if not isinstance(number, int):
        raise ValueError(f"{name} must be a whole number, got {number!r}")  # noqa: TRY004 - as other fields
    require_no_less(name, number, least)


def _shares(distances: Row) -> Row:
    near: Row = 1 / np.maximum(distances, _SMOOTH)
    near /= near.sum()
    return near


def _middle(rows: Rows, cut: int) -> Rows:
    """The mean of each column without its `cut` lowest and highest values; rows are added in order."""
    ordered = in_order(rows)
    total: Rows = ordered[cut]
    for row in ordered[cut + 1 : len(ordered) - cut]:
        total += row
    total /= len(ordered) - 2 * cut
    return total
