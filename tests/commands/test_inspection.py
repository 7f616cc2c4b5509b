"""`parslfl inspect`: what it says of whole files, and of damaged ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from parslfl.cli import main
from parslfl.codecs import wire
from parslfl.codecs.topk import TopK
from parslfl.params import Params

MODEL: Params = {"layer.weight": np.ones((3, 4), np.float32), "steps": np.array(7)}


def written(path: Path, arrays: Params, note: dict[str, object] | None = None) -> bytearray:
    data = bytearray(b"".join(wire.pack(arrays, note).buffers))
    path.write_bytes(data)
    return data


def test_a_model_is_told_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = written(tmp_path / "model.plm", MODEL)
    assert main(["inspect", str(tmp_path / "model.plm")]) == 0
    said = capsys.readouterr().out
    words = [line.split() for line in said.splitlines()]
    assert ["layer.weight", "float32", "3", "x", "4", "48"] in words
    assert ["steps", "int64", "one", "number", "8"] in words
    assert ["file", f"{len(data):,}", "bytes,", "wire", "format", "1"] in words
    assert ["arrays", "2", "arrays,", "56", "bytes"] in words
    assert f"checksum  {int.from_bytes(data[8:16], 'little'):016x}, as stored" in said
    assert said.endswith("whole: sizes and checksum are as announced\n")


def test_an_updates_note_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written(tmp_path / "update", *TopK(0.5).encode({"w": np.arange(8, dtype=np.float32)}))
    assert main(["inspect", str(tmp_path / "update")]) == 0
    said = capsys.readouterr().out
    assert 'note      {"layout": "' in said
    assert '"kept": 4' in said


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: data[:-64], "damaged on the way"),
        (lambda data: data[:-1] + b"\1", "damaged on the way"),
        (lambda data: data[:40], "declares a header of"),
        (lambda data: data[:7], "7 bytes are too few for a parslfl payload"),
        (lambda data: data[:0], "0 bytes are too few for a parslfl payload"),
        (lambda data: b"\x89PNG" + data[4:], "not a parslfl payload"),
        (lambda data: data[:16] + b"{" * (len(data) - 16), "unreadable header"),
    ],
)
def test_a_damaged_file_is_named_with_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: object, said: str
) -> None:
    data = bytes(written(tmp_path / "whole", MODEL))
    path = tmp_path / "damaged"
    path.write_bytes(change(data))  # type: ignore[operator]
    assert main(["inspect", str(path)]) == 1
    shown = capsys.readouterr()
    assert shown.err.startswith(f"error: {path}: ") or shown.err.startswith(f"{path}: ")
    assert said in shown.err
    assert "Traceback" not in shown.err


def test_what_a_damaged_file_still_says_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = written(tmp_path / "model.plm", MODEL)
    data[-1] ^= 1
    (tmp_path / "model.plm").write_bytes(data)
    assert main(["inspect", str(tmp_path / "model.plm")]) == 1
    said = capsys.readouterr().out
    assert "layer.weight" in said
    assert "is stored: damaged" in said
    assert "whole" not in said


def test_what_cannot_be_read_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(tmp_path / "gone")]) == 1
    assert "No such file or directory" in capsys.readouterr().err
    assert main(["inspect", str(tmp_path)]) == 1
    assert "Is a directory" in capsys.readouterr().err
