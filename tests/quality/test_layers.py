"""The floors of docs/architecture.md, read from the imports: they only go down.

Nothing is imported here; the sources are parsed. The negative tests build small trees that break
one law each, so that a law which stopped being checked is noticed.
"""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from importlib.util import resolve_name
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

HOUSE = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["parslfl"]
#: Modules and families by floor, ground floor first. A new one is entered in pyproject.toml.
FLOORS: list[list[str]] = HOUSE["floors"]
#: The modules that are about nothing else than one slow package.
LOADERS: dict[str, str] = HOUSE["loaders"]
FAMILIES = FLOORS[1]
FLOOR = {name: number for number, names in enumerate(FLOORS) for name in names}
FLOOR[""] = 0  # parslfl itself, which holds the version

#: What the ground floor may load: a worker pays for it in every task.
GROUND = {"numpy", "xxhash"}
#: Seconds to import: only inside functions, so that `parslfl --help` and a numpy worker stay quick.
SLOW = {"torch", "torchvision", "scipy", "sklearn", "medmnist", "matplotlib"}
#: The YAML border, floor 3: values below it are plain dataclasses.
BORDER = {"pydantic", "yaml"}


@dataclass(frozen=True)
class Import:
    """`module` imports `target`; `loads`: already when `module` itself is imported."""

    module: str
    target: str
    line: int
    loads: bool

    @property
    def package(self) -> str:
        return self.target.partition(".")[0]


def modules(root: Path) -> dict[str, Path]:
    """Every module of both packages under `root`, by dotted name."""
    homes = {"parslfl": root, "parslfl_executors": root / "executors"}
    return {
        ".".join(path.relative_to(home).with_suffix("").parts).removesuffix(".__init__"): path
        for package, home in homes.items()
        for path in sorted((home / package).rglob("*.py"))
    }


def imports(root: Path) -> list[Import]:
    known = modules(root)
    return [
        Import(module, _precise(target, known), line, loads)
        for module, path in known.items()
        for target, line, loads in _walk(ast.parse(path.read_text()), _package(module, path), True)
    ]


def _package(module: str, path: Path) -> str:
    return module if path.name == "__init__.py" else module.rpartition(".")[0]


def _precise(target: str, known: dict[str, Path]) -> str:
    """`parslfl.errors` for `from parslfl.errors import DataError`, as for `from parslfl import errors`."""
    return target if target in known else target.rpartition(".")[0] or target


def _walk(node: ast.AST, package: str, loads: bool) -> Iterator[tuple[str, int, bool]]:
    for child in ast.iter_child_nodes(node):
        match child:
            case ast.Import(names=names):
                yield from ((f"{name.name}.", child.lineno, loads) for name in names)
            case ast.ImportFrom(module=module, names=names, level=level):
                base = resolve_name("." * level + (module or ""), package) if level else module or ""
                yield from ((f"{base}.{name.name}", child.lineno, loads) for name in names)
            case ast.Call(func=ast.Name(id="import_module") | ast.Attribute(attr="import_module")):
                if child.args and isinstance(name := child.args[0], ast.Constant):
                    yield f"{name.value!s}.", child.lineno, loads
                yield from _walk(child, package, loads)
            case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                yield from _walk(child, package, False)
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():
                yield from _walk(child, package, False)
            case _:
                yield from _walk(child, package, loads)


def place(module: str) -> tuple[int | None, str]:
    """(floor, family) of a module of parslfl; the family is empty off floor 1."""
    name = module.split(".")[1] if "." in module else ""
    return FLOOR.get(name), name if name in FAMILIES else ""


def check(edge: Import) -> str | None:
    """What is wrong with one import, or None."""
    if edge.module.startswith("parslfl_executors"):
        return _check_executors(edge)
    floor, family = place(edge.module)
    if edge.module == "parslfl":
        return "parslfl/__init__.py imports nothing, so that every module can be had alone"
    if floor is None:
        return None  # `homeless` names it once
    if edge.package == "parslfl":
        return _check_house(edge, floor, family)
    if edge.package == "parslfl_executors":
        return _check_loader(edge) if floor >= 3 else "executors are known from floor 3 up"
    return _check_outside(edge, floor)


def _check_executors(edge: Import) -> str | None:
    if edge.package == "parslfl":
        return "executors know nothing of federated learning"
    if edge.package in SLOW | {"parsl"} and edge.loads and edge.module not in LOADERS:
        return f"{edge.package} is imported inside the function that needs it"
    return _check_loader(edge)


def _check_house(edge: Import, floor: int, family: str) -> str | None:
    target_floor, target_family = place(edge.target)
    if target_floor is not None and target_floor > floor:
        return f"goes up from floor {floor} to floor {target_floor}"
    if family and target_family and family != target_family:
        return f"family {family} knows family {target_family}"
    return _check_loader(edge)


def _check_outside(edge: Import, floor: int) -> str | None:
    if floor == 0 and edge.loads and edge.package not in GROUND | sys.stdlib_module_names:
        return f"the ground floor loads only {', '.join(sorted(GROUND))}"
    if edge.package in BORDER and floor < 3:
        return f"{edge.package} is for floor 3 and up"
    if edge.package == "parsl" and edge.loads and floor < 4:
        return "parsl is loaded from floor 4 up"
    if edge.package in SLOW and edge.loads and edge.module not in LOADERS:
        return f"{edge.package} is imported inside the function that needs it"
    return None


def _check_loader(edge: Import) -> str | None:
    if edge.loads and edge.target in LOADERS and edge.module not in LOADERS:
        return f"{edge.target} loads {LOADERS[edge.target]}: import it inside a function"
    return None


def homeless(root: Path) -> list[str]:
    """Modules of parslfl on no floor."""
    return [name for name in modules(root) if name.startswith("parslfl.") and place(name)[0] is None]


