"""Memory that is used again: never while somebody still looks at it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from parslfl.transport.buffers import NUMBER, Buffers


def address(view: memoryview) -> int:
    return int(np.frombuffer(view, np.uint8).ctypes.data)


def test_what_nobody_looks_at_is_handed_out_again() -> None:
    buffers = Buffers()
    first = buffers.take(1000)
    place = address(first)
    first[:] = b"x" * 1000
    del first
    again = buffers.take(1050)  # a little more fits
    assert address(again) == place
    assert len(again) == 1050


def test_a_part_that_is_still_looked_at_keeps_the_whole() -> None:
    buffers = Buffers()
    first = buffers.take(1000)
    first[:] = b"x" * 1000
    part = np.frombuffer(first.toreadonly()[100:200], np.float32)[3:5]
    place = address(first)
    del first
    for _ in range(3):
        other = buffers.take(1000)
        assert address(other) != place
        other[:] = b"y" * 1000
    assert part.tobytes() == b"x" * 8
    del part, other
    assert place in {address(view) for view in [buffers.take(1000) for _ in range(2)]}


def test_a_small_piece_does_not_get_a_large_buffer() -> None:
    buffers = Buffers()
    large = buffers.take(10_000)
    place = address(large)
    del large
    small = buffers.take(100)
    assert address(small) != place
    assert address(buffers.take(10_000)) == place


def test_no_more_than_so_much_is_kept() -> None:
    buffers = Buffers(most=3000)
    views = [buffers.take(1000) for _ in range(5)]
    assert len({address(view) for view in views}) == 5
    assert [len(buffer) for buffer in buffers._kept] == [1062, 1062]
    views.clear()
    larger = buffers.take(2000)  # in place of one
    assert [len(buffer) for buffer in buffers._kept] == [2125]
    assert len(buffers.take(5000)) == 5000
    larger[:] = bytes(2000)


def test_no_more_than_so_many_are_kept() -> None:
    buffers = Buffers()
    views = [buffers.take(10) for _ in range(NUMBER + 5)]
    assert len(buffers._kept) == NUMBER
    assert len({address(view) for view in views}) == NUMBER + 5
    views.clear()
    other = buffers.take(1000)
    assert [buffer is other.obj for buffer in buffers._kept] == [True]


def test_memory_is_given_back_but_for_what_is_looked_at() -> None:
    buffers = Buffers()
    views = [buffers.take(1000) for _ in range(3)]
    del views[0]
    buffers.forget()
    assert [buffer is view.obj for buffer, view in zip(buffers._kept, views, strict=True)] == [True, True]
    assert address(buffers.take(1000)) not in {address(view) for view in views}


def test_sizes_that_are_asked_for_no_longer_are_not_kept() -> None:
    """Round after round of another size, as the codec or the clients change."""
    buffers = Buffers()
    for size in (1000, 2000, 500, 4000, 250):
        views = [buffers.take(size) for _ in range(10)]
        assert sum(map(len, buffers._kept)) <= 10 * (size + size // 16) + 4000
        views.clear()


def test_nothing_is_kept_for_an_empty_file() -> None:
    buffers = Buffers()
    assert [len(buffers.take(0)) for _ in range(3)] == [0, 0, 0]
    assert buffers._kept == []


def test_two_that_ask_at_once_get_two() -> None:
    buffers = Buffers()

    def fill(number: int) -> bool:
        view = buffers.take(4000)
        view[:] = bytes([number]) * 4000
        return set(bytes(view)) == {number}

    with ThreadPoolExecutor(4) as asking:
        assert all(asking.map(fill, list(range(200)) * 5))
