"""An MPI job in a real Slurm allocation of two nodes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from counting import Counting
from looking import task_seeds

from parslfl.experiment import Experiment
from parslfl.orchestrator import rounds
from parslfl.sites import Federation, Site

TESTS = Path(__file__).parents[1]


@pytest.mark.parametrize("launcher", ["mpiexec", "srun"])
def test_four_ranks_on_two_nodes(site: Callable[..., Site], launcher: str, tmp_path: Path) -> None:
    """A rank dies in the first round, which another site saves; the second is whole again."""
    pytest.importorskip("mpi4py")
    block = site(nodes_per_block=2, max_blocks=1, cores_per_node=2).executor.model_dump(exclude_unset=True)
    here = {"kind": "local", "workers": 1, "worker_init": block["worker_init"]}
    allocated = {"kind": "mpi", "ranks_per_node": 2, "launcher": launcher, "slurm": block}
    federation = Federation.model_validate(
        {
            "sites": [
                {"name": "here", "clients": 1, "executor": here},
                {"name": "mpi", "clients": 4, "executor": allocated},
            ]
        }
    )
    dies = Counting(mark=str(tmp_path / "mark"), victim=task_seeds(0, 3)[0])
    experiment = Experiment.model_validate(
        {
            "dataset": "synthetic:samples=50",
            "model": dies,
            "partition": "iid",
            "rounds": 2,
            "per_round": 5,
            "quorum": 1,
        }
    )
    first, second = rounds(federation, experiment, tmp_path / "run")
    assert [f.client.index for f in first.failures] == [1, 2, 3, 4]
    assert "its MPI job ended with exit code" in first.failures[0].reason
    assert len(second.updates) == 5
    assert second.partials[0].updates == 4
    places = {(u.spent.host, u.spent.pid) for u in second.updates if u.client.site == "mpi"}
    assert len(places) == 4
    assert len({host for host, _ in places}) == 2
    assert os.uname().nodename not in {host for host, _ in places}
