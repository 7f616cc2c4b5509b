"""A Slurm site looked at before any allocation is spent: nothing is submitted.

Does not know: what the workers are asked to do.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from parslfl_executors import node_python, slurm_queue
from parslfl_executors.address_checks import call_back, is_near, other_call, ways
from parslfl_executors.checks import Check, Needs, failed, ok, on_nodes, shared_folder

if TYPE_CHECKING:
    from parslfl_executors.slurm import Slurm

_COMMANDS = ("sbatch", "squeue", "scancel", "sinfo")
#: What to do about sbatch's words, by a part of them; the first that fits.
_CURES = (
    ("account", "set account to one of `sacctmgr show assoc user=$USER format=account,partition,qos`"),
    ("partition", "set partition to one that `sinfo -s` lists"),
    ("qos", "set qos to one of `sacctmgr show assoc user=$USER format=account,qos`"),
    ("time limit", "lower walltime; `sinfo -o '%P %l'` shows what each partition allows"),
    ("feature", "set constraint to a feature that `sinfo -o '%n %f'` shows"),
    ("generic resource", "lower accelerators, or name a partition with GPUs: `sinfo -o '%P %G'`"),
    ("node configuration", "ask for fewer cores, nodes or less memory: `sinfo -o '%P %D %c %m'` shows them"),
    ("node count", "lower nodes_per_block"),
    ("contact", "is the controller up? `scontrol ping`"),
)


def checks(site: Slurm, label: str, folder: Path, needs: Needs) -> Iterator[Check]:
    """What can be told from the driver; scripts and logs lie in `folder`, as a run's would."""
    absent = [command for command in _COMMANDS if not shutil.which(command)]
    if absent:
        cure = "run this where sbatch works (a login node), or load Slurm's module"
        yield failed("scheduler", f"not on PATH: {', '.join(absent)}", cure)
        return
    clusters, timeout = site.clusters(), site.cmd_timeout
    said = slurm_queue.unanswered(clusters, timeout)
    if said:
        yield failed("scheduler", f"squeue: {said}", "is the controller up? `scontrol ping`")
        return
    yield ok("scheduler", "sbatch, squeue, scancel and sinfo are here, and the controller answers")
    found = slurm_queue.partition(site.partition, clusters, timeout)
    yield from _partition(site, found)
    yield _job(site, label, folder)
    yield from _from_there(site, folder, () if isinstance(found, str) else found.addresses, needs)


def _from_there(site: Slurm, folder: Path, peers: Sequence[str], needs: Needs) -> Iterator[Check]:
    """What the nodes, at addresses `peers`, will find: the way back, folders, Python."""
    from parslfl_executors.pool import addresses

    own, found = {*addresses(), "127.0.0.1"}, ways(peers)
    near = is_near(own, found)
    yield call_back(site.address, own, found)
    yield from (other_call(one, own, found) for one in needs.calls if one.address != site.address)
    yield shared_folder("run directory", folder, near)
    yield from (on_nodes(one, near) for one in needs.folders)
    yield from node_python.checks(site, needs.packages, near)


def _partition(site: Slurm, found: slurm_queue.Partition | str) -> Iterator[Check]:
    """What sbatch accepts but never starts, and who is there now."""
    name = site.partition or "the default partition"
    if isinstance(found, str):
        yield failed("partition", found, "set partition to one that `sinfo -s` lists")
        return
    if not found.up:
        yield failed("partition", f"{name} is down: jobs wait for ever", "name another one: `sinfo -s`")
    elif found.limit is not None and site.walltime > found.limit:
        detail = f"{name} runs no job longer than {found.limit:.0f} s, walltime is {site.walltime:.0f} s"
        yield failed("partition", detail, f"set walltime to at most {found.limit:.0f} s, or name another one")
    nodes = slurm_queue.nodes(site.partition, site.clusters(), site.cmd_timeout)
    serving = sum(one.count for one in nodes if one.serving)
    idle = sum(one.count for one in nodes if one.state == "idle")
    cores = sum(one.idle_cores for one in nodes if one.serving)
    detail = (
        f"{serving} of {sum(one.count for one in nodes)} nodes in service, {idle} idle, {cores} cores idle"
    )
    if sum(one.count for one in nodes) < site.nodes_per_block:
        needs = f"{detail}; a block needs {site.nodes_per_block}"
        yield failed("nodes", needs, "lower nodes_per_block, or name another partition: `sinfo -s`")
    elif serving < site.nodes_per_block:
        needs = f"{detail}; a block needs {site.nodes_per_block}"
        yield failed("nodes", needs, "wait until nodes are back, or name another partition: `sinfo -s`")
    else:
        yield ok("nodes", detail)


def _job(site: Slurm, label: str, folder: Path) -> Check:
    """The job that a run would submit, by `sbatch --test-only`."""
    from parslfl_executors.pool import command_line

    executor = site.build(label, folder)
    taken, said = executor.provider.trial(command_line(executor, folder), f"parsl.{label}.block-0")  # type: ignore[attr-defined]
    if taken:
        return ok("job", f"sbatch takes it: would start {said.partition(' to start ')[2] or said}")
    fits = (cure for part, cure in _CURES if part in said.lower())
    return failed("job", said, next(fits, "change what sbatch complains of"))
