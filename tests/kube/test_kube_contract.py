"""The loopback server's answers are those of a real API server, as the real client sees them.

What is expected was seen on Kubernetes 1.36, but for the life of a Secret and a foreign namespace in
the metadata, which follow its documentation. With PARSLFL_TEST_KUBECONFIG all is asked again.
"""

from __future__ import annotations

import contextlib
import json
import secrets
from collections.abc import Iterator
from typing import Any

import pytest
from kube_bed import Bed
from kubernetes import client
from kubernetes.client.exceptions import ApiException
from looking import wait_until

from parslfl_executors.kube_pod import Template, body, merge


class Api:
    """One namespace, and a name that no other pod has."""

    def __init__(self, bed: Bed) -> None:
        cluster = bed.settings().cluster()
        self.image, self.core, self.space = bed.fields["image"], cluster.core, cluster.namespace
        self.name = f"parslfl-contract-{secrets.token_hex(4)}"

    def body(self, pod: dict[str, Any], container: dict[str, Any]) -> dict[str, Any]:
        limits = {"cpu": "100m", "memory": "64Mi"}
        template = Template(self.image, limits=limits, pod=pod, container=container)
        return body(self.name, template, {"parslfl/site": "contract"}, "sleep 60", None)

    def create(self, made: dict[str, Any], space: str = "") -> Any:
        return self.core.create_namespaced_pod(space or self.space, made)

    def get(self) -> Any:
        return self.core.read_namespaced_pod(self.name, self.space)

    def end(self) -> None:
        """Delete the pod without grace, and wait until it is gone."""
        with contextlib.suppress(ApiException):
            self.core.delete_namespaced_pod(self.name, self.space, grace_period_seconds=0)
        assert wait_until(lambda: answer(self.get) == (404, "NotFound"), 10)


def answer(call: Any, *args: Any) -> tuple[int, str]:
    with pytest.raises(ApiException) as caught:
        call(*args)
    return caught.value.status, json.loads(caught.value.body)["reason"]


@pytest.fixture
def api(bed: Bed) -> Iterator[Api]:
    made = Api(bed)
    yield made
    made.end()


def test_the_life_of_a_pod(api: Api) -> None:
    made = api.create(api.body({}, {}))
    assert (made.kind, made.status.phase) == ("Pod", "Pending")
    assert answer(api.create, api.body({}, {})) == (409, "AlreadyExists")
    assert wait_until(lambda: api.get().status.phase == "Running", 30)
    seen = api.get()
    assert (seen.spec.restart_policy, seen.spec.service_account_name) == ("Never", "default")
    assert (seen.spec.termination_grace_period_seconds, bool(seen.status.pod_ip)) == (5, True)
    assert seen.status.container_statuses[0].state.running is not None
    listed = api.core.list_namespaced_pod(api.space, label_selector="parslfl/site=contract")
    assert api.name in [pod.metadata.name for pod in listed.items]
    assert api.core.read_namespaced_pod_log(api.name, api.space, tail_lines=5) == ""


def test_the_end_of_a_pod(api: Api) -> None:
    api.create(api.body({}, {}))
    assert wait_until(lambda: api.get().status.phase == "Running", 30)
    gone = api.core.delete_namespaced_pod(api.name, api.space)
    assert (type(gone).__name__, gone.status.phase) == ("V1Pod", "Running")
    assert (bool(gone.metadata.deletion_timestamp), gone.metadata.deletion_grace_period_seconds) == (True, 5)
    assert api.core.delete_namespaced_pod(api.name, api.space).metadata.deletion_timestamp
    assert api.get().status.phase == "Running"  # in its last seconds
    api.end()
    assert answer(api.core.delete_namespaced_pod, api.name, api.space) == (404, "NotFound")
    assert answer(api.core.read_namespaced_pod_log, api.name, api.space) == (404, "NotFound")


