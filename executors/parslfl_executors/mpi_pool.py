"""Parsl's MPIExecutor, with what `htex.Pool` adds: a ledger of its blocks, lost ones noticed at once.

Does not know: schedulers, or what the ranks do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from parsl.executors import MPIExecutor
from parsl.executors.high_throughput.executor import HTEXFuture

from parslfl_executors.htex import Pool

#: What the pool sets and MPIExecutor decides by itself.
_DECIDED = ("max_workers_per_node", "cores_per_worker", "available_accelerators")


class MpiPool(Pool, MPIExecutor):
    """One task a block, with all of its nodes: `shape` is Parsl's resource specification of every task."""

    def __init__(self, shape: Mapping[str, Any], **settings: Any) -> None:
        self.shape = dict(shape)
        interchange = settings.pop("interchange_launch_cmd")
        super().__init__(**{name: value for name, value in settings.items() if name not in _DECIDED})
        self.interchange_launch_cmd = interchange  # MPIExecutor takes one word, HighThroughputExecutor a list

    def submit(
        self, func: Callable[..., Any], resource_specification: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HTEXFuture:
        """As Parsl's; a task that asks for nothing gets the block's nodes."""
        return super().submit(func, resource_specification or dict(self.shape), *args, **kwargs)
