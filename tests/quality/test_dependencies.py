"""pyproject.toml declares what the packages import, no less and no more; constraints.txt pins it."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OWN = {"parslfl", "parslfl_executors"}


def names(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(text).name) for text in requirements}


def imported() -> set[str]:
    """Distributions that the two packages import, at any depth of their code."""
    tops = {
        name.partition(".")[0]
        for folder in ("parslfl", "executors/parslfl_executors")
        for path in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        for name in _targets(node)
    }
    owners = packages_distributions()
    return {canonicalize_name(owners.get(top, [top])[0]) for top in tops - sys.stdlib_module_names - OWN}


def _targets(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [name.name for name in node.names]
    if isinstance(node, ast.ImportFrom) and node.module and not node.level:
        return [node.module]
    return []


def test_every_import_is_declared() -> None:
    extras = names(
        [
            text
            for extra, texts in PROJECT["optional-dependencies"].items()
            for text in texts
            if extra != "dev"
        ]
    )
    assert imported() - names(PROJECT["dependencies"]) - extras == set()


def test_every_dependency_is_imported() -> None:
    assert names(PROJECT["dependencies"]) - imported() == set()


def test_constraints_pin_all_that_is_declared() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line)] == []
    pins = {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}
    wanted = [
        *PROJECT["dependencies"],
        *(text for extra in PROJECT["optional-dependencies"].values() for text in extra),
    ]
    for requirement in map(Requirement, wanted):
        if requirement.name != "parslfl":
            assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), requirement
