from __future__ import annotations

from dataclasses import dataclass

import pytest

from parslfl.errors import ConfigError
from parslfl.specs import parse, render, unfit


@dataclass(frozen=True)
class Two:
    k: int = 2
    rate: float = 0.5


@dataclass(frozen=True)
class Three:
    a: int = 1
    b: int = 2
    c: int | None = None


KNOWN: dict[str, type] = {"two": Two, "three": Three}


@pytest.mark.parametrize(
    ("thing", "text"),
    [
        (Two(), "two:k=2,rate=0.5"),
        (Two(k=3), "two:k=3,rate=0.5"),
        (Three(), "three"),
        (Three(b=9), "three:b=9"),
    ],
)
def test_few_fields_are_all_shown_and_read_back(thing: object, text: str) -> None:
    assert render(thing, KNOWN) == text
    assert parse(text, KNOWN, "thing") == thing


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "x", "1e999"])
def test_numbers_are_finite(value: str) -> None:
    with pytest.raises(ConfigError, match=f"two:rate: '{value}' is not a finite number"):
        parse(f"two:rate={value}", KNOWN, "thing")


def test_a_field_is_given_once() -> None:
    with pytest.raises(ConfigError, match="two: k is given twice"):
        parse("two:k=2,rate=0.1,k=3", KNOWN, "thing")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"two": None}, "got 'two:' (leave the colon out)"),
        ({"two": "k=3"}, "got 'two: k=3' (leave out the blank after the colon)"),
        ({"two": {"k": 3}}, "got a block of fields"),
        ({"k": 1, "rate": 2}, "got a block of fields"),
        (["two"], "got a list"),
        (3, "got 3"),
        (True, "got true"),
        (None, "expected a thing (allowed: three, two), got nothing"),
        (Two, "got the class Two: call it"),
        (Two(), "Two is no thing: it lacks go"),
    ],
)
def test_what_is_no_spec_is_told_as_it_was_typed(value: object, said: str) -> None:
    """Not as YAML understood it."""
    assert unfit(value, KNOWN, "thing", ["go"]).endswith(said)
