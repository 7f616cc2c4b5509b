"""Every module can be imported alone, and loads no more than its floor may.

One fresh interpreter forks a child per module: each starts as bare as a new process that has
loaded numpy, without paying for its start.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

#: Never loaded by merely importing a module.
SLOW = {"torch", "torchvision", "sklearn", "medmnist", "matplotlib"}
HOUSE = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["parslfl"]
FLOOR = {name: number for number, names in enumerate(HOUSE["floors"]) for name in names}

#: By module: the top-level names it loads, or the traceback of its import.
Loaded = dict[str, list[str] | str]

CHILDREN = """
import importlib, json, os, sys, traceback
import numpy  # any module may load it: once is enough

def look(module):
    \"\"\"What is loaded after importing `module` in a child, or the traceback.\"\"\"
    reader, writer = os.pipe()
    if os.fork():
        os.close(writer)
        with os.fdopen(reader) as answer:
            seen = json.load(answer)
        os.wait()
        return seen
    try:
        importlib.import_module(module)
        seen = [name for name in sys.modules if "." not in name]
    except BaseException:
        seen = traceback.format_exc()
    with os.fdopen(writer, "w") as answer:
        json.dump(seen, answer)
    os._exit(0)

json.dump({module: look(module) for module in json.load(sys.stdin)}, sys.stdout)
"""


def names() -> list[str]:
    """Every module of both packages. `__main__` runs when imported, so it is left out."""
    return [
        ".".join(path.relative_to(home).with_suffix("").parts).removesuffix(".__init__")
        for home, package in ((ROOT, "parslfl"), (ROOT / "executors", "parslfl_executors"))
        for path in sorted((home / package).rglob("*.py"))
        if path.name != "__main__.py"
    ]


def look(modules: list[str]) -> Loaded:
    """What importing each of `modules` loads."""
    done = subprocess.run(
        [sys.executable, "-c", CHILDREN],
        input=json.dumps(modules), capture_output=True, text=True, timeout=110,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    loaded: Loaded = json.loads(done.stdout)
    return loaded


@pytest.fixture(scope="module")
def loaded() -> Loaded:
    return look(names())


def test_every_module_imports_alone(loaded: Loaded) -> None:
    broken = [f"{module}:\n{seen}" for module, seen in loaded.items() if isinstance(seen, str)]
    assert "\n".join(broken) == ""


def test_no_module_loads_what_its_floor_may_not(loaded: Loaded) -> None:
    excess = {module: sorted(set(seen) & forbidden(module)) for module, seen in loaded.items()}
    assert {module: names for module, names in excess.items() if names} == {}


def forbidden(module: str) -> set[str]:
    """What importing `module` may not load, itself or through others."""
    package, _, rest = module.partition(".")
    floor = FLOOR.get(rest.partition(".")[0], 0) if package == "parslfl" else 3
    if module in HOUSE["loaders"]:
        return set()
    return SLOW | ({"parsl"} if floor < 4 else set()) | ({"pydantic", "yaml", "rich"} if floor < 3 else set())


def test_a_broken_module_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken.py").write_text("import no_such_module")
    (tmp_path / "heavy.py").write_text("import yaml")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    seen = look(["broken", "heavy", "json"])
    assert "No module named 'no_such_module'" in seen["broken"]
    assert "yaml" in seen["heavy"]
    assert "yaml" not in seen["json"]  # nothing leaks from one child to the next
