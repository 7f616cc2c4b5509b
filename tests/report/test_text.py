from __future__ import annotations

import pytest

from parslfl.report import text


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0 MB"),
        (4_200, "0.0042 MB"),
        (248_000, "0.25 MB"),
        (2_480_000, "2.5 MB"),
        (99_940_000, "99.9 MB"),
        (1_240_000_000, "1,240 MB"),
    ],
)
def test_megabytes_keep_about_three_digits(count: int, shown: str) -> None:
    assert text.megabytes(count) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.04, "0.0 s"),
        (4.16, "4.2 s"),
        (4, "4 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (200, "3 min 20 s"),
        (7500, "2 h 5 min"),
    ],
)
def test_durations_use_the_units_people_use(seconds: float, shown: str) -> None:
    assert text.duration(seconds) == shown


def test_what_was_not_measured_is_a_dash() -> None:
    assert text.percent(None) == text.loss(None) == text.loss(float("nan")) == "-"
    assert text.percent(0.4167) == "41.7 %"
    assert text.loss(1.23456) == "1.235"
    assert text.loss(1.6e30) == "1.6e+30"


def test_a_trend_spans_the_range_of_all_values() -> None:
    assert text.trend([0.0, 0.7, 0.8], width=2) == "▇█"
    assert text.trend([0.1, 0.2, 0.3]) == "▁▅█"
    assert text.trend([0.5, 0.5]) == "▁▁"
    assert text.trend([]) == ""
    assert len(text.trend([float(i) for i in range(100)], width=10)) == 10


def test_first_line_skips_what_says_nothing() -> None:
    assert text.first_line("\n  a reason\nmore") == "a reason"
    assert text.first_line("") == "no reason given"


def test_plural() -> None:
    assert [text.plural(n, "round") for n in (0, 1, 1200)] == ["0 rounds", "1 round", "1,200 rounds"]