def test_the_life_of_a_secret(api: Api) -> None:
    made = {"metadata": {"name": api.name, "labels": {"parslfl/site": "contract"}}, "data": {"a": "Yg=="}}
    assert api.core.create_namespaced_secret(api.space, made).metadata.name == api.name
    assert answer(api.core.create_namespaced_secret, api.space, made) == (409, "AlreadyExists")
    api.core.delete_namespaced_secret(api.name, api.space)
    assert answer(api.core.delete_namespaced_secret, api.name, api.space) == (404, "NotFound")


GPU = "nvidia.com/gpu"
CLAIM = {"name": "claim", "persistentVolumeClaim": {"claimName": "claim"}}
REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], tuple[int, str]]] = {
    "bad quantity": ({}, {"resources": {"limits": {"memory": "lots"}}}, (400, "BadRequest")),
    "bytes": ({}, {"resources": {"limits": {"memory": "1GB"}}}, (400, "BadRequest")),
    "request over limit": ({}, {"resources": {"requests": {"memory": "2Gi"}}}, (422, "Invalid")),
    "gpu request only": ({}, {"resources": {"requests": {GPU: "1"}}}, (422, "Invalid")),
    "half a gpu": ({}, {"resources": {"limits": {GPU: "0.5"}, "requests": {GPU: "0.5"}}}, (422, "Invalid")),
    "unknown resource": ({}, {"resources": {"limits": {"gpu": "1"}}}, (422, "Invalid")),
    "no such account": ({"serviceAccountName": "no-such-account"}, {}, (403, "Forbidden")),
    "volume with a dot": ({"volumes": [{**CLAIM, "name": "my.claim"}]}, {}, (422, "Invalid")),
    "volume in capitals": ({"volumes": [{**CLAIM, "name": "Claim"}]}, {}, (422, "Invalid")),
    "volume twice": ({"volumes": [CLAIM, CLAIM]}, {}, (422, "Invalid")),
    "mount of nothing": ({}, {"volumeMounts": [{"name": "none", "mountPath": "/mnt"}]}, (422, "Invalid")),
    "one path twice": (
        {"volumes": [CLAIM]},
        {"volumeMounts": [{"name": "claim", "mountPath": "/mnt"}, {"name": "claim", "mountPath": "/mnt"}]},
        (422, "Invalid"),
    ),
    "empty image": ({}, {"image": ""}, (422, "Invalid")),
    "bad container name": ({}, {"name": "a.b"}, (422, "Invalid")),
}


@pytest.mark.parametrize(("pod", "container", "expected"), REFUSED.values(), ids=REFUSED)
def test_a_pod_that_is_refused(
    api: Api, pod: dict[str, Any], container: dict[str, Any], expected: tuple[int, str]
) -> None:
    assert answer(api.create, api.body(pod, container)) == expected


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({"name": "Bad_Name"}, (422, "Invalid")),
        ({"name": "a" * 300}, (422, "Invalid")),
        ({"annotations": {"bad key!": "x"}}, (422, "Invalid")),
        ({"namespace": "another"}, (400, "BadRequest")),
    ],
)
def test_metadata_that_is_refused(api: Api, metadata: dict[str, Any], expected: tuple[int, str]) -> None:
    assert answer(api.create, merge(api.body({}, {}), {"metadata": metadata})) == expected


def test_no_such_namespace_and_no_containers(api: Api) -> None:
    assert answer(api.create, api.body({}, {}), "no-such-namespace") == (404, "NotFound")
    bare = api.body({}, {})
    bare["spec"]["containers"] = []
    assert answer(api.create, bare) == (422, "Invalid")


def test_a_wrong_token(api: Api) -> None:
    settings = client.Configuration()
    known = api.core.api_client.configuration
    settings.host, settings.ssl_ca_cert = known.host, known.ssl_ca_cert
    settings.api_key = {"authorization": "Bearer wrong", "BearerToken": "Bearer wrong"}
    stranger = client.CoreV1Api(client.ApiClient(settings))
    assert answer(stranger.read_namespaced_pod, "x", api.space) == (401, "Unauthorized")
