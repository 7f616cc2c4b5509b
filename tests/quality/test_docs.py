"""README, CONTRIBUTING and docs/ point at files and commands that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "executors").rglob("*.md")])

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
MAKE = re.compile(r"(?:`|^)make ([a-z]+)", re.MULTILINE)
SCRIPT = re.compile(r"\bpython3? ((?:workflows|examples|benchmarks)/\S+\.py)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_page_points_at_what_exists(page: Path) -> None:
    assert dangling(page.read_text(), page.parent) == []


def dangling(text: str, folder: Path) -> list[str]:
    """Relative links, `make` targets and scripts named in `text` that are not there."""
    links = [link.partition("#")[0] for link in LINK.findall(text) if "://" not in link]
    return [
        *(link for link in links if link and not (folder / link).exists()),
        *(f"make {target}" for target in MAKE.findall(text) if target not in targets()),
        *(script for script in SCRIPT.findall(text) if not (ROOT / script).exists()),
    ]


def targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_ci_runs_the_test_command_of_the_readme() -> None:
    commands = [line for line in (ROOT / ".ci/run").read_text().splitlines() if line and line[0] != "#"]
    assert commands == ["set -eu", 'cd "$(dirname "$0")/.."', "exec make test"]
    assert "make test" in (ROOT / "README.md").read_text()


def test_what_does_not_exist_is_found(tmp_path: Path) -> None:
    text = (
        "[a](gone.md) [b](https://example.org) `make nothing`\n\npython workflows/gone.py --site x\nmake test"
    )
    assert dangling(text, tmp_path) == ["gone.md", "make nothing", "workflows/gone.py"]
