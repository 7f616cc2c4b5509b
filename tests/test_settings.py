"""The YAML border in general: positions, overrides and the words of every message."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, TypeAdapter, ValidationError

from parslfl.document import Document, read
from parslfl.errors import ConfigError
from parslfl.settings import build, by_kind
from parslfl_executors.fields import Count, Duration, Keywords, Number, Settings


class Cat(Settings):
    kind: Literal["cat"] = "cat"
    lives: Count = 9
    parsl: Keywords = Field(default_factory=dict)


class Dog(Settings):
    kind: Literal["dog"] = "dog"
    bark: Number = 1.0


class Home(Settings):
    name: str
    pets: tuple[Annotated[Cat | Dog, by_kind(Cat, Dog)], ...] = ()


def load(folder: Path, text: str | bytes, changes: dict[str, object] | None = None) -> Home:
    path = folder / "home.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    document = read(path)
    for key, value in (changes or {}).items():
        document = document.changed(key, value)
    return build(Home, document)


def refused(folder: Path, text: str | bytes, changes: dict[str, object] | None = None) -> list[str]:
    """The lines of the refusal, without the folder."""
    with pytest.raises(ConfigError) as caught:
        load(folder, text, changes)
    return str(caught.value).replace(f"{folder}/", "").splitlines()


def test_every_problem_is_told_at_once_from_the_top_down(tmp_path: Path) -> None:
    text = """\
nam: x
pets:
  - kind: cat
    lives: many
    bark: 2
  - kind: dog
    lives: 3
    bark: yes
  - {kind: cow, milk: 3}
  - {lives: 3}
  - dog
