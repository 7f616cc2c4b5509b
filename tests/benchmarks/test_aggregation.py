"""What the benchmark of aggregation is asked for, before it takes its minutes."""

from __future__ import annotations

import sys

import aggregation
import pytest


@pytest.mark.parametrize("word", ["foo", "0", "-3", "2.5", "--nump"])
def test_what_is_no_table_is_refused_before_any_is_made(
    word: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["aggregation.py", "8", word])
    with pytest.raises(SystemExit) as ended:
        aggregation.main()
    said = f"aggregation: {word}: expected a number of updates from 1, codecs, robust, or --numpy"
    assert ended.value.code == said
    assert capsys.readouterr().out == ""
