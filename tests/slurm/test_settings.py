"""What a Slurm site may say, and what becomes of it in its jobs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from parslfl.errors import ConfigError
from parslfl.sites import Federation, Site, load_federation
from parslfl_executors.slurm import Slurm

BAD = """\
sites:
  - name: hpc
    clients: 2
    executor:
      kind: slurm
      partiton: gpu
      account: 12
      walltime: soon
      launcher: mpirun
      scheduler_options: mem=3G
"""


def test_every_mistake_has_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.yaml").write_text(BAD)
    with pytest.raises(ConfigError) as caught:
        load_federation("bad.yaml")
    lines = str(caught.value).splitlines()
    assert [line.partition(": ")[0] for line in lines] == [f"bad.yaml:{n}" for n in range(6, 11)]
    assert lines[0].endswith("executor.partiton: unknown field (did you mean 'partition'?)")
    assert "put it in quotes" in lines[1]
    assert "expected a duration" in lines[2]
    assert lines[4].endswith("expected options of sbatch, one a line, such as --mem=32G, got 'mem=3G'")


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"min_blocks": 3, "max_blocks": 2}, "min_blocks: 3 is more than max_blocks (2)"),
        ({"init_blocks": 2}, "init_blocks: 2 is more than max_blocks (1)"),
        ({"workers_per_node": 4, "accelerators": 2}, "workers_per_node: 4 workers for 2 accelerators a node"),
        ({"nodes_per_block": 2, "launcher": "single"}, "launcher: 'single' starts workers on one node only"),
    ],
)
def test_what_does_not_fit_together(tmp_path: Path, fields: dict[str, Any], problem: str) -> None:
    settings = "\n".join(f"      {name}: {value}" for name, value in fields.items())
    path = tmp_path / "site.yaml"
    path.write_text(f"sites:\n  - name: a\n    clients: 1\n    executor:\n      kind: slurm\n{settings}\n")
    with pytest.raises(ConfigError, match="site.yaml:[0-9]+: sites.0..executor.*") as caught:
        load_federation(path)
    assert problem in str(caught.value)


SHARES = [
    ({}, (1, 1)),
    ({"cores_per_node": 8}, (8, 1)),
    ({"cores_per_node": 8, "workers_per_node": 3}, (3, 2)),
    ({"cores_per_node": 8, "accelerators": 2}, (2, 4)),
    ({"accelerators": [0, 0, 1, 1], "threads": 3}, (4, 3)),
]


@pytest.mark.parametrize(("fields", "share"), SHARES)
def test_workers_and_threads(fields: dict[str, Any], share: tuple[int, int]) -> None:
    executor = Slurm.model_validate(fields)
    assert (executor.workers_per_node(), executor.threads_per_worker()) == share


def test_what_is_resolved_makes_the_same_again() -> None:
    site = Site(name="a", clients=1, executor=Slurm.model_validate({"workers_per_node": 2, "walltime": "2h"}))
    federation = Federation(sites=(site,))
    assert Federation.model_validate(federation.resolved()) == federation


def test_settings_become_a_job(tmp_path: Path) -> None:
    executor = Slurm.model_validate(
        {
            "account": "me",
            "accelerators": [0, 0, 1],
            "walltime": "61s",
            "nodes_per_block": 2,
            "scheduler_options": "--mem=3G\n#SBATCH --nice",
            "parsl": {"heartbeat_threshold": 9, "provider": {"mem_per_node": 4}},
        }
    )
    built: Any = executor.build("hpc", tmp_path)
    provider = built.provider
    assert (built.heartbeat_threshold, built.encrypted, built.max_workers_per_node) == (9, True, 3)
    assert (provider.walltime, provider.mem_per_node, provider.gpus_per_node) == ("00:02:00", 4, 2)
    options = provider.scheduler_options.splitlines()
    assert {
        "#SBATCH --mem=3G",
        "#SBATCH --nice",
        "#SBATCH --exclusive",
        "#SBATCH --account=me",
        "#SBATCH --gpus-per-node=2",
        "#SBATCH --no-requeue",
        f'#SBATCH --comment="parslfl:{tmp_path}"',
    } <= set(options)
    assert provider.launcher.overrides == "--cpu-bind=none"


def test_what_the_site_file_offers_is_accepted(repository: Path, tmp_path: Path) -> None:
    text = (repository / "site_configs/slurm.yaml").read_text()
    assert text.startswith("# python workflows/cifar_round.py --site slurm.yaml")
    (plain,) = load_federation("slurm.yaml").sites
    assert (plain.clients, plain.executor.workers_per_node(), plain.executor.threads_per_worker()) == (
        60,
        4,
        2,
    )
    _, _, fields = text.partition("\nname: ")
    (tmp_path / "all.yaml").write_text("name: " + fields.replace("\n      # ", "\n      "))
    (site,) = load_federation(tmp_path / "all.yaml").sites
    assert site.executor.kind == "slurm"
    assert (site.executor.qos, site.executor.poll, site.executor.accelerators) == ("normal", 30.0, 4)
