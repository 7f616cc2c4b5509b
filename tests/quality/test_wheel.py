"""The wheel holds both packages and what they need at run time, and nothing else."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    built = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert built.returncode == 0, built.stdout + built.stderr
    (path,) = folder.glob("*.whl")
    return zipfile.ZipFile(path)


def test_it_holds_every_file_of_both_packages(wheel: zipfile.ZipFile) -> None:
    sources = {
        f"{package}/{path.relative_to(home).as_posix()}"
        for package, home in (
            ("parslfl", ROOT / "parslfl"),
            ("parslfl_executors", ROOT / "executors/parslfl_executors"),
            ("parslfl/site_configs", ROOT / "site_configs"),
        )
        for path in home.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert sources - set(wheel.namelist()) == set()
    assert {"parslfl/py.typed", "parslfl_executors/py.typed", "parslfl/site_configs/local.yaml"} <= sources


def test_it_holds_nothing_else(wheel: zipfile.ZipFile) -> None:
    tops = {name.partition("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"parslfl", "parslfl_executors"}


def test_it_gives_the_command_and_the_version(wheel: zipfile.ZipFile) -> None:
    from parslfl import __version__

    info = f"parslfl-{__version__}.dist-info"
    assert "parslfl = parslfl.cli:main" in wheel.read(f"{info}/entry_points.txt").decode()
    assert f"Version: {__version__}\n" in wheel.read(f"{info}/METADATA").decode()
