"""Parsl's HighThroughputExecutor with a ledger of its blocks, which notices a lost block at once.

Does not know: which scheduler the provider speaks to, or what the tasks do.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from parsl.executors import HighThroughputExecutor
from parsl.executors.high_throughput.errors import CommandClientTimeoutError, ManagerLost
from parsl.jobs.states import JobState, JobStatus

from parslfl_executors import interchange
from parslfl_executors.fields import Unusable
from parslfl_executors.idle import spare
from parslfl_executors.ledger import Event, Ledger

#: Seconds to wait for an answer of the interchange before taking it for dead.
_REPLY = 30
#: Milliseconds between two looks at whether it lives, while it starts.
_LOOK = 200
#: ZeroMQ's POLLIN and POLLOUT: it is Parsl's, and comes with it.
_READABLE, _WRITABLE = 1, 2


class NoWorkersError(Exception):
    """No block came to serve a task; the message says why. `block`: the last one that did not.

    `final`: the wait for it is over, so to try the task again would be to wait as long again.
    """

    def __init__(self, message: str, block: str = "", final: bool = False) -> None:
        self.block, self.final = block, final
        super().__init__(message)


class Pool(HighThroughputExecutor):
    """Parsl's executor, which keeps a ledger of its blocks.

    It does not wait for ever when its interchange process has died, and not for heartbeats when
    the scheduler says that a block is gone. `max_idle`: seconds without a task after which a block
    ends while others work; None: only all together, as Parsl's strategy has it. `most_workers`: of all
    blocks that the site may have.
    """

    def __init__(self, *, max_idle: float | None = None, **settings: Any) -> None:
        super().__init__(**settings)
        self.max_idle = max_idle
        blocks = self.provider  # now: some providers lower `max_blocks` for a while
        nodes = blocks.max_blocks * blocks.nodes_per_block if blocks is not None else 1
        self.most_workers = max(1, int(nodes * self.workers_per_node))
        self.ledger = Ledger()
        self._given_up: set[object] = set()

    def start(self) -> None:
        """Start, and watch the interchange from then on."""
        self._ending = False
        super().start()  # type: ignore[no-untyped-call]
        ask = partial(self.command_client.run, timeout_s=_REPLY)
        self.command_client.run = ask  # type: ignore[method-assign]
        threading.Thread(target=self._watch, daemon=True, name=f"{self.label}-watch").start()

    def poll_facade(self) -> None:
        """Parsl calls this at every step of its strategy: note who works."""
        if not self.bad_state_is_set:
            with contextlib.suppress(CommandClientTimeoutError):
                managers = self.connected_managers()
                if self.ledger.look(managers, time.time()):
                    self._last_poll_time = 0.0  # ask now when the new block started
                self._retire(managers)
        super().poll_facade()

    def status(self) -> dict[str, JobStatus]:
        """As Parsl's; the tasks of blocks that are lost end at once."""
        found: dict[str, JobStatus] = super().status()
        for block, status in found.items():
            self._note(block, status)
        return found

    def scale_in(self, blocks: int, max_idletime: float | None = None) -> list[str]:
        ended: list[str] = super().scale_in(blocks, max_idletime)
        for block in ended:
            self.ledger.ended(block, time.time())
        return ended

    def outstanding(self) -> int:
        """Tasks that somebody waits for: no block is started for those given up."""
        return len(self.tasks) - len(self._given_up & self.tasks.keys())

    def give_up(self, why: str, block: str = "", *, final: bool) -> None:
        """Fail every task at hand with a `NoWorkersError`; later ones get new blocks.

        The workers may still be sent them later: what they answer then is nobody's.
        """
        for number, future in list(self.tasks.items()):
            if number in self._given_up:
                continue
            self._given_up.add(number)
            self.tasks[number] = Future()
            with contextlib.suppress(InvalidStateError):
                future.set_exception(NoWorkersError(why, block, final))

    def explain(self, block: str) -> str:
        """What became of `block`, in its scheduler's words; "" where it has none."""
        tell = getattr(self.provider, "explain", None)
        return str(tell(self.blocks_to_job_id[block])) if tell and block in self.blocks_to_job_id else ""

    def block_of(self, error: BaseException) -> str:
        """The block whose loss `error` reports; "" if it reports none."""
        if not isinstance(error, ManagerLost):
            return str(getattr(error, "block", ""))
        manager = error.manager_id.decode()
        # each manager logs to a folder of its own, which the driver may share: block-3/1f2e3d4c5b6a
        folders = Path(self.worker_logdir).glob(f"block-*/{manager}")
        logged = next((folder.parent.name.removeprefix("block-") for folder in folders), "")
        return self.ledger.home(manager) or logged

    def troubles(self) -> tuple[Event, ...]:
        """What went wrong since this was asked last, with the causes as they are known now."""
        tell = getattr(self.provider, "troubles", None)
        known = [replace(e, why=self.explain(e.block) or e.why) for e in self.ledger.take()]
        return (*known, *(tell() if tell else ()))

    def shutdown(self, timeout: float = 10.0) -> None:
        """Stop; a bad state keeps Parsl from ending the blocks, so they are ended here."""
        self._ending = True
        if self.bad_state_is_set and self.provider is not None:
            self.provider.cancel(list(self.blocks_to_job_id.values()))
        super().shutdown(timeout)

    def _retire(self, managers: Sequence[Mapping[str, Any]]) -> None:
        """End the blocks that can be spared. Each is held first, so that no task is on its way to it;
        one that had just been sent some works them off, and ends at a later look.
        """
        provider, tasks = self.provider, self.outstanding()
        if self.max_idle is None or provider is None or not tasks:
            return
        over = {block for block, status in self._status.items() if status.terminal}
        there = [m for m in managers if m["block_id"] not in over]  # Parsl lists them for a while
        for block in spare(there, tasks, provider.nodes_per_block, provider.min_blocks, self.max_idle):
            self._hold_block(block)  # type: ignore[no-untyped-call]
            held = [m for m in self.connected_managers() if m["block_id"] == block]
            if not any(m["tasks"] or m["active"] for m in held):
                self._end(block)

    def _end(self, block: str) -> None:
        assert self.provider is not None
        if block in self.blocks_to_job_id and all(self.provider.cancel([self.blocks_to_job_id[block]])):
            self._status[block] = self._simulated_status[block] = JobStatus(JobState.SCALED_IN)
            self.ledger.ended(block, time.time())

    def _start_local_interchange_process(self) -> None:
        """As Parsl's, which waits for two minutes even for a process that has ended.

        Raises:
            Unusable: it has ended, or does not answer.
        """
        self.command_client.run = self._first_answer  # type: ignore[method-assign,assignment]
        try:
            super()._start_local_interchange_process()
        except BrokenPipeError:  # it has not even read what it is to do
            code = self.interchange_proc.wait() if self.interchange_proc else None
            raise Unusable(self._ended(code)) from None
        finally:
            del self.command_client.run

    def _first_answer(self, question: str, timeout_s: float) -> Any:
        line, until = self.command_client.zmq_socket, time.monotonic() + timeout_s
        self._until_ready(line, _WRITABLE, until)
        line.send_pyobj(question)
        self._until_ready(line, _READABLE, until)
        return line.recv_pyobj()

    def _until_ready(self, line: Any, event: int, until: float) -> None:
        assert self.interchange_proc is not None
        while not line.poll(_LOOK, event):
            if self.interchange_proc.poll() is not None:
                raise Unusable(self._ended(self.interchange_proc.returncode))
            if time.monotonic() > until:
                raise Unusable(f"{self.label}: Parsl's interchange process does not answer: try again")

    def _ended(self, code: int | None) -> str:
        said = interchange.last_words(Path(self.logdir)) or "it said nothing"
        return f"{self.label}: Parsl's interchange process ended (exit code {code}): {said}"

    def _launch_block(self, block_id: str) -> Any:
        self.ledger.asked(block_id, time.time())
        return super()._launch_block(block_id)

    def _note(self, block: str, status: JobStatus) -> None:
        if status.terminal:
            if self.ledger.ended(block, time.time()) and status.state != JobState.SCALED_IN:
                interchange.tell(Path(self.logdir), block)
                why = " ".join((status.message or f"block {block} ended: {status.status_name}").split())
                self.ledger.tell(Event(time.time(), why, block))
            return
        tell = getattr(self.provider, "began", None)
        began = tell(self.blocks_to_job_id[block]) if tell else None
        if began is not None or not tell:
            self.ledger.started(block, began)

    def _watch(self) -> None:
        code = self.interchange_proc.wait() if self.interchange_proc is not None else None
        if not self._ending:
            self.set_bad_state_and_fail_all(RuntimeError(self._ended(code)))


def lost(executor: Pool, error: Exception, task: int, again: bool) -> None:
    """Take note that `task` was lost by `error`, and is tried `again`; the error gets the cause."""
    block = executor.block_of(error)
    why = executor.explain(block) if block else ""
    if why and why not in str(error) and not hasattr(error, "__notes__"):
        error.add_note(why)
    if again:
        told = [*getattr(error, "__notes__", ()), f"{type(error).__name__}: {error}"]
        executor.ledger.tell(Event(time.time(), why or " ".join(told[0].split()), block, task))
