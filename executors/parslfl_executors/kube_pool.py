"""The executor of a Kubernetes site: tasks whose pod is lost, or never comes, end with the cause.

Does not know: the Kubernetes API, or what the tasks do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from parsl.executors.high_throughput.errors import ManagerLost, WorkerLost
from parsl.executors.high_throughput.executor import HTEXFuture
from parsl.jobs.states import TERMINAL_STATES, JobState, JobStatus

from parslfl_executors.htex import Pool
from parslfl_executors.kube_provider import Pods

#: States of a block that no worker ever reported from.
_FAILED = {JobState.FAILED, JobState.MISSING}


class PodExecutor(Pool):
    """A HighThroughputExecutor on `Pods`.

    Parsl's own would be dead for the rest of the run once all its blocks have failed, and would
    wait for ever while none can start. This one gives up on the tasks at hand, with the reason,
    and tries new pods for those that come later.
    """

    def __init__(self, *, provider: Pods, **settings: Any) -> None:
        super().__init__(provider=provider, **{**settings, "block_error_handler": _give_up_if_none_serve})
        self.pods = provider
        self._hopeless = ""  # the block for which tasks were given up last
        self._excused: set[str] = set()

    def start(self) -> None:
        super().start()
        self.pods.open(Path(self.cert_dir) if self.cert_dir else None)

    def submit(
        self, func: Callable[..., Any], resource_specification: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HTEXFuture:
        future = super().submit(func, resource_specification, *args, **kwargs)
        future.add_done_callback(self._annotate)  # before Parsl's own, so that it sees the note
        return future

    def explain(self, block: str) -> str:
        """What became of `block`, and why; "" while there is nothing to say."""
        return self.pods.explain(self.blocks_to_job_id.get(block))

    def blame(self, block: str) -> None:
        """Fail every task at hand for what became of `block`."""
        if block != self._hopeless:
            self._hopeless = block
            why = self.explain(block) or "no pod could serve it"
            self.give_up(why, block, final=self._outwaited(block))

    def expired(self, failed: Iterable[str], serving: bool) -> str:
        """The last of these blocks that pended for too long while none was `serving`; "" if none did."""
        new = [block for block in failed if self._outwaited(block) and block not in self._excused]
        self._excused.update(new)
        return "" if serving else max(new, key=int, default="")

    def _outwaited(self, block: str) -> bool:
        return self.pods.outwaited(self.blocks_to_job_id.get(block))

    def shutdown(self, timeout: float = 10.0) -> None:
        super().shutdown(timeout)
        self.pods.close()

    def _annotate(self, future: Future[Any]) -> None:
        error = future.exception()
        if isinstance(error, ManagerLost):
            cause = self.explain(self.block_of(error)) or self.pods.explain(self.pods.named(error.hostname))
        elif isinstance(error, WorkerLost):
            cause = self.pods.explain(self.pods.named(error.hostname))
        else:
            return
        if cause:
            error.add_note(cause)


def _give_up_if_none_serve(executor: Any, status: Mapping[str, JobStatus]) -> None:
    """Parsl calls this after each look: is there any hope for the tasks at hand?"""
    states = {one.state for one in status.values()}
    failed = [block for block, one in status.items() if one.state in _FAILED]
    if expired := executor.expired(failed, JobState.RUNNING in states):
        executor.blame(expired)
        executor.scale_in_facade(len(status))  # those asked for later would hold the tasks for as long again
    elif states and states <= set(TERMINAL_STATES) and (last := max(status, key=int)) in failed:
        executor.blame(last)
