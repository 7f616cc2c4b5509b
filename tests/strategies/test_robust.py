"""Robust strategies on three-element parameters, worked by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from parslfl.errors import ConfigError
from parslfl.learning import Cohort
from parslfl.params import Params
from parslfl.protocols import NeedsAll, Strategy
from parslfl.specs import parse
from parslfl.stack import Stack
from parslfl.strategies.names import STRATEGIES
from parslfl.strategies.robust import GeometricMedian, Krum, Median, MedianClip, NormClip, TrimmedMean

Aggregated = Callable[..., tuple[Params, Params]]

#: Four that agree about, and one that is far off.
FIVE = [[1, 0, 1], [1, 1, 0], [2, 0, 0], [0, 1, 1], [-100, 100, 1000]]
ALL = [Median(), TrimmedMean(), Krum(), Krum(keep=2), GeometricMedian(), NormClip(norm=2), MedianClip()]


def moved(new: Params) -> list[float]:
    return [float(a - b) for a, b in zip(new["w"], (1, 2, 3), strict=True)]


def test_median_of_an_odd_number(aggregated: Aggregated) -> None:
    assert moved(aggregated(Median(), FIVE)[1]) == [1, 1, 1]


def test_median_of_an_even_number(aggregated: Aggregated) -> None:
    assert moved(aggregated(Median(), FIVE[:4])[1]) == [1, 0.5, 0.5]


def test_trimmed_mean(aggregated: Aggregated) -> None:
    """One of five is cut at both ends: (0 + 1 + 1) / 3, (0 + 1 + 1) / 3, (0 + 1 + 1) / 3."""
    assert moved(aggregated(TrimmedMean(cut=0.2), FIVE)[1]) == pytest.approx([2 / 3, 2 / 3, 2 / 3])


def test_nothing_trimmed_is_the_mean(aggregated: Aggregated) -> None:
    assert moved(aggregated(TrimmedMean(cut=0), FIVE[:4])[1]) == [1, 0.5, 0.5]


def test_the_share_to_cut_is_a_number_of_updates_whatever_its_last_bits() -> None:
    """0.29 * 100 is 28.999999999999996."""
    rows = np.concatenate([np.full(29, -1e6), np.zeros(42), np.full(29, 2e6)]).astype(np.float32)
    out = {"w": np.empty(1, np.float32)}
    stack = Stack(tuple({"w": row.reshape(1)} for row in rows))
    TrimmedMean(cut=0.29).combine(stack, Cohort((), 100), out)
    assert out["w"].tolist() == [0]


@pytest.mark.parametrize(
    "strategy",
    [Median(mix=1), TrimmedMean(cut=0.25, mix=1), Krum(mix=1), Krum(keep=2, mix=1), GeometricMedian(mix=1)],
    ids=repr,
)
def test_updates_are_mixed_with_their_nearest(aggregated: Aggregated, strategy: Strategy) -> None:
    """With f = 1 of 4, each of 0, 1 and 5 becomes 2, their mean; 90 becomes (5 + 1 + 90) / 3 = 32."""
    assert moved(aggregated(strategy, [[0, 0, 0], [90, 90, 90], [1, 1, 1], [5, 5, 5]])[1]) == pytest.approx(
        [2, 2, 2], abs=1e-5
    )


@pytest.mark.parametrize(
    "strategy", [Median(), TrimmedMean(cut=0.2), GeometricMedian(), Krum(hostile=2, keep=6)], ids=repr
)
def test_mixing_leaves_liars_no_noise_to_hide_in(
    strategy: Median | TrimmedMean | GeometricMedian | Krum,
) -> None:
    """Eight clients want one step and differ from it five times as much; two send theirs turned round."""
    rng, wanted = np.random.default_rng(0), np.ones(5000, np.float32)
    rows = wanted + 5 * rng.standard_normal((10, wanted.size), np.float32)
    rows[[3, 8]] *= -5
    stack, shares = Stack(tuple({"w": row} for row in rows)), []
    for one in (strategy, replace(strategy, mix=2)):
        out = {"w": np.empty_like(wanted)}
        one.combine(stack, Cohort((), 10), out)
        shares.append(float(out["w"].mean()))
    assert shares[1] == pytest.approx(rows[[0, 1, 2, 4, 5, 6, 7, 9]].mean(), abs=0.03)
    assert shares[0] < 0.85 or isinstance(strategy, Krum)


@pytest.mark.parametrize(
    ("strategy", "updates", "words"),
    [
        (Median(mix=2), 4, "mixes against 2 hostile clients: that takes 5 updates a round, not 4"),
        (GeometricMedian(mix=2), 5, ""),
        (TrimmedMean(cut=0.4, mix=3), 6, "cuts 2 off each end of 6 updates, fewer than it mixes against"),
        (TrimmedMean(cut=0.2, mix=2), 10, ""),
        (Krum(hostile=1, mix=4), 8, "stands against 1 hostile clients, but mixes against 4"),
        (Krum(hostile=2, mix=2), 7, ""),
        (TrimmedMean(cut=0.2), 4, "cuts nothing off 4 updates"),
        (TrimmedMean(cut=0.2), 5, ""),
        (Krum(hostile=4), 10, "is proven to hold for 11 updates"),
        (Krum(hostile=4, keep=16), 20, ""),
        (Krum(hostile=4, keep=17), 20, "keeps more than the 16 honest ones among 20"),
        (Krum(hostile=0, keep=4), 4, ""),
        (Krum(hostile=0, keep=9), 4, "keeps more than the 4 honest ones"),
    ],
)
def test_what_too_few_updates_mean(strategy: Median | TrimmedMean | Krum, updates: int, words: str) -> None:
    assert strategy.caution(updates).startswith(words)
    assert bool(strategy.caution(updates)) == bool(words)


def test_krum_takes_the_one_in_the_middle(aggregated: Aggregated) -> None:
    """n = 5, f = 1: two nearest. Squared distances among the first four: 2 2 2 | 2 2 2 | 2 2 6 | 2 2 6:
    scores 4, 4, 4, 4 and much; the first wins."""
    assert moved(aggregated(Krum(hostile=1), FIVE)[1]) == [1, 0, 1]
    shifted = [[5, 0, 0], [1, 0, 0], [0, 0, 0], [1, 1, 0], [99, 0, 0]]
    assert moved(aggregated(Krum(hostile=1), shifted)[1]) == [1, 0, 0]  # scores: 32, 2, 3, 3, much


def test_multikrum_averages_the_best(aggregated: Aggregated) -> None:
    """The scores of `shifted` are 32 (16 + 16 or 17), 2, 3, 3: the three best are 1, 2 and 3."""
    shifted = [[5, 0, 0], [1, 0, 0], [0, 0, 0], [1, 1, 0], [99, 0, 0]]
    assert moved(aggregated(Krum(hostile=1, keep=3), shifted)[1]) == pytest.approx([2 / 3, 1 / 3, 0])


def test_geometric_median_of_a_triangle(aggregated: Aggregated) -> None:
    """Fermat's point of (0, 0), (2, 0), (1, sqrt 3) is its centre, (1, 1 / sqrt 3)."""
    corners = [[0, 0, 0], [2, 0, 0], [1, 3**0.5, 0]]
    assert moved(aggregated(GeometricMedian(), corners)[1]) == pytest.approx([1, 3**-0.5, 0], abs=1e-5)


