"""The limit to measure against: federated averaging by hand, with no framework at all.

Two spawned processes, the global model and the updates in shared memory, two update buffers a
process so that neither side waits for the other, and one running sum.

Does not know: parslfl, except for the network and the data that both sides train.
"""

from __future__ import annotations

import multiprocessing as mp
import os
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import numpy as np

_SLOTS = 2
Vector = np.ndarray[Any, np.dtype[np.float32]]
#: (global model, client) -> that client's new model, all flat float32
Train = Callable[[Vector, int], Vector]


@dataclass
class Bare:
    """Two processes that train with what `make` returns in each of them."""

    scalars: int
    make: Callable[[], Train]
    workers: int = 2

    def __post_init__(self) -> None:
        slots = 1 + self.workers * _SLOTS
        self.memory = SharedMemory(create=True, size=4 * self.scalars * slots)
        self.rows = np.ndarray((slots, self.scalars), np.float32, self.memory.buf)
        self.total = np.zeros(self.scalars, np.float32)
        context = mp.get_context("spawn")
        self.pipes: list[Connection] = []
        self.processes = []
        for worker in range(self.workers):
            here, there = context.Pipe()
            first = 1 + worker * _SLOTS
            args = (self.memory.name, slots, self.scalars, first, there, self.make)
            process = context.Process(target=_serve, args=args, daemon=True)
            process.start()
            self.pipes.append(here)
            self.processes.append(process)

    def round(self, clients: list[int], weights: list[float]) -> None:
        """One federated round: every client trains, the global model becomes their average."""
        weight_of = dict(zip(clients, weights, strict=True))
        queue = list(reversed(clients))
        self.total.fill(0)
        busy = 0
        for pipe in self.pipes:
            for slot in range(_SLOTS):
                if queue:
                    pipe.send((queue.pop(), slot))
                    busy += 1
        while busy:
            for ready in wait(self.pipes):
                worker = self.pipes.index(ready)  # type: ignore[arg-type]
                client, slot = self.pipes[worker].recv()
                row = self.rows[1 + worker * _SLOTS + slot]
                row *= np.float32(weight_of[client])
                self.total += row
                busy -= 1
                if queue:
                    self.pipes[worker].send((queue.pop(), slot))
                    busy += 1
        np.divide(self.total, np.float32(sum(weights)), out=self.rows[0])

    def close(self) -> None:
        for pipe in self.pipes:
            pipe.send(None)
        for process in self.processes:
            process.join()
        del self.rows
        self.memory.close()
        self.memory.unlink()

    def pids(self) -> list[int]:
        return [os.getpid(), *(p.pid for p in self.processes if p.pid)]


def _serve(
    name: str, slots: int, scalars: int, first: int, pipe: Connection, make: Callable[[], Train]
) -> None:
    memory = SharedMemory(name=name)
    rows = np.ndarray((slots, scalars), np.float32, memory.buf)
    train = make()
    while (work := pipe.recv()) is not None:
        client, slot = work
        rows[first + slot] = train(rows[0], client)
        pipe.send((client, slot))
    del rows
    memory.close()
