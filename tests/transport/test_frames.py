"""Messages: any buffers in pieces of at most a chunk, from any offset; headers of one shape only."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parslfl.errors import PayloadError
from parslfl.transport import frames


@given(st.lists(st.binary(max_size=40)), st.integers(0, 200), st.integers(1, 16))
def test_the_pieces_are_the_buffers_from_the_offset_on(buffers: list[bytes], offset: int, room: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frames, "CHUNK", room)
        pieces = list(frames.chunks(buffers, offset))
    assert b"".join(pieces) == b"".join(buffers)[offset:]
    assert all(len(piece) == room for piece in pieces[:-1])
    assert all(0 < len(piece) <= room for piece in pieces[-1:])


def test_a_header_comes_back() -> None:
    message = frames.header(name="updates/a", size=3, checksum="0f")
    wanted = ("name", "size", "checksum")
    assert frames.read_header(message, *wanted) == {"name": "updates/a", "size": 3, "checksum": "0f"}


@pytest.mark.parametrize(
    "fields",
    [{"offset": -1}, {"offset": True}, {"offset": "3"}, {"offset": 1.0}, {"size": 1}, {}, [], None,
     {"offset": 1, "size": 2}],
)  # fmt: skip
def test_any_other_header_is_refused(fields: object) -> None:
    with pytest.raises(PayloadError, match="header"):
        frames.read_header(json.dumps(fields).encode(), "offset")


@pytest.mark.parametrize("message", [b"", b"\xff", b"[" * 4000, b'{"offset":1}' + b" " * 4096])
def test_what_is_no_header_is_refused(message: bytes) -> None:
    with pytest.raises(PayloadError, match="expected a header with offset"):
        frames.read_header(message, "offset")
