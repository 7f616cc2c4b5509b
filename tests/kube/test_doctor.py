"""`parslfl doctor` on a Kubernetes site: what is wrong is found, and nothing is made."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import pytest
import yaml
from kube_bed import IMAGE, Bed
from kube_cluster import bound
from registry_bed import push, registry

from parslfl.cli import main
from parslfl_executors.checks import Check, Folder, Needs
from parslfl_executors.kube_pod import amount
from parslfl_executors.pool import own_address
from parslfl_executors.preflight import preflight


def looked(bed: Bed, tmp_path: Path, *folders: Folder, **changes: Any) -> dict[str, Check]:
    found = list(preflight(bed.settings(**changes), "cloud", tmp_path / "parsl", Needs(folders)))
    return {check.name: check for check in found}


def test_a_sound_site_passes_and_nothing_is_made(bed: Bed, tmp_path: Path) -> None:
    kube = bed.levers()
    found = looked(bed, tmp_path)
    assert {n: c.verdict for n, c in found.items()} == {
        "cluster": "ok", "rights": "ok", "pod": "ok", "nodes": "ok", "address": "ok",
        "image": "unknown", "volumes": "ok",
    }  # fmt: skip
    assert [c.cure for c in found.values()] == [""] * 7
    assert found["address"].detail == "workers are told to call 127.0.0.1, and are on this machine"
    assert found["volumes"].detail == "claim shared is Bound (1Gi, ReadWriteMany)"
    assert found["image"].detail.startswith(f"{IMAGE}: localhost:9 is not reached from here: ")
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
    kube = bed.levers()
    assert looked(bed, tmp_path, address="203.0.113.7")["address"].verdict == "unknown"
    kube.at = "203.0.113.9"  # another machine, set apart for examples: it is behind the default route
    own = own_address()
    said = looked(bed, tmp_path, address="127.0.0.1")["address"]
    assert (said.verdict, said.cure) == ("failed", f"set address: {own}, or leave address out")
    said = looked(bed, tmp_path, address=None)["address"]
    assert said.detail.startswith(f"workers are told to call {own}, where the way from here to 203.0.113.9")
    assert (said.verdict, "behind a NAT, pods cannot call back" in said.detail) == ("unknown", True)


def test_a_driver_inside_the_cluster(bed: Bed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bed.levers().at = "203.0.113.9"
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    said = looked(bed, tmp_path, address=None)["address"]
    assert (said.verdict, "in the network that all pods of the cluster share" in said.detail) == ("ok", True)


def test_the_image_is_looked_up_for_the_nodes_platform(bed: Bed, tmp_path: Path) -> None:
    kube = bed.levers()
    with registry(tmp_path / "registry") as host:
        push(host, "fl:1", [f"PYTHON_VERSION={platform.python_version()}"])
        assert looked(bed, tmp_path, image=f"{host}/fl:1")["image"].verdict == "ok"
        assert looked(bed, tmp_path, container={"image": f"{host}/fl:2"})["image"].verdict == "failed"
        kube.architecture = "arm64"
        said = looked(bed, tmp_path, image=f"{host}/fl:1")["image"]
        assert (said.verdict, "the nodes are linux/arm64" in said.detail) == ("failed", True)
        chosen = {"nodeSelector": {"kubernetes.io/arch": "amd64"}}
        assert looked(bed, tmp_path, image=f"{host}/fl:1", pod=chosen)["image"].verdict == "ok"


CLAIMS = [
    ({}, "failed", "there is no claim data in default", "kubectl -n default get pvc"),
    ({"data": bound(phase="Pending")}, "unknown", "it may wait for its first pod", "describe pvc data"),
    ({"data": bound("ReadWriteOnce", phase="Lost")}, "failed", "its volume is gone", "make it anew"),
    ({"data": bound("ReadWriteOnce")}, "unknown", "pods on other nodes than the first", "max_blocks: 1"),
]


@pytest.mark.parametrize(("claims", "verdict", "detail", "cure"), CLAIMS)
def test_a_claim_that_pods_would_wait_for(
    bed: Bed, tmp_path: Path, claims: dict[str, Any], verdict: str, detail: str, cure: str
) -> None:
    bed.levers().claims = claims
    data = Folder("data folder", "/data/cifar", "sites.cloud.data")
    found = looked(bed, tmp_path, data, volumes={"data": "/data"}, max_blocks=2)
    said = found["volume data"]
    assert (said.verdict, detail in said.detail, cure in said.cure) == (verdict, True, True), said
    assert found["data folder"].verdict == "unknown"
    assert found["data folder"].detail == "/data/cifar lies in claim data, mounted at /data: see above"


def test_a_claim_of_one_pod_may_be_mounted_once(bed: Bed, tmp_path: Path) -> None:
    bed.levers().claims = {"data": bound("ReadWriteOnce")}
    assert looked(bed, tmp_path, volumes={"data": "/data"})["volumes"].verdict == "ok"


def test_claims_that_may_not_be_looked_at(bed: Bed, tmp_path: Path) -> None:
    bed.levers().denied = frozenset({("get", "persistentvolumeclaims")})
    said = looked(bed, tmp_path)["volume shared"]
    assert (said.verdict, "rbac.yaml" in said.cure) == ("unknown", True)


def extra(**source: Any) -> dict[str, Any]:
    """Fields of a pod with one more volume, at /data."""
    mount = {"name": "extra", "mountPath": "/data"}
    return {"pod": {"volumes": [{"name": "extra", **source}]}, "container": {"volumeMounts": [mount]}}


FOLDERS = [
    ("/data", {"volumes": {"shared": "/data"}}, "ok", "/data lies in claim shared, mounted at /data"),
    ("/data/a", {"volumes": {"shared": "/data"}}, "ok", "/data/a lies in claim shared"),
    ("/database", {"volumes": {"shared": "/data"}}, "unknown", "pods mount nothing at /database"),
    ("$DATA", {}, "unknown", "means something only inside of a pod"),
    ("/data", extra(hostPath={"path": "/x"}), "unknown", "a folder of whichever node a pod is on"),
    ("/data", extra(), "unknown", "of kind emptyDir, empty when a pod starts"),
    ("/data", extra(nfs={"server": "x", "path": "/"}), "unknown", "of kind nfs; --probe tells"),
    ("/data", extra(persistentVolumeClaim={"claimName": "shared"}), "ok", "lies in claim shared"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "changes", "verdict", "detail"), FOLDERS)
def test_what_a_folder_of_pods_lies_in(
    bed: Bed, tmp_path: Path, path: str, changes: dict[str, Any], verdict: str, detail: str
) -> None:
    bed.levers()
    found = looked(
        bed, tmp_path, Folder("data folder", path, "sites.cloud.data"), **{"volumes": {}, **changes}
    )
    said = found["data folder"]
    assert (said.verdict, detail in said.detail) == (verdict, True), said


ODD = [{"volumes": [{}, 3]}, {"volumes": "x"}, {"volumes": [{"name": "a", "persistentVolumeClaim": "b"}]},
       {"nodeSelector": "amd64"}]  # fmt: skip


@pytest.mark.parametrize("pod", ODD)
def test_a_pod_that_is_none_is_one_fault(bed: Bed, tmp_path: Path, pod: dict[str, Any]) -> None:
    bed.levers()
    found = looked(bed, tmp_path, Folder("data folder", "/data", "sites.cloud.data"), pod=pod)
    assert [n for n, c in found.items() if c.verdict == "failed" and not n.startswith("volume ")] == ["pod"]
    assert found["pod"].cure.startswith("change the field that the message names")
    assert "visit" not in found["pod"].detail


def test_what_is_written_must_outlive_the_pod(bed: Bed, tmp_path: Path) -> None:
    bed.levers()
    state = Folder("state", "/state", "sites.cloud.state", written=True)
    said = looked(bed, tmp_path, state)["state"]
    assert (said.verdict, "volumes: {CLAIM: /state}" in said.cure) == ("failed", True)
    assert looked(bed, tmp_path, state, volumes={"shared": "/state"})["state"].verdict == "ok"
    closed = {"volumeMounts": [{"name": "shared", "mountPath": "/state", "readOnly": True}]}
    volume = {"volumes": [{"name": "shared", "persistentVolumeClaim": {"claimName": "shared"}}]}
    said = looked(bed, tmp_path, state, volumes={}, container=closed, pod=volume)["state"]
    assert (said.verdict, "mounted read-only" in said.detail) == ("failed", True)


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
            "training: ok: softmax", "signals: ok: 1 running (", "nothing failed",
            f"exchange there: ok: {bed.shared} lies in claim shared",
            "data: ok: digits, which needs no files")  # fmt: skip
    for line in told:
        assert line in out
    assert not (tmp_path / "runs").exists()
    assert kube.names() == []
    assert kube.secrets == {}
