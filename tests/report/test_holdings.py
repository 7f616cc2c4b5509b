from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from parslfl.errors import ConfigError
from parslfl.report import holdings

COUNTS = np.array([[80, 0], [0, 1], [40, 40]])


def test_the_picture_has_a_column_a_client_and_a_row_a_class() -> None:
    lines = [line.plain for line in holdings.picture(COUNTS, width=80)]
    assert lines == [
        "clients    0",
        "class 0    █·▒",
        "class 1    ·░▒",
        "· none   ░ few   █ 80 examples",
    ]


def test_clients_that_do_not_fit_stand_below() -> None:
    lines = [line.plain for line in holdings.picture(np.ones((25, 1), int), width=32)]
    assert lines[:4] == [
        "clients    0         10",
        "class 0    " + "█" * 20,
        "clients    20",
        "class 0    █████",
    ]


@pytest.mark.parametrize(("count", "shade"), [(0, 0), (1, 1), (20, 1), (21, 2), (60, 3), (61, 4), (80, 4)])
def test_shades_are_quarters_and_one_example_shows(count: int, shade: int) -> None:
    assert holdings.level(count, top=80) == shade


def test_nobody_holds_anything() -> None:
    assert [line.plain for line in holdings.picture(np.zeros((2, 1), int), 80)][1] == "class 0    ··"


def test_ascii_only() -> None:
    text = "\n".join(line.plain for line in holdings.picture(COUNTS, 80, ascii_only=True))
    assert text.isascii()


def test_numbers_with_totals() -> None:
    console = Console(width=80)
    with console.capture() as capture:
        console.print(holdings.numbers(COUNTS))
    lines = [line.split() for line in capture.get().splitlines()]
    assert ["2", "40", "40", "80"] in lines
    assert ["all", "120", "41", "161"] in lines


def test_spread() -> None:
    assert holdings.spread(COUNTS) == [
        "examples a client: least 1, median 80, greatest 80",
        "classes a client: least 1, median 1, greatest 2",
    ]


def test_plot_writes_a_png(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    holdings.plot(COUNTS, "who holds what", tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_plot_names_a_file_it_cannot_write(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for name in ("missing/a.png", "a.unknown"):
        with pytest.raises(ConfigError, match="cannot be written"):
            holdings.plot(COUNTS, "", tmp_path / name)


def test_plot_without_matplotlib_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ConfigError, match="pip install matplotlib"):
        holdings.plot(COUNTS, "", tmp_path / "a.png")
