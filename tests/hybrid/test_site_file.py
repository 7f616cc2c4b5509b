"""site_configs/hybrid.yaml, as it is and as the test beds change it."""

from __future__ import annotations

from pathlib import Path

import hybrid_bed
from kube_bed import Bed

from parslfl.sites import load_federation


def test_half_of_the_clients_are_on_either_cluster(repository: Path) -> None:
    text = (repository / "site_configs/hybrid.yaml").read_text()
    assert text.startswith("# python workflows/cifar_round.py --site hybrid.yaml")
    found = [(site.executor.kind, site.clients) for site in load_federation("hybrid.yaml").sites]
    assert found == [("slurm", 30), ("kubernetes", 30)]


def test_the_test_beds_change_no_more_than_where_things_are(tmp_path: Path) -> None:
    fields = {"kubeconfig": "k", "image": "i", "worker_init": "w", "volumes": {"shared": str(tmp_path)}}
    there = load_federation("hybrid.yaml", hybrid_bed.settings(Bed(fields, tmp_path)))
    plain = load_federation("hybrid.yaml")
    assert [site.name for site in there.sites] == [site.name for site in plain.sites]
    assert there.clients() == plain.clients()
    assert [site.retries for site in there.sites] == [site.retries for site in plain.sites]
    assert [site.transport.kind for site in there.sites] == ["file", "grpc"]
    assert [site.transport for site in there.sites] == [site.transport for site in plain.sites]
