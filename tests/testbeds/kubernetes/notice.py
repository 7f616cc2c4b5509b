"""How soon each loss of a pod is noticed, with the settings that a site has by default.

`PYTHONPATH=tests/workers python tests/testbeds/kubernetes/notice.py` prints, for each loss, the
seconds until the site knows the cause, and until the task that was hit (without a retry) ends;
then what bursts of errors of the API server cost.

Does not know: what is done about a loss.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kube_bed import Bed, loopback
from kube_cluster import Cluster

from parslfl.closing import lost
from parslfl.graph import submit
from parslfl.launch import kernel
from parslfl_executors.kubernetes import Kubernetes

#: Losses of a pod that works, by what does it to the pod called so.
LEVERS: dict[str, Callable[[Cluster, str], object]] = {
    "deleted": lambda kube, name: kube.delete("default", name),
    "vanished": lambda kube, name: kube.vanish(name),
    "evicted": lambda kube, name: kube.evict(name),
    "oom": lambda kube, name: kube.oom(name),
}
#: Pods that never serve, by what is wrong with them.
STILLBORN: dict[str, dict[str, Any]] = {
    "image": {"image": "bad/image:1"},
    "crash": {"worker_init": "echo no parsl here; exit 7"},
    "pending": {"cores": 100, "pending_timeout": 15},
    "account": {"service_account": "no-such-account"},
}


@dataclass(frozen=True)
class Place:
    name: str
    executor: Kubernetes
    retries: int = 0


def known(executor: Any, since: float, told: dict[str, float]) -> None:
    """Note when the site knows what became of its first pod."""
    while not any(block.over for block in list(executor.pods.resources.values())):
        time.sleep(0.05)
    told[executor.label] = time.monotonic() - since


def places(bed: Bed) -> list[Place]:
    plain = {"poll": 3, "cores": "100m", "memory": "256Mi"}
    working = [Place(name, bed.settings(**plain)) for name in LEVERS]
    later = {**plain, "init_blocks": 0}  # no pod before its task
    return working + [Place(name, bed.settings(**{**later, **wrong})) for name, wrong in STILLBORN.items()]


def watch(executor: Any, future: Future[Any], told: dict[str, float], ended: dict[str, float]) -> None:
    since = time.monotonic()
    threading.Thread(target=known, args=(executor, since, told), daemon=True).start()
    future.add_done_callback(lambda _: ended.setdefault(executor.label, time.monotonic() - since))


def measure(bed: Bed, folder: Path) -> None:
    told: dict[str, float] = {}
    ended: dict[str, float] = {}
    with kernel(places(bed), "driver", folder / "run/parsl") as running:
        for name in LEVERS:
            submit(running, name, time.sleep, 0).result(60)  # its pod is there
        tasks = {name: submit(running, name, time.sleep, 600) for name in LEVERS}
        time.sleep(2)
        for name, lever in LEVERS.items():
            executor: Any = running.executors[name]
            watch(executor, tasks[name], told, ended)
            lever(bed.levers(), next(iter(executor.pods.resources)))
        for name in STILLBORN:
            tasks[name] = submit(running, name, time.sleep, 600)
            watch(running.executors[name], tasks[name], told, ended)
        for name, task in tasks.items():
            error = task.exception(120)
            while name not in told:  # it is known at about the time that the task ends
                time.sleep(0.05)
            cause = lost(error) if error else "nothing"
            print(f"{name:9} known {told[name]:5.1f} s   task {ended[name]:5.1f} s   {cause}")  # noqa: T201


def expiry(bed: Bed, folder: Path) -> None:
    """A pod that works reaches its walltime."""
    told: dict[str, float] = {}
    ended: dict[str, float] = {}
    site = Place("walltime", bed.settings(poll=3, walltime=15, cores="100m", memory="256Mi"))
    with kernel([site], "driver", folder / "expiry/parsl") as running:
        submit(running, "walltime", time.sleep, 0).result(60)
        task = submit(running, "walltime", time.sleep, 600)
        executor: Any = running.executors["walltime"]
        (block,) = executor.pods.signals([]).blocks
        time.sleep(max(0.0, block.left))
        watch(executor, task, told, ended)
        cause = lost(task.exception(120))  # type: ignore[arg-type]  # it cannot have ended well
        print(f"walltime  known {told['walltime']:5.1f} s   task {ended['walltime']:5.1f} s   {cause}")  # noqa: T201


#: Bursts of errors, by what the server does to the calls of a site that makes its first pod.
BURSTS: dict[str, dict[str, Any]] = {
    "no error": {"times": 0, "code": 500},
    "429 x 3, Retry-After 1": {"times": 3, "code": 429, "verb": "POST", "path": "/pods", "retry_after": 1},
    "500 x 4 on create": {"times": 4, "code": 500, "verb": "POST", "path": "/pods"},
    "500 x 8 on list": {"times": 8, "code": 500, "verb": "GET", "path": "/pods"},
}


def bursts(bed: Bed, folder: Path) -> None:
    """Seconds from a task to its end on a new pod, while the server answers with errors."""
    for number, (name, fault) in enumerate(BURSTS.items()):
        site = Place("cloud", bed.settings(poll=3, init_blocks=0, cores="100m", memory="256Mi"))
        with kernel([site], "driver", folder / f"burst-{number}/parsl") as running:
            bed.levers().fail(**fault)
            began = time.monotonic()
            submit(running, "cloud", time.sleep, 0).result(120)
            print(f"{name:24} first task done after {time.monotonic() - began:5.1f} s")  # noqa: T201
        bed.levers().calm()


if __name__ == "__main__":
    home = Path(tempfile.mkdtemp())
    with loopback(home / "kube") as found:
        measure(found, home)
        expiry(found, home)
        bursts(found, home)
