"""A YAML file, and what the command line changes in it, as plain data that knows its lines.

YAML 1.1 as PyYAML reads it, but for two surprises: `1e-3` is a number, a date is text.

Does not know: which fields there are, or what they mean.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from parslfl.errors import ConfigError, Problem
from parslfl.specs import hint

#: From the top down to a value: keys of mappings, indices of lists.
Steps = tuple[Any, ...]

_TAG = "tag:yaml.org,2002:"
#: What PyYAML says, and what to do about it.
_CURES = {
    r"found character '\t'": "a tab: indent with blanks",
    "cannot start any token": "a value that begins like this goes in quotes",
    "could not find expected ':'": "expected 'field: value' here or in the line before",
    "expected <block end>": "the indentation fits none of the lines above",
    "found unexpected end of stream": "a quote is opened here, and never closed",
    "found unhashable key": "the name of a field is text, not a list or a block",
    "could not determine a constructor": "a tag (!...) that is not known: delete it",
    "expected ',' or": "a bracket is opened before this, and not closed",
    "found another document": "a second document (---): one file holds one",
}
_SECOND_COLON = "a second ': ' in this line: put the value in quotes (a spec has no blanks: fedprox:mu=0.01)"
_NO_COLON = "indented deeper than a line that already has a value, or the line before lacks its ':'"
_AS_TEXT = {f"{_TAG}timestamp", f"{_TAG}value"}


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers = {  # noqa: RUF012  PyYAML's own declaration
        first: [(tag, pattern) for tag, pattern in known if tag not in _AS_TEXT]
        for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_Loader.add_implicit_resolver(
    f"{_TAG}float", re.compile(r"[-+]?(\d+|\d*\.\d+|\d+\.)[eE][-+]?\d+"), list("-+.0123456789")
)


@dataclass(frozen=True)
class _Origin:
    """A text that gave the value at `steps`. `place`: how to name it; a file's lines are counted."""

    steps: Steps
    place: str
    node: yaml.Node | None
    is_file: bool = False


@dataclass(frozen=True)
class Document:
    """Plain `data`, where its parts come from, and the `problems` met in reading it."""

    data: Any
    origins: tuple[_Origin, ...] = ()
    problems: tuple[Problem, ...] = field(default=())

    def where(self, steps: Steps) -> str:
        """The file and line, or the flag, that wrote the value at `steps` or what should hold it."""
        origin = self._origin(steps)
        if origin is None or not origin.is_file or origin.node is None:
            return origin.place if origin else ""
        *_, (_, mark, _) = _walk(origin.node, steps)
        return f"{origin.place}:{mark.line + 1}"

    def field(self, steps: Steps) -> str:
        """`steps` as users write them: `sites[0].executor.workers`."""
        origin = self._origin(steps)
        written = list(_walk(origin.node, steps[len(origin.steps) :])) if origin and origin.node else []
        texts = [*(origin.steps if origin else ()), *(text for text, _, _ in written[1:])]
        return dotted((*texts, *steps[len(texts) :]))

    def seen(self, steps: Steps) -> str | None:
        """The plain text of the scalar at `steps`, as written; None for anything else."""
        origin = self._origin(steps)
        if origin is None or origin.node is None:
            return None
        found = list(_walk(origin.node, steps[len(origin.steps) :]))
        node = found[-1][2]
        whole = len(found) == len(steps) - len(origin.steps) + 1
        return node.value if whole and isinstance(node, yaml.ScalarNode) else None

    def changed(self, key: str, value: object) -> Document:
        """With one change from the command line; text is read as YAML.

        `key` is dotted (`sites[0].executor.workers`, or `sites.NAME.executor.workers`) or the
        flag that was given (`--per-round`).
        """
        flag = key.startswith("--")
        place = _shortened(f"{key} {value}" if flag else f"--set {key}={value}")
        tokens = [key[2:].replace("-", "_")] if flag else key.replace("[", ".").replace("]", "").split(".")
        if "" in tokens:
            return self.noting(Problem(place, "", "a name is missing, before or after a dot"))
        name = dotted(tuple(tokens))
        read = _parsed(value, place) if isinstance(value, str) else Document(value)
        if read.problems:
            return self.noting(replace(read.problems[0], where=place, field=name))
        try:
            data, steps = _placed(self.data, tokens, read.data)
        except LookupError as error:
            return self.noting(Problem(place, name, str(error.args[0])))
        node = read.origins[0].node if read.origins else None
        return replace(self, data=data, origins=(*self.origins, _Origin(steps, place, node)))

    def over(self, defaults: Mapping[str, object]) -> Document:
        """With `defaults` for the top-level fields that are not given."""
        return replace(self, data={**defaults, **self.data})

    def noting(self, problem: Problem) -> Document:
        """With one problem more."""
        return replace(self, problems=(*self.problems, problem))

    def _origin(self, steps: Steps) -> _Origin | None:
        """The latest text that wrote the value at `steps`, or one around it."""
        fitting = (o for o in reversed(self.origins) if steps[: len(o.steps)] == o.steps)
        return next(fitting, None)


