"""What a site file may say of a Kubernetes cluster, and what is refused before any call."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest
from kube_bed import Bed

from parslfl.errors import ConfigError, RunError
from parslfl.launch import kernel
from parslfl.sites import Site, load_federation
from parslfl_executors import kube_api
from parslfl_executors.fields import Unusable
from parslfl_executors.kubernetes import Kubernetes

HEAD = """\
name: k
sites:
  - name: cloud
    clients: 2
    executor:
      kind: kubernetes
      image: i
"""


def refused(folder: Path, text: str) -> str:
    (folder / "k.yaml").write_text(HEAD + f"      {text}\n")
    with pytest.raises(ConfigError) as caught:
        load_federation(folder / "k.yaml")
    return str(caught.value)


WRONG = [
    ("memory: 16", "memory: '16' is 16 bytes: write a unit, as in 4Gi"),
    ("memory: 1GB", "memory: expected an amount such as 500m, 2 or 4Gi, got '1GB' (write 1G or 1Gi)"),
    ("memory: 1GiB", "got '1GiB' (write 1Gi)"),
    ("gpus: 0.5", "gpus: expected a whole number"),
    ("volumes: {My.Claim: /data}", "small letters, digits and -"),
    ("volumes: {claim: data}", "expected an absolute path, got 'data'"),
    ("volumes: {a: /data, b: /data}", "mounted at one path"),
    ("workers_per_pod: 2\n      gpus: 1", "2 workers for 1 GPUs, one each"),
    ("init_blocks: 3", "init_blocks: expected from 0 (min_blocks) to 1 (max_blocks), got 3"),
    ("labels: {team: a b}", "a label has at most 63 letters"),
    ("parsl: {provider: {max_blocks: 1}}", "described by the fields beside `parsl`"),
    ("pods: {}", "unknown field (did you mean 'pod'?)"),
]


@pytest.mark.parametrize(("text", "message"), WRONG)
def test_what_the_api_would_refuse_is_refused_at_once(tmp_path: Path, text: str, message: str) -> None:
    assert message in refused(tmp_path, text)


def test_cores_become_threads() -> None:
    assert Kubernetes(image="i", cores=4, workers_per_pod=2).threads_per_worker() == 2
    assert Kubernetes(image="i", cores="500m").threads_per_worker() == 1


def test_it_survives_yaml_and_back() -> None:
    site = Site(
        name="cloud",
        clients=3,
        executor=Kubernetes(image="i", walltime="1h", pod={"nodeSelector": {"a": "b"}}),
    )
    assert Site.model_validate(site.model_dump(mode="json")) == site


def test_no_cluster_is_a_plain_sentence(tmp_path: Path) -> None:
    site = Site(name="cloud", clients=1, executor=Kubernetes(image="i", kubeconfig=str(tmp_path / "none")))
    with (
        pytest.raises(RunError, match="cloud: there is no kubeconfig .*none"),
        kernel([site], "driver", tmp_path),
    ):
        pass


def test_a_kubeconfig_that_is_none(tmp_path: Path) -> None:
    for text in ("{{{", "- a\n", "clusters: 5\n", ""):
        (tmp_path / "config").write_text(text)
        with pytest.raises(Unusable, match="kubeconfig .*config"):
            Kubernetes(image="i", kubeconfig=str(tmp_path / "config")).cluster()


def test_a_driver_in_the_cluster_needs_no_kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The site file may name the namespace (as kubernetes.yaml does), or leave it to the pod's own."""
    from kubernetes.config import incluster_config

    for name, text in (("token", "t0"), ("ca.crt", "cert"), ("namespace", "own")):
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(tmp_path / "ca.crt"))
    monkeypatch.setattr(kube_api, "_OWN_NAMESPACE", tmp_path / "namespace")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    for said, used in ((None, "own"), ("fl", "fl")):
        cluster = Kubernetes(image="i", namespace=said).cluster()
        assert cluster.namespace == used
        assert cluster.core.api_client.configuration.host == "https://10.0.0.1:443"


def test_a_port_that_is_taken_is_told_before_anything_starts(bed: Bed, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(Unusable, match=f"port {port} cannot be listened on here"):
            bed.settings(address="127.0.0.1", port=port).build("cloud", tmp_path / "parsl")
    bed.settings(address="127.0.0.1", port=port).build("cloud", tmp_path / "parsl")


def test_what_parsl_does_not_take_is_a_plain_sentence(bed: Bed, tmp_path: Path) -> None:
    for odd in ({"heartbeat_treshold": 3}, {"heartbeat_threshold": "x"}):
        with pytest.raises(Unusable, match="Parsl does not take what stands under `parsl`: .*heartbeat_"):
            bed.settings(parsl=odd).build("cloud", tmp_path / "parsl")


def test_the_shipped_site_file_is_sound(repository: Path) -> None:
    federation = load_federation(repository / "site_configs/kubernetes.yaml")
    assert [site.executor.kind for site in federation.sites] == ["kubernetes"]


def test_a_missing_client_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kubernetes", None)
    with pytest.raises(Unusable, match=r"pip install 'parslfl\[kubernetes\]'"):
        Kubernetes(image="i").cluster()


def test_an_address_that_is_not_ours_is_not_listened_on() -> None:
    from parslfl_executors.pool import is_own, own_address

    assert is_own("127.0.0.1")
    assert is_own(own_address())
    assert not is_own("203.0.113.7")
    assert not is_own("fl.example.org")
