"""What happened to a site's blocks and when: from asking for one until it is gone.

Block-seconds are seconds summed over blocks: what a site is charged for. Times are seconds since
the epoch.

Does not know: schedulers, Parsl, or what the workers do.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Account:
    """A site's blocks up to some moment: how many have started, and block-seconds.

    `queued`: asked for, not started. `starting`: started, no worker has reported. `ready`: with workers;
    `idle`: so much of that without a task (half a block, where half of its workers have none).
    """

    blocks: int = 0
    queued: float = 0.0
    starting: float = 0.0
    ready: float = 0.0
    idle: float = 0.0

    def since(self, before: Account) -> Account:
        """What was added after `before`; a start that was learnt of late takes nothing back."""
        pairs = (
            (field.name, getattr(self, field.name), getattr(before, field.name)) for field in fields(self)
        )
        return Account(**{name: max(now - then, type(now)(0)) for name, now, then in pairs})


@dataclass(frozen=True)
class Event:
    """Something that went wrong at `at`: `why`, in one line.

    `block`: what it befell, "" for the whole site. `task`: Parsl's number of a task that was lost
    with it and is tried again.
    """

    at: float
    why: str
    block: str = ""
    task: int | None = None


@dataclass
class _Life:
    """One block. `free`: the share of its workers that had no task at the last look."""

    asked: float
    started: float | None = None
    ready: float | None = None
    ended: float | None = None
    free: float = 0.0
    idle: float = 0.0


class Ledger:
    """The blocks of one site, told from several threads."""

    def __init__(self) -> None:
        self._lives: dict[str, _Life] = {}
        self._homes: dict[str, str] = {}
        self._events: list[Event] = []
        self._looked: float | None = None
        self._lock = threading.Lock()

    def asked(self, block: str, now: float) -> None:
        """A block was asked for."""
        with self._lock:
            self._lives[block] = _Life(now)

    def started(self, block: str, at: float | None) -> None:
        """The scheduler says that a block started at `at`; None: when it was asked for."""
        with self._lock:
            life = self._lives.get(block)
            if life is not None and life.started is None:
                life.started = max(life.asked, life.asked if at is None else at)

    def look(self, managers: Sequence[Mapping[str, Any]], now: float) -> bool:
        """Take what `connected_managers()` returns; whether a block is among them for the first time."""
        with self._lock:
            self._pass(now)
            for life in self._lives.values():
                life.free = 0.0
            new = False
            for block in {str(m["block_id"]) for m in managers}:
                ours = [m for m in managers if m["block_id"] == block]
                self._homes.update((str(m["manager"]), block) for m in ours)
                new = self._see(block, ours, now) or new
            return new

    def ended(self, block: str, now: float) -> bool:
        """A block is over; whether that is news."""
        with self._lock:
            life = self._lives.get(block)
            if life is None or life.ended is not None:
                return False
            self._pass(now)
            life.ended, life.free = now, 0.0
            return True

    def tell(self, event: Event) -> None:
        """Keep an event until it is asked for."""
        with self._lock:
            self._events.append(event)

    def take(self) -> tuple[Event, ...]:
        """The events since it was asked last, oldest first."""
        with self._lock:
            found, self._events = tuple(self._events), []
            return found

    def home(self, manager: str) -> str:
        """The block of a manager, by its name; "" if it was never seen."""
        return self._homes.get(manager, "")

    def account(self, now: float) -> Account:
        """All blocks up to `now`."""
        with self._lock:
            self._pass(now)
            lives = list(self._lives.values())
            return Account(
                blocks=sum(life.started is not None or life.ready is not None for life in lives),
                queued=sum(_queue_end(life, now) - life.asked for life in lives),
                starting=sum(_start_end(life, now) - _queue_end(life, now) for life in lives),
                ready=sum((life.ended or now) - life.ready for life in lives if life.ready),
                idle=sum(life.idle for life in lives),
            )

    def _see(self, block: str, managers: Sequence[Mapping[str, Any]], now: float) -> bool:
        life = self._lives.get(block)
        if life is None or life.ended is not None:  # Parsl lists a lost manager for a while
            return False
        workers = sum(m["worker_count"] for m in managers)
        busy = sum(min(m["tasks"], m["worker_count"]) for m in managers)
        life.free = 1.0 - busy / workers if workers else 1.0
        new = life.ready is None
        life.ready = life.ready or now
        return new

    def _pass(self, now: float) -> None:
        """Book the time since the last look as what that look saw."""
        gone = max(0.0, now - self._looked) if self._looked is not None else 0.0
        for life in self._lives.values():
            life.idle += gone * life.free
        self._looked = now


def bursts(refusals: Sequence[tuple[float, str]]) -> tuple[Event, ...]:
    """Equal refusals, (when, what was said), as one event each, with their number."""
    found = []
    for said in dict.fromkeys(text for _, text in refusals):
        times = [at for at, text in refusals if text == said]
        span = f"{len(times)} times within {times[-1] - times[0]:.1f} s" if len(times) > 1 else "once"
        found.append(Event(times[0], f"{said} ({span}; asked again)"))
    return tuple(found)


def _queue_end(life: _Life, now: float) -> float:
    last = life.ready or life.ended or now
    return last if life.started is None else min(life.started, last)


def _start_end(life: _Life, now: float) -> float:
    return life.ready or life.ended or now
