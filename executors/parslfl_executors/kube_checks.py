"""A Kubernetes site looked at before any pod is made: the server checks, and makes nothing.

Does not know: what the workers are asked to do.
"""

from __future__ import annotations

import ipaddress
import os
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from parslfl_executors.address_checks import Way, call_back, is_near, loopback, other_call, past_gateway, ways
from parslfl_executors.checks import Check, Needs, failed, ok, unknown
from parslfl_executors.fields import Unusable
from parslfl_executors.image_checks import image
from parslfl_executors.kube_api import Cluster, RefusedError
from parslfl_executors.kube_pod import Json, amount, body, open_nodes
from parslfl_executors.volume_checks import looked, mounts

if TYPE_CHECKING:
    from parslfl_executors.kubernetes import Kubernetes

#: Seconds to wait before a call that was refused for now is made again.
_PAUSES = (0.5, 1.0)
#: And at most, whatever the server asks for: somebody waits for the answer.
_LONGEST = 5.0
#: What a run does (executors/kubernetes/rbac.yaml).
_NEEDED = (
    ("create", "pods"),
    ("list", "pods"),
    ("delete", "pods"),
    ("get", "pods/log"),
    ("create", "secrets"),
    ("delete", "secrets"),
)


def checks(site: Kubernetes, label: str, folder: Path, needs: Needs) -> Iterator[Check]:
    """What can be told from the driver; a run's logs would lie in `folder`."""
    try:
        cluster = site.cluster()
    except Unusable as error:
        yield failed("cluster", str(error), "install the client, or name a kubeconfig and a context in it")
        return
    found = _reachable(cluster)
    yield found
    if found.verdict == "failed":
        return
    yield _rights(cluster)
    yield _pod(site, label, folder)
    nodes = _listed(cluster)
    yield _nodes(site, nodes)
    yield from _addresses(site, cluster, nodes or (), needs)
    made = body("look", site.template(), {}, "", None)
    yield _image(site, made["spec"], nodes or (), needs)
    mounted = mounts(cluster, made, site.max_blocks)
    yield from looked(list(mounted.found.values()))
    yield from map(mounted.folder, needs.folders)


def _reachable(cluster: Cluster) -> Check:
    try:
        _asked(cluster)
    except RefusedError as error:
        if error.status == 401:
            cure = "the credentials have expired or are wrong: sign in again (kubectl get pods must work)"
            return failed("cluster", str(error), cure)
        if error.status and error.passing:
            return failed("cluster", str(error), "the server is busy or away: try again")
        if error.status != 403:  # what may not be done is told below
            cure = "check the network, kubeconfig and context: kubectl get pods must work"
            return failed("cluster", str(error), cure)
    return ok("cluster", f"{host(cluster)} answers")


def _asked(cluster: Cluster) -> None:
    """Have the server answer; errors that pass are given time to."""
    for pause in _PAUSES:
        try:
            cluster.pods({"parslfl/run": "none"})
        except RefusedError as error:
            if not (error.status and error.passing):
                raise
            time.sleep(min(max(pause, error.after), _LONGEST))
        else:
            return
    cluster.pods({"parslfl/run": "none"})


def host(cluster: Cluster) -> str:
    """The API server's name or address."""
    return urlsplit(cluster.core.api_client.configuration.host).hostname or ""


def _rights(cluster: Cluster) -> Check:
    try:
        lacking = [f"{verb} {kind}" for verb, kind in _NEEDED if not cluster.allowed(verb, kind)]
    except RefusedError as error:
        return unknown("rights", f"the server does not tell: {error}")
    if lacking:
        cure = f"kubectl apply -n {cluster.namespace} -f executors/kubernetes/rbac.yaml, bound to your user"
        return failed("rights", f"may not {', '.join(lacking)} in {cluster.namespace}", cure)
    return ok("rights", f"all {len(_NEEDED)} that a run needs in {cluster.namespace}")


def _pod(site: Kubernetes, label: str, folder: Path) -> Check:
    """The pod that a run would ask for, checked by the server: namespace, quota, account, spec."""
    from parslfl_executors.pool import command_line

    try:
        executor: Any = site.build(label, folder)
    except Unusable as error:
        return failed("pod", str(error), "change the field that it names")
    try:
        executor.pods.trial(command_line(executor, folder))
    except RefusedError as error:
        return failed("pod", str(error), _cure(error, executor.pods.cluster.namespace))
    return ok("pod", "the server takes it: namespace, quota, account and spec fit")


