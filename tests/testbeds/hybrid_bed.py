"""Both test beds at once: a real Slurm and a loopback Kubernetes cluster, and a run on them.

`make hybrid` runs site_configs/hybrid.yaml on them, as it is but for what names a cluster. What is
given after the script's name goes to the workflow.

Does not know: what is trained.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import slurm_bed
from kube_bed import IMPORTS, ROOT, Bed, loopback

#: Seconds that what a run leaves to its clusters may take to go.
_FAREWELL = 20.0


@contextmanager
def beds(folder: Path) -> Iterator[Bed]:
    """Slurm with four nodes, and a Kubernetes cluster of one; both end on leaving.

    Raises:
        NoSlurmError: Slurm cannot be had here.
    """
    with slurm_bed.cluster(), loopback(folder) as bed:
        yield bed


def settings(bed: Bed) -> dict[str, Any]:
    """What hybrid.yaml says of its clusters, for these."""
    cloud = {name: bed.fields[name] for name in ("kubeconfig", "image", "worker_init", "volumes")}
    here = {"address": "127.0.0.1", "max_blocks": 2}
    executors = {
        "hpc": {
            **here, "account": None, "partition": "debug", "walltime": "10m", "poll": 2,
            "cores_per_node": 1, "workers_per_node": 1, "worker_init": f"export PYTHONPATH={IMPORTS}",
        },
        "cloud": {**here, **cloud, "namespace": "default", "cores": 1, "memory": "2Gi", "poll": 2},
    }  # fmt: skip
    found = {f"{site}.executor.{key}": v for site, fields in executors.items() for key, v in fields.items()}
    folders = {"hpc.data": None, "cloud.data": None}
    return {f"sites.{key}": value for key, value in {**found, **folders}.items()}


def left(bed: Bed, logs: Path) -> list[str]:
    """What is still there of a run whose logs are in `logs`: jobs, pods, processes of pods."""
    kube = bed.levers()
    jobs = [f"job {job.id}" for job in slurm_bed.jobs(logs)]
    pods = [f"pod {name}" for _, name in list(kube.pods)]
    return [*jobs, *pods, *(f"process {process.pid}" for process in kube.processes())]


def emptied(bed: Bed, logs: Path, seconds: float = _FAREWELL) -> list[str]:
    """What is `left` once nothing is, or `seconds` have passed."""
    until = time.monotonic() + seconds
    while (found := left(bed, logs)) and time.monotonic() < until:
        time.sleep(0.2)
    return found


def run(bed: Bed, words: Sequence[str], run_dir: Path) -> int:
    """The workflow on both clusters; its exit code."""
    changes = [f"--set={key}={json.dumps(value)}" for key, value in settings(bed).items()]
    command = [sys.executable, "workflows/cifar_round.py", "--site", "hybrid.yaml", "--run-dir", str(run_dir)]
    with subprocess.Popen([*command, *changes, *words], cwd=ROOT) as workflow:
        while True:
            with contextlib.suppress(KeyboardInterrupt):  # it hears Ctrl-C too, and ends in order
                return workflow.wait()


def main(words: Sequence[str]) -> int:
    run_dir = ROOT / "runs" / time.strftime("hybrid-%Y%m%d-%H%M%S")
    with tempfile.TemporaryDirectory() as folder:
        try:
            with beds(Path(folder, "kube")) as bed:
                code = run(bed, words, run_dir)
                found = emptied(bed, run_dir / "parsl")
        except slurm_bed.NoSlurmError as error:
            print(f"error: {error}", file=sys.stderr)  # noqa: T201 - a script's own words
            return 2
    print(f"left on the clusters: {', '.join(found) or 'no job, no pod, no process'}")  # noqa: T201
    return code or bool(found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
