"""The planner's choices, as a person reads them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from rich.console import Console

from parslfl.messages import Client
from parslfl.report import tables
from parslfl.report.choices import in_words, short
from parslfl.report.live import line
from parslfl.report.progress import Row
from parslfl.reports import Choice

INT8 = "quantize:block=0+zstd:level=0"
CHOICES = (
    *(Choice(Client(index, "near"), "raw", 1.0, f"link {index} MB/s") for index in range(8)),
    Choice(Client(8, "far"), INT8, 0.5, "3 x the median's seconds a step; link 2.1 MB/s"),
)
ROW = Row(2, 9, (), 1.0, 0, 0, 1.0, choices=CHOICES)


@pytest.mark.parametrize(
    ("spec", "word"),
    [
        ("raw", "raw"),
        (INT8, "int8"),
        ("quantize:bits=4+zstd:level=0", "int4"),
        ("topk:ratio=0.05+quantize:bits=4+zstd:level=0", "topk 5 %+int4"),
        ("zstd:level=3", "zstd:level=3"),
        ("MyOwn", "MyOwn"),
    ],
)
def test_a_codec_in_a_word(spec: str, word: str) -> None:
    assert short(spec) == word


def test_a_rounds_line_counts_them() -> None:
    assert in_words(CHOICES) == "8 x raw, 1 x int8 at 50 %"
    assert line(ROW, 3).endswith("1.0 s  8 x raw, 1 x int8 at 50 %")
    assert " x " not in line(replace(ROW, choices=()), 3)


def test_the_report_has_the_last_rounds_choices_with_reasons() -> None:
    console = Console(width=160, force_terminal=False)
    earlier = replace(ROW, round=0, choices=CHOICES[:1])
    with console.capture() as capture:
        tables.show([earlier, ROW, replace(ROW, round=3, choices=())], console)
    text = " ".join(capture.get().split())
    assert "round 3 codec units clients why (the first)" in text
    assert "near raw 100.0 % 0 1 2 3 4 5 and 2 more link 0 MB/s" in text
    assert "far quantize:block=0+zstd:level=0 50.0 % 8 3 x the median's" in text
    assert "round 1 codec" not in text
