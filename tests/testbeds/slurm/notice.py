"""How soon each loss of a Slurm block is noticed, with the settings that a site has by default.

`PYTHONPATH=tests/workers python tests/testbeds/slurm/notice.py`, on a test bed that is up and idle, prints
for each loss the seconds until the site knows the cause, and until the task that was hit (without a retry)
ends; last, how long the jobs of a killed driver live. Names of losses behind it: only those.

Does not know: what is done about a loss.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from looking import wait_until

from parslfl.closing import lost
from parslfl.graph import submit
from parslfl.launch import kernel
from parslfl_executors import slurm_queue
from parslfl_executors.slurm import Slurm

ROOT = Path(__file__).parents[3]
PLAIN = {
    "walltime": "10m",
    "cores_per_node": 1,
    "address": "127.0.0.1",
    "worker_init": f"export PYTHONPATH={ROOT}:{ROOT / 'executors'}:{ROOT / 'tests/workers'}",
}
#: Seconds from the order to Slurm's own limit in `walltime`.
_SOON = 3.0


def overdue(job: str) -> None:
    end = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(time.time() + _SOON))
    slurm_queue.ask(["scontrol", "update", f"jobid={job}", f"EndTime={end}"])


def fallen(job: str) -> None:
    slurm_queue.ask(["scontrol", "update", "nodename=node4", "state=down", "reason=notice"])


def silent(job: str) -> None:
    """Stop the job's processes, as a node that hangs does: Slurm takes it for running."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("SLURM_JOB_ID") == job and "slurm" not in process.name():
                process.suspend()


#: Losses of a block that works: what does it to the job called so.
LEVERS: dict[str, Callable[[str], object]] = {
    "scancel": lambda job: slurm_queue.cancel([job]),
    "walltime": overdue,
    "node-down": fallen,
    "silent": silent,
}
#: Blocks that never serve.
STILLBORN: dict[str, dict[str, Any]] = {
    "held": {"scheduler_options": "--hold", "pending_timeout": 15},
    "queued": {"scheduler_options": "--begin=now+1hour", "pending_timeout": 15},
    "refused": {"partition": "nope"},
    "init-fails": {"worker_init": "echo no conda here >&2; exit 7"},
}


@dataclass(frozen=True)
class Place:
    name: str
    executor: Slurm
    retries: int = 0


def place(name: str, **changes: Any) -> Place:
    return Place(name, Slurm.model_validate({**PLAIN, **changes}))


def known(executor: Any, job: str, since: float, told: dict[str, float]) -> None:
    """Note when the site's own looks have seen the end of `job`."""
    while not executor.provider.resources[job]["status"].terminal:
        time.sleep(0.05)
    told[executor.label] = time.monotonic() - since


def watch(name: str, future: Future[Any], ended: dict[str, float]) -> float:
    since = time.monotonic()
    future.add_done_callback(lambda _: ended.setdefault(name, time.monotonic() - since))
    return since


def say(name: str, cause: float | None, task: float | None, words: str) -> None:
    numbers = ("      -" if number is None else f"{number:5.1f} s" for number in (cause, task))
    print(f"{name:10} known {'   task '.join(numbers)}   {words}", flush=True)  # noqa: T201


def measure(folder: Path, wanted: set[str]) -> None:
    told: dict[str, float] = {}
    ended: dict[str, float] = {}
    nodes = {"node-down": "node4"}
    levers = {name: lever for name, lever in LEVERS.items() if name in wanted}
    stillborn = {name: wrong for name, wrong in STILLBORN.items() if name in wanted}
    places = [place(n, scheduler_options=f"--nodelist={nodes.get(n, 'node1')}") for n in levers]
    places += [place(name, **wrong) for name, wrong in stillborn.items()]
    with kernel(places, "driver", folder / "run/parsl") as running:
        for name in levers:
            submit(running, name, time.sleep, 0).result(60)  # its block is there
        tasks = {name: submit(running, name, time.sleep, 600) for name in levers}
        time.sleep(2)
        for name, lever in levers.items():
            executor: Any = running.executors[name]
            (job,) = executor.provider.resources
            lever(job)
            since = watch(name, tasks[name], ended)
            threading.Thread(target=known, args=(executor, job, since, told), daemon=True).start()
        for name in stillborn:
            tasks[name] = submit(running, name, time.sleep, 600)
            watch(name, tasks[name], ended)
        for name, task in tasks.items():
            error = task.exception(150)
            say(name, told.get(name, ended[name]), ended[name], lost(error) if error else "nothing")
    slurm_queue.ask(["scontrol", "update", "nodename=node4", "state=resume"])


DRIVER = """
import sys, time
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from notice import place
from parslfl.graph import submit
from parslfl.launch import kernel

with kernel([place("killed")], "driver", Path(sys.argv[1])) as running:
    submit(running, "killed", time.sleep, 0).result(60)
    print("up", flush=True)
    submit(running, "killed", time.sleep, 600).result()
"""


def killed(folder: Path) -> None:
    """How long a running job outlives its driver."""
    logs = folder / "killed/parsl"
    command = [sys.executable, "-c", DRIVER, str(logs), str(Path(__file__).parent)]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'tests/workers'}:{os.environ.get('PYTHONPATH', '')}"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as driver:
        assert driver.stdout
        assert driver.stdout.readline() == "up\n"
        driver.kill()
    since = time.monotonic()
    wait_until(lambda: slurm_queue.labelled(slurm_queue.label(logs)) == [], 120)
    say("killed", None, time.monotonic() - since, "seconds that the job outlived its driver")


if __name__ == "__main__":
    home = Path(tempfile.mkdtemp())
    chosen = set(sys.argv[1:]) or {*LEVERS, *STILLBORN, "killed"}
    if chosen - {"killed"}:
        measure(home, chosen)
    if "killed" in chosen:
        killed(home)
