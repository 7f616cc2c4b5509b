from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from parslfl.errors import RunError
from parslfl.messages import Client, Failure, Ref, Update
from parslfl.reports import Incident, RoundReport, SiteTimes
from parslfl.rundir import records
from parslfl.rundir.records import Finished, Scored

UPDATE = Update(
    Client(3, "a"), 0, Ref(8, "cc", data=b"12345678"), 10, 1, 1, 2.5, 1.5, 8, notes=("from zeros", "late")
)
FAILURE = Failure(Client(4, "a"), 0, "late", "too slow")
REPORT = RoundReport(0, "aa", (UPDATE,), (FAILURE,), 1.5, 80, 8, 0.5, 0.25, 2.0)


def refuse(constant: str) -> None:
    raise AssertionError(constant)


def test_a_line_reads_back_without_the_bytes_of_inline_updates() -> None:
    read = records.parse(records.line(records.finished(REPORT, "bb")).encode(), "here")
    assert read == Finished(replace(REPORT, updates=(replace(UPDATE, ref=Ref(8, "cc")),)), "bb")
    assert records.parse(records.line(records.scored(REPORT)).encode(), "here") == Scored(
        0, {"accuracy": 0.25, "test_loss": 2.0, "evaluation_error": ""}
    )


def test_a_journal_from_before_updates_had_notes_is_still_read() -> None:
    line = records.finished(REPORT, "")
    del line["report"]["updates"][0]["notes"]
    read = records.parse(records.line(line).encode(), "here")
    assert isinstance(read, Finished)
    assert read.report.updates[0].notes == ()


def test_sites_and_incidents_read_back_and_an_older_line_has_none() -> None:
    full = replace(
        REPORT,
        updates=(),
        sites=(SiteTimes("hpc", 1, 2.0, 3.0, 4.0, 0.5, 0.25, 3.5),),
        incidents=(Incident("hpc", 1.5, "scancel", (Client(3, "hpc"), Client(4, "hpc"))),),
    )
    line = records.finished(full, "")
    assert records.parse(records.line(line).encode(), "here") == Finished(full, "")
    del line["report"]["sites"], line["report"]["incidents"]
    older = records.parse(records.line(line).encode(), "here")
    assert older == Finished(replace(full, sites=(), incidents=()), "")
    flat = records.metrics(full)
    assert (flat["hpc.queued"], flat["hpc.idle"], flat["incidents"], flat["failures"]) == (2.0, 0.5, 1, 1)
    assert not any(isinstance(value, list | dict | tuple) for value in flat.values())


def test_what_is_not_finite_is_null_and_a_loss_reads_back_as_nan() -> None:
    update = replace(UPDATE, loss=math.nan, first_loss=math.inf)
    line = records.line(records.finished(replace(REPORT, loss=math.nan, updates=(update,)), ""))
    assert json.loads(line, parse_constant=refuse)["report"]["loss"] is None
    read = records.parse(line.encode(), "here")
    assert isinstance(read, Finished)
    assert math.isnan(read.report.loss)
    assert math.isnan(read.report.updates[0].loss)
    assert math.isnan(read.report.updates[0].first_loss)


def test_numpy_scalars_are_written_as_numbers() -> None:
    line = records.line({"a": np.float32(0.5), "b": np.int64(3), "c": (np.float64("nan"),)})
    assert json.loads(line, parse_constant=refuse) == {"a": 0.5, "b": 3, "c": [None]}


@pytest.mark.parametrize("text", [b"{}", b"\xff\xfe", b"[]", b"3", b'{"event": "finished"}', b"{"])
def test_a_line_that_is_none_is_refused_by_its_place(text: bytes) -> None:
    with pytest.raises(RunError, match=r"journal.jsonl:7 is damaged"):
        records.parse(text, "journal.jsonl:7")


def test_what_a_downlink_codec_left_out_is_named_where_there_is_any() -> None:
    line = records.finished(REPORT, "bb", "dd")
    assert records.parse(records.line(line).encode(), "here") == Finished(
        replace(REPORT, updates=(replace(UPDATE, ref=Ref(8, "cc")),)), "bb", "dd"
    )
    assert "residual" not in records.finished(REPORT, "bb")