"""
    assert refused(tmp_path, text) == [
        "home.yaml:1: name: missing",
        "home.yaml:1: nam: unknown field (did you mean 'name'?)",
        "home.yaml:4: pets[0].lives: expected a whole number, got 'many'",
        "home.yaml:5: pets[0].bark: unknown field (allowed: kind, lives, parsl)",
        "home.yaml:7: pets[1].lives: unknown field (allowed: bark, kind)",
        "home.yaml:8: pets[1].bark: expected a number, got yes",
        "home.yaml:9: pets[2].kind: unknown kind 'cow' (allowed: cat, dog)",
        "home.yaml:10: pets[3].kind: missing (allowed: cat, dog)",
        "home.yaml:11: pets[4]: expected fields such as {kind: cat}, got 'dog'",
    ]


MESSAGES = [
    ("name: no", "home.yaml:1: name: expected text, got no, which YAML reads as false: put it in quotes"),
    ("name: 10", "home.yaml:1: name: expected text, got 10, which YAML reads as a number: put it in quotes"),
    ("name: ", "home.yaml:1: name: expected text, got nothing"),
    ("name: {a: 1}", "home.yaml:1: name: expected text, got a block of fields"),
    ("name: x\npets: 3", "home.yaml:2: pets: expected a list, got 3"),
    ("name: x\npets:\n", "home.yaml:2: pets: expected a list, got nothing"),
    ("name: x\npets: {a: 1}", "home.yaml:2: pets: expected a list, got a block of fields"),
    (
        "name: x\npets: [{kind: cat, lives: 2.5}]",
        "home.yaml:2: pets[0].lives: expected a whole number, got 2.5",
    ),
    ("name: x\npets: [{kind: cat, lives: 0}]", "home.yaml:2: pets[0].lives: expected at least 1, got 0"),
    (
        "name: x\npets: [{kind: dog, bark: .nan}]",
        "home.yaml:2: pets[0].bark: expected a finite number, got .nan",
    ),
    ("name: x\non: 3", "home.yaml:2: on: this name is not text to YAML: put it in quotes"),
    (
        "name: x\npets: [{kind: cat, parsl: {a: {3: 1}}}]",
        "home.yaml:2: pets[0].parsl.a.3: this name is not text to YAML: put it in quotes",
    ),
    (
        "name: x\npets: [{kind: cat, parsl: {provider: 3}}]",
        "home.yaml:2: pets[0].parsl.provider: expected the provider's keywords, such as {max_blocks: 1}",
    ),
    (
        "name: x\npets: [{kind: cat, parsl: &a {b: *a}}]",
        "home.yaml:2: pets[0].parsl.b.b: an alias (*) inside what it stands for",
    ),
    ("", "home.yaml: the file is empty"),
    ("# nothing yet\n", "home.yaml: the file is empty"),
    ("- a\n", "home.yaml:1: expected fields, such as 'name: value', got a list"),
    ("text", "home.yaml:1: expected fields, such as 'name: value', got 'text'"),
    ("name: x\nname: x", "home.yaml:2: name: given twice, first in line 1: delete one"),
    (
        "name: x\npets:\n- {kind: cat, kind: cat}",
        "home.yaml:3: pets[0].kind: given twice, first in line 3: delete one",
    ),
]


@pytest.mark.parametrize(("text", "message"), MESSAGES)
def test_a_message_says_where_what_and_what_else(tmp_path: Path, text: str, message: str) -> None:
    assert refused(tmp_path, text) == [message]


SYNTAX = [
    ("name: x\n\tpets: []", "2: a tab"),
    ("pets: [1,\nname: x", "2: a bracket"),
    ("name: x\npets:\n  - a\n - b", "4: the indentation fits none"),
    ("name: 'x\npets: []", "1: a quote is opened here"),
    ("model: fedprox: mu=0.01", "1: a second ': ' in this line"),
    ("name: x\n  pets: []", "2: indented deeper"),
    ("name: x\nname pets\n  - a: 1", "3: expected 'field: value' here or in the line before"),
    ("name: @x", "1: a value that begins like this goes in quotes"),
    ("name: *x", "1: found undefined alias 'x'"),
    ("name: !!python/object:os.system x", "1: a tag (!...) that is not known"),
    ("a: 1\n---\nb: 1", "2: a second document"),
    ("? [a]\n: 1", "1: the name of a field is text"),
    ("name: x\nb: \x01", "2: a character that is not text: '\\x01'"),
    (b"name: x\nb: caf\xe9", "2: not UTF-8 text (byte 0xe9)"),
    ("name: x".encode("utf-16"), "1: not UTF-8 text (byte 0xff)"),
    ("[" * 500, " lists or blocks too deep inside each other"),
    ("name: !!bool x", " a tag (!!...) that does not fit"),
    ("name: !!int x", " cannot be read as YAML: invalid literal"),
]


@pytest.mark.parametrize(("text", "message"), SYNTAX, ids=[m for _, m in SYNTAX])
def test_what_is_not_yaml_is_refused_with_its_line(tmp_path: Path, text: str | bytes, message: str) -> None:
    (line,) = refused(tmp_path, text)
    assert line.startswith(f"home.yaml:{message}")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="home.yaml: cannot be read: No such file or directory"):
        read(tmp_path / "home.yaml")


def test_numbers_and_dates_are_what_they_look_like(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a: 1e-3\nb: -2.5E+2\nc: 2026-11-02\nd: 0.5\ne: '1e3'\nf: =\n")
    values = {"a": 1e-3, "b": -250.0, "c": "2026-11-02", "d": 0.5, "e": "1e3", "f": "="}
    assert read(tmp_path / "a.yaml").data == values


def test_an_alias_is_followed_to_where_it_stands_for_something(tmp_path: Path) -> None:
    text = "name: x\npets:\n  - &a\n    kind: cat\n    lives: 3\n  - <<: *a\n    lives: 4\n"
    assert [pet.lives for pet in load(tmp_path, text).pets if isinstance(pet, Cat)] == [3, 4]
    wrong = text.replace("kind: cat", "kind: cow").replace("    lives: 4", "    live: 4")
    assert refused(tmp_path, wrong) == [
        "home.yaml:4: pets[0].kind: unknown kind 'cow' (allowed: cat, dog)",
        "home.yaml:4: pets[1].kind: unknown kind 'cow' (allowed: cat, dog)",
    ]


TWO = "name: x\npets:\n  - {kind: cat, lives: 3}\n  - {kind: cat}\n"


def test_a_change_reaches_into_lists_and_makes_blocks(tmp_path: Path) -> None:
    changes: dict[str, object] = {"pets[1].lives": "4", "pets.0.parsl.provider.nodes": "2", "--name": "y"}
    home = load(tmp_path, TWO, changes)
    assert home == Home(name="y", pets=(Cat(lives=3, parsl={"provider": {"nodes": 2}}), Cat(lives=4)))


def test_the_last_change_wins(tmp_path: Path) -> None:
    home = load(tmp_path, TWO, {"pets": "[{kind: dog}]", "pets[0].bark": "2.5"})
    assert home.pets == (Dog(bark=2.5),)


CHANGES: list[tuple[str, object, str]] = [
    ("pets.0.lives", "x", "--set pets.0.lives=x: pets[0].lives: expected a whole number, got 'x'"),
    ("--name", "no", "--name no: name: expected text, got no, which YAML reads as false: put it in quotes"),
    ("name", 3, "--set name=3: name: expected text, got 3, which YAML reads as a number: put it in quotes"),
    ("name", "", "--set name=: name: expected text, got nothing"),
    ("name", "a: b: c", "--set name=a: b: c: name: a second ': ' in this line: put"),
    ("pets.7.lives", "3", "--set pets.7.lives=3: pets.7.lives: there are only 2, counted from 0"),
    ("pets.tom.lives", "3", "--set pets.tom.lives=3: pets.tom.lives: nothing is called 'tom'"),
    ("name.x", "3", "--set name.x=3: name.x: 'x' has no fields"),
    ("pets.0.live", "3", "--set pets.0.live=3: pets[0].live: unknown field (did you mean 'lives'?)"),
    (
        "pets.0",
        "{kind: dog, a: 1}",
        "--set pets.0={kind: dog, a: 1}: pets[0].a: unknown field (allowed: bark, kind)",
    ),
]


@pytest.mark.parametrize(("key", "value", "message"), CHANGES)
def test_a_wrong_change_is_shown_as_it_was_given(
    tmp_path: Path, key: str, value: object, message: str
) -> None:
    (line,) = refused(tmp_path, TWO, {key: value})
    assert line.startswith(message)


def test_a_change_and_a_file_can_be_wrong_at_once(tmp_path: Path) -> None:
    assert refused(tmp_path, "name: 3\npet: 4", {"nam": "x" * 100}) == [
        "home.yaml:1: name: expected text, got 3, which YAML reads as a number: put it in quotes",
        "home.yaml:2: pet: unknown field (did you mean 'pets'?)",
        f"--set nam={'x' * 50}...: nam: unknown field (did you mean 'name'?)",
    ]


def test_data_from_elsewhere_has_no_place_but_its_fields(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        build(Home, Document({"name": 3}))
    assert str(caught.value).startswith("name: expected text, got 3")


DURATIONS: list[tuple[object, float]] = [
    (90, 90), (0.5, 0.5), ("90", 90), ("90s", 90), ("1.5 min", 90), ("5m", 300), ("1h", 3600),
    ("1h30m", 5400), ("2d", 172800), ("10:00", 600), ("00:05:00", 300), ("01:00:00", 3600),
    ("100:00:00", 360000), ("1-00:00:00", 86400), ("1-12", 129600), ("1-12:30", 131400),
]  # fmt: skip


@pytest.mark.parametrize(("written", "seconds"), DURATIONS)
def test_a_duration_is_seconds(written: object, seconds: float) -> None:
    assert TypeAdapter(Duration).validate_python(written) == seconds


def test_an_unquoted_clock_is_the_same_as_a_quoted_one(tmp_path: Path) -> None:
    """YAML 1.1 reads 1:00:00 to the base of 60."""
    (tmp_path / "a.yaml").write_text("a: 1:00:00\nb: '1:00:00'\nc: 01:00:00\nd: 1:30\ne: '1:30'\n")
    data: dict[str, Any] = read(tmp_path / "a.yaml").data
    assert data["a"] == 3600
    assert [TypeAdapter(Duration).validate_python(v) for v in data.values()] == [3600, 3600, 3600, 90, 90]


@pytest.mark.parametrize(
    "written", ["", "soon", "5x", "-5", "1:75:00", "5m5m", "1h30", "..s", True, 0, -1, "0s", 10**400]
)
def test_what_is_no_duration_is_refused(written: object) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Duration).validate_python(written)
