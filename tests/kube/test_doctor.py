"""`parslfl doctor` on a Kubernetes site: what is wrong is found, and nothing is made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from kube_bed import Bed

from parslfl.cli import main
from parslfl_executors.checks import Check
from parslfl_executors.kube_pod import amount
from parslfl_executors.preflight import preflight


def looked(bed: Bed, tmp_path: Path, **changes: Any) -> dict[str, Check]:
    found = list(preflight(bed.settings(**changes), "cloud", tmp_path / "parsl"))
    return {check.name: check for check in found}


def test_a_sound_site_passes_and_nothing_is_made(bed: Bed, tmp_path: Path) -> None:
    kube = bed.levers()
    found = looked(bed, tmp_path)
    assert {n: c.verdict for n, c in found.items()} == {
        "cluster": "ok", "rights": "ok", "pod": "ok", "nodes": "ok", "address": "ok",
        "image": "unknown", "volumes": "unknown",
    }  # fmt: skip
    assert [c.cure for c in found.values() if c.verdict != "failed"] == [""] * 7
    assert (kube.pods, kube.created, kube.secrets) == ({}, [], {})


def test_the_pod_on_trial_is_the_pod_of_a_run(bed: Bed, tmp_path: Path) -> None:
    """The server saw the image, the limits and the command of a worker pool."""
    kube, seen = bed.levers(), list[Any]()
    create = kube.create
    kube.create = lambda space, pod, **mode: (seen.append((pod, mode)), create(space, pod, **mode))[1]  # type: ignore[method-assign]
    try:
        looked(bed, tmp_path, gpus=1)
    finally:
        del kube.create  # type: ignore[method-assign]
    ((pod, mode),) = seen
    assert mode == {"trial": True}
    (container,) = pod["spec"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert "parsl.executors.high_throughput.process_worker_pool" in container["args"][1]
    assert "--block_id=0" in container["args"][1]


FAULTS = [
    ({"namespace": "other"}, "pod", 'namespaces "other" not found', "kubectl create namespace other"),
    ({"service_account": "ghost"}, "pod", '"ghost" not found', "service_account"),
    ({"volumes": {}, "pod": {"volumes": [{"name": "A"}]}}, "pod", "spec.volumes[1].name", "field that"),
    ({"cores": 99}, "nodes", "none of 1 nodes that take pods has cpu 99", "lower cores"),
    ({"gpus": 1}, "nodes", "nvidia.com/gpu 1", "lower cores"),
]


@pytest.mark.parametrize(("changes", "name", "detail", "cure"), FAULTS)
def test_a_fault_is_found_with_its_cure(
    bed: Bed, tmp_path: Path, changes: dict[str, Any], name: str, detail: str, cure: str
) -> None:
    bed.levers()
    found = looked(bed, tmp_path, **changes)
    assert [n for n, c in found.items() if c.verdict == "failed"] == [name]
    assert detail in found[name].detail
    assert cure in found[name].cure


def test_a_burst_of_errors_is_ridden_out_and_a_longer_one_is_told(bed: Bed, tmp_path: Path) -> None:
    kube = bed.levers()
    kube.fail(500, times=2, path="/pods")
    assert looked(bed, tmp_path)["cluster"].verdict == "ok"
    kube.fail(500, times=3, path="/pods")
    found = looked(bed, tmp_path)["cluster"]
    assert (found.verdict, found.cure) == ("failed", "the server is busy or away: try again")


def test_a_pool_that_is_empty_for_now_is_no_fault(bed: Bed, tmp_path: Path) -> None:
    kube = bed.levers()
    nodes, kube.nodes = kube.nodes, {}
    try:
        found = looked(bed, tmp_path)["nodes"]
    finally:
        kube.nodes = nodes
    assert found.verdict == "unknown"
    assert "none takes pods now" in found.detail


def test_what_may_not_be_done_is_named(bed: Bed, tmp_path: Path) -> None:
    bed.levers().denied = frozenset({("create", "secrets"), ("get", "pods/log"), ("list", "nodes")})
    found = looked(bed, tmp_path)
    assert found["rights"].detail == "may not get pods/log, create secrets in default"
    assert "rbac.yaml" in found["rights"].cure
    assert found["nodes"].verdict == "unknown"


def test_a_full_quota_is_told(bed: Bed, tmp_path: Path) -> None:
    bed.levers().quota = 0
    pod = looked(bed, tmp_path)["pod"]
    assert "exceeded quota" in pod.detail
    assert "describe resourcequota" in pod.cure


def test_a_cluster_that_does_not_answer(bed: Bed, tmp_path: Path) -> None:
    kube = bed.levers()
    kube.fail(401)
    found = looked(bed, tmp_path)
    assert list(found) == ["cluster"]
    assert "credentials" in found["cluster"].cure
    assert looked(bed, tmp_path, kubeconfig=str(tmp_path / "none"))["cluster"].verdict == "failed"


def test_an_address_that_pods_cannot_call(bed: Bed, tmp_path: Path) -> None:
    bed.levers()
    assert looked(bed, tmp_path, address="203.0.113.7")["address"].verdict == "unknown"


def test_quantities_are_compared() -> None:
    assert [amount(text) for text in ("500m", "2", "1Gi", "1G", "64Ki")] == [0.5, 2.0, 2**30, 1e9, 65536.0]


def test_the_command_probes_and_leaves_nothing(
    bed: Bed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kube = bed.levers()
    monkeypatch.chdir(tmp_path)
    executor = bed.settings().model_dump(mode="json", exclude_defaults=True) | {"kind": "kubernetes"}
    site = {"name": "cloud", "clients": 3, "executor": executor}
    site["transport"] = {"kind": "file", "path": str(bed.shared)}
    (tmp_path / "k.yaml").write_text(yaml.safe_dump({"name": "k", "sites": [site]}))
    words = ["doctor", "--site", "k.yaml", "--dataset", "digits", "--partition", "iid", "--model", "softmax"]
    assert main([*words, "--probe", "--wait", "60s"]) == 0
    out = capsys.readouterr().out
    told = ("worker: ok: on parslfl-", "Python: ok", "data there: ok: 480 examples", "link: ok: file: ",
            "training: ok: softmax", "signals: ok: 1 running (", "nothing failed")  # fmt: skip
    for line in told:
        assert line in out
    assert list((tmp_path / "runs").iterdir()) == []
    assert kube.names() == []
    assert kube.secrets == {}