@pytest.mark.parametrize("length", [1e1, 1e4, 1e9, 1e15])
@pytest.mark.parametrize(("liars", "updates"), [(1, 3), (4, 10), (9, 20)])
def test_geometric_median_holds_against_fewer_than_half(liars: int, updates: int, length: float) -> None:
    random = np.random.default_rng(0)
    rows = random.normal(size=(updates, 100)).astype(np.float32) / 10  # of length 1, all but the liars
    rows[:liars] = -length / 10
    out = {"w": np.empty(100, np.float32)}
    stack = Stack(tuple({"w": row} for row in rows))
    GeometricMedian().combine(stack, Cohort((), updates), out)
    assert np.linalg.norm(out["w"]) < 2


@pytest.mark.parametrize("norm", [1e-5, 1e-2, 0.1, 3.0])
def test_how_long_giants_are_makes_no_difference(norm: float) -> None:
    """Seven honest, two giants and a liar 50 times as long: a giant pulls by its direction alone, so that the
    result is that with giants of a thousand times the norm, to that one part in a thousand."""
    random = np.random.default_rng(0)
    rows = random.normal(size=(10, 300)) / 300**0.5
    rows[:7] *= norm
    rows[7] *= 50 * norm
    rows[8:] /= np.linalg.norm(rows[8:], axis=1)[:, None]
    made = []
    for length in (1e3 * norm, *np.geomspace(1e6, 9e14, 40)):
        long = np.where(np.arange(10)[:, None] < 8, rows, length * rows).astype(np.float32)
        stack, out = Stack(tuple({"w": row} for row in long)), {"w": np.empty(300, np.float32)}
        assert GeometricMedian().weights(stack.products()).max() < 0.5
        GeometricMedian().combine(stack, Cohort((), 10), out)
        made.append(out["w"])
    assert max(float(np.linalg.norm(one - made[0])) for one in made[1:]) < 1e-3 * norm


def test_geometric_median_on_a_line_is_the_median(aggregated: Aggregated) -> None:
    line = [[0, 0, 0], [1, 0, 0], [500, 0, 0]]
    assert moved(aggregated(GeometricMedian(), line)[1]) == pytest.approx([1, 0, 0], abs=1e-3)


def test_clipping_shortens_the_long_ones(aggregated: Aggregated) -> None:
    """To norm 1: (3, 4, 0) becomes (0.6, 0.8, 0); (0, 0.5, 0) stays."""
    assert moved(aggregated(NormClip(norm=1), [[3, 4, 0], [0, 0.5, 0]])[1]) == pytest.approx([0.3, 0.65, 0])


