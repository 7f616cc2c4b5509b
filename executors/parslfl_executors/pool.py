"""A Parsl HighThroughputExecutor as parslfl wants it, on any provider.

Does not know: which scheduler the provider speaks to, or what the tasks do.
"""

from __future__ import annotations

import contextlib
import ipaddress
import shlex
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import psutil
from parsl.executors import HighThroughputExecutor
from parsl.executors.high_throughput.executor import DEFAULT_LAUNCH_CMD
from parsl.jobs.error_handlers import windowed_error_handler
from parsl.providers.base import ExecutionProvider

from parslfl_executors import guard
from parslfl_executors.fields import Unusable
from parslfl_executors.htex import Pool
from parslfl_executors.signals import SiteSignals

#: Blocks that must fail one after the other before the executor is given up. Parsl's own handler
#: gives up with the first block, and so with the first lost node.
_BLOCKS_IN_A_ROW = 3
_INTERCHANGE = "parslfl_executors.interchange"
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
    python: str = "python3",
    max_idle: float | None = None,
    raw: Mapping[str, Any],
    places: Mapping[str, str] = MappingProxyType({}),
    make: Callable[..., Any] | None = None,
) -> HighThroughputExecutor:
    """An encrypted executor with `workers` processes a node.

    Parsl's programs are started by module name, so PATH does not matter. The interchange (and
    on the `same_machine` the workers too) ends with this process, however that ends. `python` is
    shell text that starts Python on another machine. Without an `address` of this machine the
    workers try all that it has. `places`: what stands in the workers' command instead of Parsl's
    own placeholders, such as {logdir}. `max_idle`: as for `Pool`. `make`: the executor's class, by
    default `Pool`. `raw` keywords go to it as they are and win over everything here.
    """
    _refuse_odd(logs)
    command = f"{python} -m {_POOL}"
    if same_machine:
        command = shlex.join(guard.command(_POOL, own_group=False))
    launch = DEFAULT_LAUNCH_CMD.replace("process_worker_pool.py", command)
    for place, text in places.items():
        launch = launch.replace(place, text)
    settings: dict[str, Any] = {
        "label": label,
        "provider": provider,
        "address": address or "0.0.0.0",  # noqa: S104  listens on all: CurveZMQ keeps strangers out
        "max_workers_per_node": workers,
        "cores_per_worker": 1e-6,  # only max_workers_per_node decides
        "available_accelerators": accelerators,
        "encrypted": True,
        "max_idle": max_idle,
        "heartbeat_period": 2,  # also how fast a dead worker process is noticed
        "heartbeat_threshold": 20,
        "block_error_handler": partial(windowed_error_handler, threshold=_BLOCKS_IN_A_ROW),
        "worker_logdir_root": str(logs),
        "interchange_launch_cmd": guard.command(_INTERCHANGE, own_group=True),
        "launch_cmd": launch,
    }
    with taken(raw):
        executor: HighThroughputExecutor = (make or Pool)(**{**settings, **raw})
    if address is None and "address" not in raw:
        # Parsl would find them too, but would also ask a public web service who we are
        executor.all_addresses = addresses()
    return executor


@contextlib.contextmanager
def taken(keywords: Mapping[str, Any]) -> Iterator[None]:
    """Parsl's complaint about what it is given, where a site file gives it `keywords`.

    Raises:
        Unusable: Parsl does not take them.
    """
    try:
        yield
    except Exception as error:
        if not keywords:
            raise
        raise Unusable(f"Parsl does not take what stands under `parsl`: {error}") from error


def _refuse_odd(logs: Path) -> None:
    """Parsl puts this path into shell commands as it is.

    Raises:
        Unusable: a shell would not read it back as one word.
    """
    odd = sorted(set(str(logs)) & set(" \t\n'\"`$&|;<>(){}[]*?!#~\\"))
    if odd:
        seen = " ".join(repr(character) for character in odd)
        raise Unusable(f"Parsl cannot start workers from {logs}: name a directory without {seen}")


def command_line(executor: Any, folder: Path) -> str:
    """What a first block of an `executor` that is not started would run, but for ports and keys.

    `folder` takes the place of the run's own; the provider gets a folder for scripts in it.
    """
    executor.run_dir = str(folder)
    executor.logconf_path = None
    scripts = folder / executor.label / "submit_scripts"
    scripts.mkdir(parents=True, exist_ok=True)
    executor.provider.script_dir = str(scripts)
    executor.initialize_scaling()
    return str(executor.launch_cmd).format(block_id="0")


def addresses() -> set[str]:
    """IPv4 addresses of this machine; the loopback's where there is no other."""
    found = [entry for entries in psutil.net_if_addrs().values() for entry in entries]
    own = {entry.address for entry in found if entry.family == socket.AF_INET}
    return {address for address in own if not address.startswith("127.")} or own


def interpreter_first(worker_init: str) -> str:
    """`worker_init` behind a line that puts this interpreter's folder first on PATH."""
    return f"export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH\n{worker_init}"


def interpreter_there(worker_init: str) -> str:
    """The same for another machine: only where that interpreter is there too."""
    path = shlex.quote(sys.executable)
    return f"if [ -x {path} ]; then\n{interpreter_first('')}fi\n{worker_init}"


def bound_threads(count: int) -> str:
    """Bound every numeric library: each would otherwise take all cores in every worker."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    return "".join(f"export {name}={count}\n" for name in names)


def waiting(executor: Any) -> str:
    """Why none of the executor's blocks runs, if its provider has a `waiting()` that says so."""
    tell = getattr(getattr(executor, "provider", None), "waiting", None)
    return str(tell()) if tell is not None else ""


def signals(executor: Any) -> SiteSignals | None:
    """How the site of a started executor stands, if its provider has a `signals()` that says so."""
    tell = getattr(getattr(executor, "provider", None), "signals", None)
    return cast(SiteSignals, tell(executor.connected_managers())) if tell is not None else None


def sweep(executor: Any) -> None:
    """Remove what is left of the blocks of a stopped executor, if its provider has a `sweep()`."""
    rest = getattr(getattr(executor, "provider", None), "sweep", None)
    if rest is not None:
        rest()


def own_address() -> str:
    """The address of this machine that other machines reach it at: that of its default route."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing; the address is set apart for examples
        except OSError:
            return "127.0.0.1"
        found: str = probe.getsockname()[0]
        return found


def is_free(address: str, port: int) -> bool:
    """Whether `port` of this machine's own `address` can be listened on now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
            probe.listen()
        except (OSError, OverflowError):
            return False
        return True


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