def broken_laws(root: Path) -> list[str]:
    return [f"{module}: has no floor yet: enter it in pyproject.toml" for module in homeless(root)] + [
        f"{edge.module}:{edge.line}: imports {edge.target}: {law}"
        for edge in imports(root)
        if (law := check(edge)) is not None
    ]


def cycle(root: Path) -> list[str]:
    """Modules that import each other in a ring, or nothing; imports inside functions count too."""
    graph: dict[str, set[str]] = {module: set() for module in modules(root)}
    for edge in imports(root):
        if edge.target in graph and edge.target != edge.module:
            graph[edge.module].add(edge.target)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_every_import_goes_down() -> None:
    assert "\n".join(broken_laws(ROOT)) == ""


def test_no_modules_import_each_other_in_a_ring() -> None:
    assert cycle(ROOT) == []


def test_the_sources_are_found() -> None:
    found = {edge.module for edge in imports(ROOT)}
    assert {"parslfl.messages", "parslfl.strategies.fedprox", "parslfl_executors.local"} <= found


BAD = [
    ("parslfl/errors.py", "import parslfl.tasks", "goes up from floor 0 to floor 2"),
    ("parslfl/errors.py", "from parslfl import tasks", "goes up from floor 0 to floor 2"),
    ("parslfl/params.py", "from . import tasks", "goes up from floor 0 to floor 2"),
    (
        "parslfl/params.py",
        "def f():\n    from parslfl.codecs.raw import Raw",
        "goes up from floor 0 to floor 1",
    ),
    ("parslfl/params.py", "import scipy.sparse", "ground floor loads only"),
    ("parslfl/data/digits.py", "from parslfl.codecs import raw", "family data knows family codecs"),
    ("parslfl/data/digits.py", "import sklearn.datasets", "sklearn is imported inside"),
    ("parslfl/data/digits.py", "class A:\n    from torchvision import ops", "torchvision is imported inside"),
    ("parslfl/data/digits.py", "def f():\n    import yaml", "yaml is for floor 3"),
    ("parslfl/unheard.py", "import json", "has no floor yet"),
    ("parslfl/models/cnn.py", "from parslfl.models import _torch", "loads torch"),
    ("parslfl/models/cnn.py", "import torch.nn as nn", "torch is imported inside"),
    ("parslfl/tasks.py", "from pydantic import BaseModel", "pydantic is for floor 3"),
    ("parslfl/tasks.py", "import_module('parslfl.cli')", "goes up from floor 2 to floor 5"),
    ("parslfl/sites.py", "import parsl", "parsl is loaded from floor 4 up"),
    (
        "parslfl/sites.py",
        "try:\n    import matplotlib\nexcept ImportError:\n    pass",
        "matplotlib is imported inside",
    ),
    ("parslfl/tasks.py", "import parslfl_executors.local", "executors are known from floor 3 up"),
    ("parslfl/__init__.py", "from parslfl.errors import DataError", "imports nothing"),
    (
        "executors/parslfl_executors/local.py",
        "from parslfl.errors import ConfigError",
        "know nothing of federated",
    ),
    ("executors/parslfl_executors/local.py", "from parslfl_executors.pool import Pool", "loads parsl"),
    ("parslfl/sites.py", "from parslfl_executors import pool", "loads parsl"),
    ("executors/parslfl_executors/local.py", "from parsl.executors import base", "parsl is imported inside"),
]

GOOD = [
    ("parslfl/params.py", "import json, numpy as np\nimport xxhash"),
    ("parslfl/specs.py", "from parslfl import __version__\nfrom parslfl.errors import ConfigError"),
    ("parslfl/data/digits.py", "from parslfl.data import names\nimport parslfl.params"),
    ("parslfl/data/digits.py", "def f():\n    from sklearn.datasets import load_digits"),
    ("parslfl/data/digits.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch"),
    ("parslfl/models/_torch.py", "import torch"),
    ("parslfl/models/cnn.py", "def f():\n    from parslfl.models import _torch"),
    (
        "parslfl/sites.py",
        "import pydantic, yaml\nfrom parslfl_executors import local\ndef f():\n    import parsl",
    ),
    ("parslfl/graph.py", "import parsl\nfrom parslfl import tasks, sites"),
    ("executors/parslfl_executors/local.py", "import pydantic\ndef f():\n    import parsl"),
    ("executors/parslfl_executors/pool.py", "import parsl"),
]


def fake(root: Path, file: str, source: str) -> Path:
    """A house of empty modules, one of which holds `source`."""
    house = ["errors", "params", "tasks", "sites", "codecs/raw", "data/names", "models/_torch", "cli"]
    empty = [f"parslfl/{name}.py" for name in house]
    empty += [f"executors/parslfl_executors/{name}.py" for name in ("local", "pool")]
    for name in (file, *empty):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    (root / file).write_text(source)
    return root


@pytest.mark.parametrize(("file", "source", "law"), BAD)
def test_a_broken_law_is_refused(tmp_path: Path, file: str, source: str, law: str) -> None:
    found = broken_laws(fake(tmp_path, file, source))
    assert len(found) == 1
    assert law in found[0]


@pytest.mark.parametrize(("file", "source"), GOOD)
def test_what_the_floors_allow_passes(tmp_path: Path, file: str, source: str) -> None:
    assert broken_laws(fake(tmp_path, file, source)) == []


def test_a_ring_is_refused(tmp_path: Path) -> None:
    root = fake(tmp_path, "parslfl/errors.py", "import parslfl.params")
    (root / "parslfl/params.py").write_text("def f():\n    from parslfl.errors import DataError")
    assert set(cycle(root)) == {"parslfl.errors", "parslfl.params"}