def read(path: Path) -> Document:
    """The YAML file at `path`.

    Raises:
        ConfigError: it cannot be read, is not UTF-8, or is not YAML.
    """
    place = shown(path)
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ConfigError([Problem(place, "", f"cannot be read: {error.strerror}")]) from None
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        seen = f"byte 0x{raw[error.start]:02x}"
        raise ConfigError(
            [Problem(f"{place}:{line}", "", f"not UTF-8 text ({seen}): save it as UTF-8")]
        ) from None
    document = _parsed(text, place, is_file=True)
    if not document.origins:
        raise ConfigError(document.problems)
    return document


def dotted(steps: Steps) -> str:
    """`("sites", 0, "name")` as `sites[0].name`."""
    parts = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)
    return "".join(parts).removeprefix(".")


def shown(path: Path) -> str:
    """`path` as short as it can be told: from the working directory, where it lies in it."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _parsed(text: str, place: str, *, is_file: bool = False) -> Document:
    """`text` as a Document; one without origins, but with a problem, when it is not YAML."""
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        twice = () if node is None else tuple(_repeated(node, place, ()))
        data = None if node is None else loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        return Document(None, problems=(_syntax(error, text, place),))
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        problem = Problem(f"{place}:{line}", "", f"a character that is not text: {chr(error.character)!r}")
        return Document(None, problems=(problem,))
    except RecursionError:
        return Document(None, problems=(Problem(place, "", "lists or blocks too deep inside each other"),))
    except ValueError as error:
        return Document(None, problems=(Problem(place, "", f"cannot be read as YAML: {error}"),))
    except (AttributeError, LookupError, TypeError):  # how PyYAML takes `!!bool x` or `!!timestamp x`
        return Document(None, problems=(Problem(place, "", "a tag (!!...) that does not fit its value"),))
    return Document(data, (_Origin((), place, node, is_file),), twice)


def _syntax(error: yaml.MarkedYAMLError, text: str, place: str) -> Problem:
    said = f"{error.problem}"
    mark = error.problem_mark or error.context_mark
    if "end of stream" in said:
        mark = error.context_mark or mark
    cure = next((cure for known, cure in _CURES.items() if known in said), said)
    if "mapping values" in said and mark:
        before = text.split("\n")[mark.line][: mark.column]
        cure = _SECOND_COLON if ":" in before else _NO_COLON
    return Problem(f"{place}:{mark.line + 1}" if mark else place, "", cure)


def _repeated(node: yaml.Node, place: str, steps: Steps, seen: set[int] | None = None) -> Iterator[Problem]:
    """Fields given twice in one block: YAML would keep the last, without a word."""
    visited = seen if seen is not None else set()
    if id(node) in visited:  # an alias
        return
    visited.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from _repeated(item, place, (*steps, index), visited)
    elif isinstance(node, yaml.MappingNode):
        first: dict[Any, int] = {}
        for key, value in node.value:
            line, name = key.start_mark.line + 1, (key.tag, str(key.value))
            if name in first and key.tag != f"{_TAG}merge":
                message = f"given twice, first in line {first[name]}: delete one"
                yield Problem(f"{place}:{line}", dotted((*steps, key.value)), message)
            first.setdefault(name, line)
            yield from _repeated(value, place, (*steps, key.value), visited)


def _walk(node: yaml.Node, steps: Steps) -> Iterator[tuple[str | int, Any, yaml.Node]]:
    """From `node` down `steps`, as far as it was written: (step as written, its mark, node)."""
    yield "", node.start_mark, node
    for step in steps:
        if isinstance(node, yaml.MappingNode):
            # the last one counts: YAML's merge puts what it brings in front
            fitting = (pair for pair in reversed(node.value) if _Loader("").construct_object(pair[0]) == step)
            key, node = next(fitting, (None, node))
            if key is None:
                return
            yield key.value, key.start_mark, node
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
            node = node.value[step]
            yield step, node.start_mark, node
        else:
            return


def _placed(data: Any, tokens: list[str], value: object) -> tuple[Any, Steps]:
    """A copy of `data` with `value` at `tokens`, and the steps that lead there."""
    if not tokens:
        return value, ()
    head, rest = tokens[0], tokens[1:]
    if isinstance(data, list):
        index = _index(data, head)
        inner, steps = _placed(data[index], rest, value)
        return [*data[:index], inner, *data[index + 1 :]], (index, *steps)
    if data is None or isinstance(data, dict):
        inner, steps = _placed((data or {}).get(head), rest, value)
        return {**(data or {}), head: inner}, (head, *steps)
    raise LookupError(f"{data!r} has no fields")


def _index(items: list[Any], token: str) -> int:
    """Which of `items` has the name or the index `token`."""
    names = [item.get("name") if isinstance(item, dict) else None for item in items]
    if token in names:
        return names.index(token)
    if token.isdecimal() and int(token) < len(items):
        return int(token)
    if token.isdecimal():
        raise LookupError(f"there are only {len(items)}, counted from 0")
    raise LookupError(f"nothing is called {token!r}{hint(token, [n for n in names if isinstance(n, str)])}")


def _shortened(text: str, most: int = 60) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[:most]}..."
