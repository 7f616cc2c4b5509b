from pathlib import Path

import pytest

from parslfl.data.folder import find, place, resolve_folder
from parslfl.errors import DataError


def test_the_given_folder_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARSLFL_DATA", "/from/environment")
    assert resolve_folder(str(tmp_path)) == tmp_path
    assert resolve_folder(None) == Path("/from/environment")
    assert resolve_folder("") == Path("/from/environment")


@pytest.mark.parametrize("value", [None, ""])
def test_without_any_it_is_the_cache(value: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.delenv("PARSLFL_DATA", raising=False)
    if value is not None:
        monkeypatch.setenv("PARSLFL_DATA", value)
    assert resolve_folder(None) == Path("/home/someone/.cache/parslfl")


def test_it_is_absolute_because_workers_run_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolve_folder("data") == tmp_path / "data"


def test_place_reads_home_and_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.setenv("SCRATCH", "/scratch")
    assert place(Path("~/data")) == Path("/home/someone/data")
    assert place(Path("$SCRATCH/data")) == Path("/scratch/data")


def test_find_takes_the_first_that_exists(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "file").touch()
    assert find("file", [tmp_path / "a", tmp_path / "b"]) == tmp_path / "b" / "file"


def test_find_names_every_folder_and_the_offline_ways(tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        find("file", [tmp_path / "a", tmp_path / "b"])
    said = str(error.value)
    assert said.startswith(f"found no file in {tmp_path / 'a'} or {tmp_path / 'b'}: copy it there")
    assert "--data-dir" in said
    assert "PARSLFL_DATA" in said
    assert "--dataset digits" in said