def _cure(error: RefusedError, namespace: str) -> str:
    if error.status == 404:
        return f"kubectl create namespace {namespace}, or set namespace to one that is there"
    if error.full:
        quota = f"kubectl -n {namespace} describe resourcequota"
        return f"ask for less (cores, memory, gpus, max_blocks), or wait: {quota}"
    if error.status == 403:
        return "set service_account to one that is there, or ask for the right to create pods"
    if error.passing:
        return "the server is busy or away: try again"
    return "change the field that the message names (pod, container, cores, memory, gpus, volumes)"


def _listed(cluster: Cluster) -> list[Json] | None:
    """The nodes that take pods; None if they may not be listed."""
    try:
        return open_nodes(cluster.nodes())
    except RefusedError:
        return None


def _nodes(site: Kubernetes, nodes: Sequence[Json] | None) -> Check:
    if nodes is None:
        return unknown("nodes", "may not be listed here (needs a ClusterRole: list nodes)")
    wish = {"cpu": site.cores, "memory": site.memory}
    if site.gpus:
        wish[site.gpu_resource] = str(site.gpus)
    fitting = [node for node in nodes if _fits(wish, node["status"].get("allocatable") or {})]
    wanted = ", ".join(f"{name} {count}" for name, count in wish.items())
    if not nodes:
        return unknown("nodes", f"none takes pods now; an autoscaler would have to add one with {wanted}")
    if not fitting:
        cure = "lower cores, memory or gpus; or does an autoscaler add nodes? then only wait longer"
        return failed("nodes", f"none of {len(nodes)} nodes that take pods has {wanted}", cure)
    return ok("nodes", f"{len(fitting)} of {len(nodes)} nodes that take pods are large enough for {wanted}")


def _fits(wish: Mapping[str, str], there: Mapping[str, str]) -> bool:
    return all(amount(there.get(name, "0")) >= amount(count) for name, count in wish.items())


def _addresses(site: Kubernetes, cluster: Cluster, nodes: Sequence[Json], needs: Needs) -> Iterator[Check]:
    """Whether pods can call back; they do so by their node's way, or within the cluster's own network."""
    from parslfl_executors.pool import addresses, own_address

    address = site.address or own_address()
    peers = _peers(nodes) or ([host(cluster)] if loopback(host(cluster)) else [])
    own, found = {address, *addresses(), "127.0.0.1"}, ways(peers)
    yield _address(site, address, cluster, own, found)
    yield from (other_call(one, own, found) for one in needs.calls if one.address != address)


def _address(
    site: Kubernetes, address: str, cluster: Cluster, own: Collection[str], found: Sequence[Way]
) -> Check:
    from parslfl_executors.pool import is_own

    if not is_own(address):
        detail = f"pods call {address}, which is not this machine's: it must lead here, to {_port(site)}"
        return unknown("address", f"{detail}; --probe tells")
    if os.environ.get("KUBERNETES_SERVICE_HOST") == host(cluster) and not loopback(address):
        detail = f"pods call {address}, this pod's own, in the network that all pods of the cluster share"
        return ok("address", detail)
    said = call_back(address, own, found)
    hidden = not ipaddress.ip_address(address).is_global and past_gateway(found)
    if said.verdict == "ok" and hidden and not is_near(own, found):
        detail = f"{said.detail}, and passes a gateway: behind a NAT, pods cannot call back; --probe tells"
        return unknown("address", detail)
    return said


def _peers(nodes: Sequence[Json]) -> list[str]:
    listed = [one for node in nodes for one in node["status"].get("addresses") or ()]
    return [one["address"] for one in listed if one.get("type") == "InternalIP" and "." in one["address"]]


def _port(site: Kubernetes) -> str:
    return f"port {site.port}" if site.port else "ports 54000 to 55000 (set port for a single one)"


def _image(site: Kubernetes, spec: Json, nodes: Sequence[Json], needs: Needs) -> Check:
    container = spec["containers"][0]
    return image(
        str(container["image"]),
        platforms=_platforms(spec, nodes),
        packages=needs.packages,
        pulled=container.get("imagePullPolicy") != "Never",
        secrets=bool(spec.get("imagePullSecrets") or spec.get("serviceAccountName")),
        prepared=bool(site.worker_init.strip()),
    )


def _platforms(spec: Json, nodes: Sequence[Json]) -> tuple[str, ...]:
    """Platforms of the nodes that a pod may go to, such as linux/amd64; none where they cannot be told."""
    wanted = spec.get("nodeSelector")
    chosen = wanted.get("kubernetes.io/arch") if isinstance(wanted, dict) else None
    if chosen:
        return (f"linux/{chosen}",)
    about = [node["status"].get("nodeInfo") or {} for node in nodes]
    known = {(one.get("operatingSystem") or "linux", one.get("architecture")) for one in about}
    return tuple(sorted(f"{system}/{kind}" for system, kind in known if kind and system == "linux"))
