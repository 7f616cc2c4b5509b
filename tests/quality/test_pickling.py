"""What crosses a process border survives pickling: errors, messages, the objects of every family.

Nothing is listed by name: a new error, message or family member is tested once it exists.
"""

from __future__ import annotations

import dataclasses
import importlib
import pickle
import types
import typing
from pathlib import Path
from typing import Any

import pytest

from parslfl import errors, messages, protocols
from parslfl.errors import ConfigError, ParslflError, Problem

PLURALS = {"Strategy": "STRATEGIES"}
#: Bytes a family's object may take in a task: names and numbers, never data.
SMALL = 500


def members(module: types.ModuleType) -> list[type]:
    """The classes that `module` itself defines."""
    return [
        kind
        for kind in vars(module).values()
        if isinstance(kind, type) and kind.__module__ == module.__name__
    ]


ERRORS = [kind for kind in members(errors) if issubclass(kind, ParslflError)]
#: Errors that take more than a sentence.
SPECIAL: dict[type[ParslflError], Any] = {
    ConfigError: [Problem("local.yaml:3", "sites[0].clients", "must be at least 1")]
}

MESSAGES = [kind for kind in members(messages) if dataclasses.is_dataclass(kind)]

#: (dict, name, class) of every family's `names.py`.
NAMED: list[tuple[str, str, type]] = [
    (key, name, kind)
    for file in sorted(Path(errors.__file__).parent.glob("*/names.py"))
    for key, table in vars(importlib.import_module(f"parslfl.{file.parent.name}.names")).items()
    if key.isupper() and isinstance(table, dict)
    for name, kind in table.items()
]


def through_pickle(thing: Any) -> Any:
    return pickle.loads(pickle.dumps(thing))


def example(wanted: Any) -> Any:
    """A value of the type `wanted`, as rich as its declaration allows."""
    simple = {int: 3, float: 0.5, str: "text", bytes: b"bytes", bool: True, typing.Any: "anything"}
    if wanted in simple:
        return simple[wanted]
    options = typing.get_args(wanted)
    if typing.get_origin(wanted) is typing.Literal:
        return options[0]
    if typing.get_origin(wanted) is tuple:
        return tuple(example(option) for option in options if option is not ...)
    if options:  # a union: its first choice that says something
        return example(next(option for option in options if option is not types.NoneType))
    if dataclasses.is_dataclass(wanted):
        hints = typing.get_type_hints(wanted)
        make: Any = wanted
        return make(**{field.name: example(hints[field.name]) for field in dataclasses.fields(wanted)})
    assert wanted.__module__ == protocols.__name__, f"say here what an example of {wanted} is"
    family = [
        kind for key, _, kind in NAMED if key == PLURALS.get(wanted.__name__, f"{wanted.__name__.upper()}S")
    ]
    assert family, f"no names.py lists a {wanted.__name__}"
    return member(family[0])


def member(kind: type) -> Any:
    """An object of a family, with its defaults where it has them."""
    hints = typing.get_type_hints(kind)
    required = [field for field in dataclasses.fields(kind) if field.default is dataclasses.MISSING]
    return kind(**{field.name: example(hints[field.name]) for field in required if field.init})


@pytest.mark.parametrize("kind", ERRORS)
def test_an_error_arrives_as_it_left(kind: type[ParslflError]) -> None:
    sent = kind(SPECIAL.get(kind, "the folder is empty: name another with --data-dir"))
    got = through_pickle(sent)
    assert type(got) is kind
    assert (str(got), got.args, vars(got)) == (str(sent), sent.args, vars(sent))


@pytest.mark.parametrize("kind", MESSAGES)
def test_a_message_arrives_as_it_left(kind: type) -> None:
    sent = example(kind)
    assert through_pickle(sent) == sent


@pytest.mark.parametrize("kind", MESSAGES)
def test_a_message_cannot_be_changed(kind: type) -> None:
    sent = example(kind)
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(sent, dataclasses.fields(kind)[0].name, None)


@pytest.mark.parametrize(("key", "name", "kind"), NAMED)
def test_a_familys_object_is_a_small_frozen_value(key: str, name: str, kind: type) -> None:
    sent = member(kind)
    pickled = pickle.dumps(sent)
    assert len(pickled) <= SMALL
    assert pickle.loads(pickled) == sent
    assert vars(kind)["__dataclass_params__"].frozen
    assert hash(sent) == hash(member(kind))


def test_every_family_is_looked_at() -> None:
    assert {key for key, _, _ in NAMED} >= {
        "CODECS", "DATASETS", "MODELS", "PARTITIONS", "STRATEGIES", "TRANSPORTS",
    }  # fmt: skip
