"""From plain data to frozen, checked settings: every problem at once, in words that users know.

pydantic finds the problems; here they get their file, line and field, what was seen there, and
what is allowed.

Does not know: any particular setting.
"""

from __future__ import annotations

import sys
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ValidationError

from parslfl.document import Document, Steps
from parslfl.errors import ConfigError, Problem
from parslfl.specs import hint
from parslfl_executors.fields import FieldError

M = TypeVar("M", bound=BaseModel)

#: pydantic's error types, without the part after "_", and what they expect.
_EXPECTED = {
    "int": "a whole number",
    "float": "a number",
    "finite": "a finite number",
    "string": "text",
    "bool": "true or false",
    "tuple": "a list",
    "list": "a list",
    "model": "a block of fields",
    "dict": "a block of fields",
}
_BOUNDS = {
    "greater_than": ("gt", "more than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}


def build(model: type[M], document: Document) -> M:
    """The settings that `document` holds.

    Raises:
        ConfigError: with all its problems, those met in reading it included.
    """
    problems = list(document.problems)
    made = None
    try:
        made = model.model_validate(document.data)
    except ValidationError as error:
        problems += [_problem(model, document, one) for one in error.errors(include_url=False)]
    if made is None or problems:
        raise ConfigError(sorted(dict.fromkeys(problems), key=_line))
    return made


def by_kind(*models: type[BaseModel]) -> BeforeValidator:
    """For a field that holds one of `models`: its field `kind` says which.

    One that is unknown, or missing, is then the only problem of its block.
    """
    known = {model.model_fields["kind"].default: model for model in models}

    def choose(value: object) -> object:
        if isinstance(value, models):
            return value
        if not isinstance(value, dict):
            raise FieldError(
                f"expected fields such as {{kind: {next(iter(known))}}}, got {_got(value, None)}"
            )
        if "kind" not in value:
            raise FieldError(f"missing (allowed: {', '.join(sorted(known))})", "kind")
        kind = value["kind"]
        if not isinstance(kind, str) or kind not in known:
            raise FieldError(f"unknown kind {kind!r} (allowed: {', '.join(sorted(known))})", "kind")
        return known[kind].model_validate(value)

    return BeforeValidator(choose)


def _line(problem: Problem) -> int:
    """The line that `problem` names; what has none, such as a flag, comes after the file."""
    line = problem.where.rpartition(":")[2]
    return int(line) if line.isdecimal() else sys.maxsize


def _problem(model: type[BaseModel], document: Document, error: Mapping[str, Any]) -> Problem:
    kind, steps = error["type"], _steps(document.data, error["loc"])
    cause = error.get("ctx", {}).get("error")
    if kind == "missing":
        steps = (*steps, error["loc"][-1])
    elif isinstance(cause, FieldError):
        steps = (*steps, *cause.steps)
    if kind == "extra_forbidden":
        message = f"unknown field{hint(str(steps[-1]), _fields(model, document.data, steps[:-1]))}"
    else:
        message = _message(error, document, steps)
    return Problem(document.where(steps), document.field(steps), message)


def _message(error: Mapping[str, Any], document: Document, steps: Steps) -> str:
    kind, context, value = error["type"], error.get("ctx", {}), error["input"]
    if kind == "missing":
        return "missing"
    if kind == "value_error":
        return str(context["error"])
    if kind == "invalid_key" or error["loc"][-1:] == ("[key]",):
        return "this name is not text to YAML: put it in quotes"
    if kind == "recursion_loop":
        return "an alias (*) inside what it stands for"
    got = _got(value, document.seen(steps))
    if kind in _BOUNDS:
        bound, words = _BOUNDS[kind]
        return f"expected {words} {_number(context[bound])}, got {got}"
    expected = _EXPECTED.get(kind.partition("_")[0])
    if expected is None:
        return f"{error['msg'][:1].lower()}{error['msg'][1:]}, got {got}"
    if not steps:
        return "the file is empty" if value is None else f"expected fields, such as 'name: value', got {got}"
    return f"expected {expected}, got {got}{_quoting(expected, value)}"


def _number(bound: float) -> str:
    return f"{bound:,.0f}" if float(bound).is_integer() else f"{bound:g}"


def _got(value: object, seen: str | None) -> str:
    """`value` in few words; as it was written, where that is known to be a scalar."""
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "a block of fields"
    if isinstance(value, list | tuple):
        return "a list"
    if seen is None or isinstance(value, str):
        text = repr(value)
        return text if len(text) <= 60 else f"{text[:60]}..."
    return seen


def _quoting(expected: str, value: object) -> str:
    if expected != "text" or not isinstance(value, bool | int | float):
        return ""
    kind = f"as {str(value).lower()}" if isinstance(value, bool) else "as a number"
    return f", which YAML reads {kind}: put it in quotes"


def _steps(data: Any, location: tuple[str | int, ...]) -> Steps:
    """pydantic's `location` without the names of union members and such, which are not in `data`."""
    steps: list[str | int] = []
    for step in location:
        inside = isinstance(data, dict) and step in data
        if inside or (isinstance(data, list) and isinstance(step, int) and step < len(data)):
            steps.append(step)
            data = data[step]
    return tuple(steps)


def _fields(annotation: Any, data: Any, steps: Steps) -> list[str]:
    """The fields that the block at `steps` of `data` may have, by the types of the settings."""
    for step in steps:
        if not isinstance(step, int):
            annotation = _chosen(annotation, data).model_fields[step].annotation
        data = data[step]
    return list(_chosen(annotation, data).model_fields)


def _chosen(annotation: Any, data: Any) -> type[BaseModel]:
    """The settings class in `annotation`; where it offers several, the one of `data`'s kind."""
    models = _models(annotation)
    fitting = [
        m for m in models if "kind" in m.model_fields and m.model_fields["kind"].default == data.get("kind")
    ]
    return (fitting or models)[0]


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in typing.get_args(annotation) for model in _models(part)]
