"""Memory that is used again: new memory comes page by page, which takes several times as long as to fill it.

Does not know: what is in it.
"""

from __future__ import annotations

import threading

#: Bytes and buffers that are kept at most, by a process; what is asked for beyond is new each time.
MOST, NUMBER = 1 << 26, 64


class Buffers:
    """Buffers that are handed out again once there is no view of them any more, nor of a part of them."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._kept: list[bytearray] = []
        self._next = 0  # those handed out last are the least likely to be free
        self._turn = threading.Lock()

    def take(self, size: int) -> memoryview:
        """`size` bytes that nobody else has, with anything in them."""
        if not size:
            return memoryview(b"")
        with self._turn:
            for turn in range(len(self._kept)):
                number = (self._next + turn) % len(self._kept)
                buffer = self._kept[number]
                if size <= len(buffer) <= size + size // 4 and _is_free(buffer):
                    self._next = number + 1
                    return memoryview(buffer)[:size]
            made = bytearray(size + size // 16)  # the next update may be a little larger
            self._keep(made)
            return memoryview(made)[:size]

    def forget(self) -> None:
        """Give the memory back of those of which there is no view."""
        with self._turn:
            self._kept = [buffer for buffer in self._kept if not _is_free(buffer)]

    def _keep(self, made: bytearray) -> None:
        """Keep `made`, if there is room: in place of free ones, which are all of a size that is asked for no
        longer. What is kept stays as much as was in use at once."""
        held, over = sum(map(len, self._kept)) + len(made), len(made)
        for buffer in list(self._kept):
            if (over > 0 or held > self._most or len(self._kept) >= NUMBER) and _is_free(buffer):
                held, over = held - len(buffer), over - len(buffer)
                self._kept = [one for one in self._kept if one is not buffer]
        if held <= self._most and len(self._kept) < NUMBER:
            self._kept.append(made)


def _is_free(buffer: bytearray) -> bool:
    """Whether there is no view of it: its size could not change then."""
    try:
        buffer.append(buffer.pop())
    except BufferError:
        return False
    return True


#: Those of this process.
POOL = Buffers()
