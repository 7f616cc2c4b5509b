"""A run over two kinds of site: this machine with files, and pods that share nothing with it."""

from __future__ import annotations

from pathlib import Path

from kube_bed import Bed

from parslfl.channels import File, Grpc
from parslfl.experiment import Experiment
from parslfl.orchestrator import rounds
from parslfl.sites import Federation, Site
from parslfl_executors.local import Local

SMALL = {"dataset": "synthetic:side=32", "model": "softmax", "partition": "iid", "rounds": 2, "per_round": 4,
         "epochs": 1}  # fmt: skip


def test_files_and_grpc_in_one_run_give_the_bits_of_files_alone(bed: Bed, tmp_path: Path) -> None:
    experiment = Experiment.model_validate(SMALL)
    here = Site(name="here", clients=3, executor=Local(workers=1, threads=1), transport=File())
    pods = bed.settings(volumes={}, pod={"terminationGracePeriodSeconds": 1})
    cloud = Site(name="cloud", clients=3, executor=pods, transport=Grpc())
    mixed = list(rounds(Federation(sites=(here, cloud)), experiment, tmp_path / "mixed"))

    second = Site(name="cloud", clients=3, executor=Local(workers=1, threads=1), transport=File())
    plain = list(rounds(Federation(sites=(here, second)), experiment, tmp_path / "plain"))

    assert [(r.model, r.failures) for r in mixed] == [(r.model, ()) for r in plain]
    assert [r.bytes_up for r in mixed] == [r.bytes_up for r in plain]
    for one, other in zip(mixed, plain, strict=True):
        at_cloud = sum(update.client.site == "cloud" for update in one.updates)
        size = other.bytes_down // 4
        assert at_cloud > 0
        assert one.bytes_down == (4 - at_cloud) * size + size  # one pod fetches once