def test_clipping_at_the_median_norm(aggregated: Aggregated) -> None:
    """Norms 1, 2, 10: the last one is shortened to 2."""
    new = aggregated(MedianClip(), [[1, 0, 0], [0, 2, 0], [0, 0, 10]])[1]
    assert moved(new) == pytest.approx([1 / 3, 2 / 3, 2 / 3])


def test_only_clipping_to_a_fixed_norm_is_linear() -> None:
    assert [type(s).__name__ for s in ALL if not isinstance(s, NeedsAll)] == ["NormClip"]


def test_those_that_need_all_say_what_it_costs() -> None:
    for strategy in ALL:
        if isinstance(strategy, NeedsAll):
            assert "Needs all updates of a round, kept until its end" in (type(strategy).__doc__ or "")


@pytest.mark.parametrize("strategy", ALL, ids=repr)
def test_order_does_not_matter(aggregated: Aggregated, strategy: Strategy) -> None:
    """For those whose arithmetic is a sum, to rounding; Krum chooses from scores that differ."""
    random = np.random.default_rng(1)
    updates = random.normal(size=(7, 3)).tolist()
    straight = moved(aggregated(strategy, updates)[1])
    for _ in range(3):
        assert moved(aggregated(strategy, random.permutation(updates).tolist())[1]) == pytest.approx(
            straight, abs=1e-5
        )


@pytest.mark.parametrize("strategy", ALL, ids=repr)
def test_claimed_samples_buy_no_weight(aggregated: Aggregated, strategy: Strategy) -> None:
    plain = aggregated(strategy, FIVE)[1]
    boasted = aggregated(strategy, FIVE, samples=[1, 1, 1, 1, 1_000_000])[1]
    assert moved(boasted) == moved(plain)


@pytest.mark.parametrize("strategy", ALL, ids=repr)
def test_equal_updates_are_their_own_aggregate(aggregated: Aggregated, strategy: Strategy) -> None:
    assert moved(aggregated(strategy, [[0.5, 0.25, -1]] * 6)[1]) == pytest.approx([0.5, 0.25, -1], abs=1e-6)


@pytest.mark.parametrize("length", [1e3, 1e9, 9e14])
def test_a_giant_does_not_hide_another_liar(length: float) -> None:
    """Nine that nearly agree, one turned round, and one so long that beside it all others are alike."""
    honest = (np.random.default_rng(1).standard_normal((9, 1000)) * 0.01 + 0.02).astype(np.float32)
    giant = np.full(1000, length / 1000**0.5, np.float32)
    rows = [honest[0] - np.float32(0.3), *honest, giant]
    stack, out = Stack(tuple({"w": row} for row in rows)), {"w": np.empty(1000, np.float32)}
    wide = np.array(rows, np.float64)
    exact = ((wide[:, None] - wide) ** 2).sum(axis=2)
    for krum in (Krum(hostile=2), Krum(hostile=2, keep=8)):
        chosen = krum.choose(stack.squared_distances().tolist())
        assert chosen == krum.choose(exact.tolist())
        assert set(chosen) <= set(range(1, 10))
    GeometricMedian().combine(stack, Cohort((), 11), out)
    assert float(np.linalg.norm(out["w"] - honest.mean(axis=0))) < 0.01  # the mean's own norm is 0.63


@pytest.mark.parametrize("strategy", [s for s in ALL if isinstance(s, NeedsAll)], ids=repr)
def test_who_has_no_samples_has_no_vote(aggregated: Aggregated, strategy: Strategy) -> None:
    four = aggregated(strategy, FIVE[:4])[1]
    assert moved(aggregated(strategy, FIVE, samples=[1, 1, 1, 1, 0])[1]) == moved(four)


@pytest.mark.parametrize("strategy", ALL, ids=repr)
def test_one_update_is_taken_whole(aggregated: Aggregated, strategy: Strategy) -> None:
    assert moved(aggregated(strategy, [[1, 0.5, -1]])[1]) == pytest.approx([1, 0.5, -1], abs=1e-6)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("trimmed:cut=0.5", "cut must be at least 0 and below 0.5, got 0.5"),
        ("krum:keep=0", "keep must be at least 1, got 0"),
        ("median:mix=-1", "mix must be at least 0, got -1"),
        ("clip:norm=0", "norm must be positive, got 0.0"),
        ("medianclip:factor=-1", "factor must be positive, got -1.0"),
    ],
)
def test_impossible_settings_are_refused(spec: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse(spec, STRATEGIES, "strategy")


def test_almost_all_cut_leaves_one() -> None:
    stack, out = Stack(tuple({"w": np.full(1, n, np.float32)} for n in range(10))), {"w": np.empty(1, "f4")}
    TrimmedMean(cut=0.49999999995).combine(stack, Cohort((), 10), out)
    assert out["w"].tolist() == [4.5]
