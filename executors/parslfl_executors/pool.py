"""A Parsl HighThroughputExecutor as parslfl wants it, on any provider.

Does not know: which scheduler the provider speaks to, or what the tasks do.
"""

from __future__ import annotations

import ipaddress
import shlex
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from parsl.executors import HighThroughputExecutor
from parsl.executors.high_throughput.executor import DEFAULT_LAUNCH_CMD
from parsl.jobs.error_handlers import windowed_error_handler
from parsl.providers.base import ExecutionProvider

from parslfl_executors import guard

#: Blocks that must fail one after the other before the executor is given up. Parsl's own handler
#: gives up with the first block, and so with the first lost node.
_BLOCKS_IN_A_ROW = 3
_INTERCHANGE = "parsl.executors.high_throughput.interchange"
_POOL = "parsl.executors.high_throughput.process_worker_pool"


def worker_pool(
    label: str,
    provider: ExecutionProvider,
    logs: Path,
    *,
    address: str | None,
    workers: int,
    accelerators: int | Sequence[str] = (),
    same_machine: bool = False,
    raw: Mapping[str, Any],
    places: Mapping[str, str] = MappingProxyType({}),
    make: Callable[..., HighThroughputExecutor] = HighThroughputExecutor,
) -> HighThroughputExecutor:
    """An encrypted executor with `workers` processes a node.

    Parsl's programs are started by module name, so PATH does not matter. The interchange (and
    on the `same_machine` the workers too) ends with this process, however that ends. `raw`
    keywords go to HighThroughputExecutor as they are and win over everything here. `address` None:
    the interchange listens on all of this machine's. `places`: what stands in the workers' command
    instead of Parsl's own placeholders, such as {logdir}. `make`: the class of the executor.
    """
    command = guard.command(_POOL) if same_machine else ["python3", "-m", _POOL]
    launch = DEFAULT_LAUNCH_CMD.replace("process_worker_pool.py", shlex.join(command))
    for place, text in places.items():
        launch = launch.replace(place, text)
    settings: dict[str, Any] = {
        "label": label,
        "provider": provider,
        "address": address,
        "max_workers_per_node": workers,
        "cores_per_worker": 1e-6,  # only max_workers_per_node decides
        "available_accelerators": accelerators,
        "encrypted": True,
        "heartbeat_period": 2,  # also how fast a dead worker process is noticed
        "heartbeat_threshold": 20,
        "block_error_handler": partial(windowed_error_handler, threshold=_BLOCKS_IN_A_ROW),
        "worker_logdir_root": str(logs),
        "interchange_launch_cmd": guard.command(_INTERCHANGE),
        "launch_cmd": launch,
    }
    return make(**{**settings, **raw})


def interpreter_first(worker_init: str) -> str:
    """`worker_init` behind a line that puts this interpreter's folder first on PATH."""
    return f"export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH\n{worker_init}"


def own_address() -> str:
    """The address of this machine that other machines reach it at: that of its default route."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing; the address is set apart for examples
        except OSError:
            return "127.0.0.1"
        found: str = probe.getsockname()[0]
        return found


def is_own(address: str) -> bool:
    """Whether `address` is a number of this machine's: a name, or a detour, cannot be listened on."""
    try:
        ipaddress.IPv4Address(address)
    except ValueError:
        return False
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
        return True
