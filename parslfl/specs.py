"""One text form for every pluggable thing: `fedprox:mu=0.01`, `classes:k=2`, `raw`.

A spec is a name and the fields of the frozen dataclass it stands for; where a family's members can
be joined, a `+` stands between them. `parse` (or `parse_chain`) and `render` are inverse, so a spec
is at once the CLI value, the YAML value and the entry in a run directory.

Does not know: which names exist; each family has its own dict of them.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from parslfl.errors import ConfigError, Problem

T = TypeVar("T")

#: A thing with so many fields shows them all: `classes` alone does not say how many.
_SHOWN = 2


def parse(text: str, known: Mapping[str, type[T]], family: str) -> T:
    """The object that `text` names among `known`; `family` is what to call it in errors.

    Raises:
        ConfigError: unknown name; unknown, missing or repeated field; or a value of the wrong type.
    """
    name, _, rest = text.strip().partition(":")
    if name not in known:
        raise _refuse(family, f"unknown {family} {name!r}{hint(name, known)}")
    kind = known[name]
    types = typing.get_type_hints(kind)
    fields = {f.name: types[f.name] for f in dataclasses.fields(kind) if f.init}  # type: ignore[arg-type]
    values = {}
    for pair in filter(None, (p.strip() for p in rest.split(","))):
        key, equals, raw = pair.partition("=")
        if key not in fields:
            raise _refuse(family, f"{name} has no field {key!r}{hint(key, fields)}")
        if not equals:
            raise _refuse(family, f"{name}: write {key}=VALUE, not {pair!r}")
        if key in values:
            raise _refuse(family, f"{name}: {key} is given twice")
        values[key] = _convert(raw, fields[key], f"{name}:{key}", family)
    try:
        return kind(**values)
    except (TypeError, ValueError) as error:  # a missing field, or __post_init__ refused a value
        raise _refuse(family, f"{name}: {error}") from None


def parse_chain(
    text: str, known: Mapping[str, type[T]], family: str, join: Callable[[tuple[T, ...]], T]
) -> T:
    """What `text` names, where a `+` before a name joins several: `topk:ratio=0.1+zstd`.

    Raises:
        ConfigError: as `parse`, or `join` refuses them in this order.
    """
    parts = re.split(r"\+(?=\s*[A-Za-z])", text)
    stages = tuple(parse(part, known, family) for part in parts)
    try:
        return join(stages) if len(stages) > 1 else stages[0]
    except ValueError as error:
        raise _refuse(family, f"{text.strip()}: {error}") from None


def render(thing: object, known: Mapping[str, type]) -> str:
    """The spec of `thing`: its name and its fields; of more than two, those that were changed."""
    if isinstance(stages := getattr(thing, "stages", None), tuple):
        return "+".join(render(stage, known) for stage in stages)
    names = {kind: name for name, kind in known.items()}
    name = names.get(type(thing), type(thing).__name__)
    if not dataclasses.is_dataclass(thing):
        return name
    fields = [f for f in dataclasses.fields(thing) if f.init]
    pairs = [
        f"{f.name}={_text(getattr(thing, f.name))}"
        for f in fields
        if len(fields) <= _SHOWN or getattr(thing, f.name) != f.default
    ]
    return f"{name}:{','.join(pairs)}" if pairs else name


def hint(wrong: str, allowed: Iterable[str]) -> str:
    """` (did you mean 'x'?)` for a near miss, else ` (allowed: a, b, c)`."""
    allowed = sorted(allowed)
    near = difflib.get_close_matches(wrong, allowed, n=1)
    if near:
        return f" (did you mean {near[0]!r}?)"
    return f" (allowed: {', '.join(allowed)})" if allowed else " (it has none)"


def unfit(value: object, known: Mapping[str, type], family: str, missing: Sequence[str]) -> str:
    """What to say of a `value` that is no text, and no `family` either: it lacks the methods `missing`."""
    names = f"(allowed: {', '.join(sorted(known))})"
    if value is None:
        return f"expected a {family} {names}, got nothing"
    if isinstance(value, type):
        return f"expected a {family}, got the class {value.__name__}: call it"
    if isinstance(value, dict | list | int | float):
        return f"expected one line such as NAME:field=value {names}, got {_typed(value)}"
    return f"{type(value).__name__} is no {family}: it lacks {', '.join(missing)}"


def _typed(value: object) -> str:
    """What somebody wrote whom YAML understood to mean `value`."""
    if isinstance(value, dict) and len(value) == 1:
        ((name, rest),) = value.items()
        if rest is None:
            return f"'{name}:' (leave the colon out)"
        if not isinstance(rest, dict | list):
            return f"'{name}: {rest}' (leave out the blank after the colon)"
    if isinstance(value, dict | list):
        return "a block of fields" if isinstance(value, dict) else "a list"
    return _text(value)


def _convert(raw: str, wanted: object, where: str, family: str) -> object:
    raw = raw.strip()
    options = [o for o in (typing.get_args(wanted) or (wanted,)) if o is not type(None)]
    for option in options:
        if isinstance(option, str):  # one of a Literal's choices
            if raw == option:
                return raw
        elif option is bool:
            if raw.lower() in {"true", "false"}:
                return raw.lower() == "true"
        elif callable(option):
            try:
                value = option(raw)
            except ValueError:
                continue
            if not isinstance(value, float) or math.isfinite(value):
                return value
    words = {float: "a finite number", int: "a whole number", bool: "true or false"}
    allowed = " or ".join(
        repr(o) if isinstance(o, str) else words.get(o, getattr(o, "__name__", str(o))) for o in options
    )
    raise _refuse(family, f"{where}: {raw!r} is not {allowed}")


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _refuse(family: str, message: str) -> ConfigError:
    return ConfigError([Problem("", family, message)])
