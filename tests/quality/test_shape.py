"""The house's numbers: short files, short functions, and modules that say what they do not know."""

from __future__ import annotations

import ast
import re
import statistics
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("parslfl", "executors/parslfl_executors")
HOUSE = (*PACKAGES, "workflows")

FILE_LINES = 300
FUNCTION_LINES = 60
MEDIAN_LINES = 10
#: The brackets keep this line from being found itself.
UNFINISHED = re.compile(r"\b(TOD[O]|FIXM[E]|XX[X]|HAC[K]|NotImplementedErro[r])\b")
VAGUE = re.compile(r"^(utils?|helpers?|common|misc)$|^Base[A-Z]|Manager$")

Function = ast.FunctionDef | ast.AsyncFunctionDef


def sources(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def functions(path: Path) -> Iterator[Function]:
    return (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, Function))


def length(function: Function) -> int:
    """Lines from `def` to the end, without the docstring."""
    said = function.body[0] if ast.get_docstring(function) else None
    return _lines(function) - (_lines(said) if said else 0)


def _lines(node: ast.stmt) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def faults(path: Path, name: str) -> Iterator[str]:
    """What breaks the house's numbers in one file; `name` is its path in the repository."""
    text = path.read_text()
    if (lines := text.count("\n")) > FILE_LINES:
        yield f"{name}: {lines} lines (at most {FILE_LINES})"
    for function in functions(path):
        if (lines := length(function)) > FUNCTION_LINES:
            yield f"{name}:{function.lineno}: {function.name} has {lines} lines (at most {FUNCTION_LINES})"
    yield from (f"{name}:{line}: {words}" for line, words in unfinished(path))
    named = [path.stem, *(node.name for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ClassDef))]
    yield from (f"{name}: {vague!r} says nothing" for vague in named if VAGUE.search(vague))
    yield from undocumented(ast.parse(text), name)


def unfinished(path: Path) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if found := UNFINISHED.search(line):
            yield number, f"{found[0]} is left"


def undocumented(tree: ast.Module, name: str) -> Iterator[str]:
    said = ast.get_docstring(tree)
    if not said:
        yield f"{name}: no module docstring"
    elif (
        name.startswith(PACKAGES)
        and not name.endswith(("__init__.py", "__main__.py"))
        and "Does not know" not in said
    ):
        yield f'{name}: the docstring does not say what the module does not know ("Does not know: ...")'


def test_every_file_keeps_to_the_houses_numbers() -> None:
    found = [fault for path in sources(*HOUSE) for fault in faults(path, path.relative_to(ROOT).as_posix())]
    assert "\n".join(found) == ""


def test_half_of_all_functions_are_very_short() -> None:
    lengths = [length(function) for path in sources(*HOUSE) for function in functions(path)]
    assert statistics.median(lengths) <= MEDIAN_LINES


def test_init_modules_hold_no_logic() -> None:
    """A docstring, the version, names: nothing that runs or loads anything."""
    allowed = (ast.Expr, ast.Assign, ast.AnnAssign)
    busy = [
        path.relative_to(ROOT).as_posix()
        for path in sources(*PACKAGES)
        if path.name == "__init__.py"
        and not all(isinstance(node, allowed) for node in ast.parse(path.read_text()).body)
    ]
    assert busy == []


KNOWS = '"""A job.\n\nDoes not know: more.\n"""\n'
BAD = [
    (KNOWS + "x = 1\n" * FILE_LINES, "lines (at most 300)"),
    (KNOWS + "def f():\n" + "    x = 1\n" * FUNCTION_LINES, "f has 61 lines"),
    (KNOWS + "class A:\n    async def f():\n" + "        x = 1\n" * FUNCTION_LINES, "f has 61 lines"),
    (KNOWS + "# " + "TO" + "DO: later\n", "is left"),
    (KNOWS + "def f():\n    raise NotImplemented" + "Error\n", "is left"),
    (KNOWS + "class RunManager: ...\n", "'RunManager' says nothing"),
    (KNOWS + "class BaseCodec: ...\n", "'BaseCodec' says nothing"),
    ("x = 1\n", "no module docstring"),
    ('"""A job."""\n', "does not know"),
]


@pytest.mark.parametrize(("source", "fault"), BAD)
def test_a_fault_is_found(tmp_path: Path, source: str, fault: str) -> None:
    (path := tmp_path / "rounds.py").write_text(source)
    found = list(faults(path, "parslfl/rounds.py"))
    assert len(found) == 1
    assert fault in found[0]


def test_a_docstring_does_not_count_as_code(tmp_path: Path) -> None:
    said = '    """Says.\n' + "    more\n" * FUNCTION_LINES + '    """\n'
    (path := tmp_path / "rounds.py").write_text(KNOWS + "def f():\n" + said + "    return 1\n")
    assert list(faults(path, "parslfl/rounds.py")) == []
    assert [length(function) for function in functions(path)] == [2]
