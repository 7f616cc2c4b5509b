"""A Kubernetes site looked at before any pod is made: the server checks, and makes nothing.

Does not know: what the workers are asked to do.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from parslfl_executors.checks import Check, call_back, failed, loopback, ok, unknown
from parslfl_executors.fields import Unusable
from parslfl_executors.kube_api import Cluster, RefusedError
from parslfl_executors.kube_pod import amount, open_nodes

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


def checks(site: Kubernetes, label: str, folder: Path) -> Iterator[Check]:
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
    yield _nodes(site, cluster)
    yield _address(site, cluster)
    needs = f"Python {'.'.join(platform.python_version_tuple()[:2])} and Parsl {version('parsl')}, as here"
    mounted = ", ".join([*site.volumes, *site.secrets])
    yield unknown("image", f"{site.image}: needs bash, {needs}; --probe tells whether it has them")
    if mounted:
        yield unknown("volumes", f"{mounted}: a pod that mounts what is not there waits; --probe tells")


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


def _nodes(site: Kubernetes, cluster: Cluster) -> Check:
    try:
        nodes = open_nodes(cluster.nodes())
    except RefusedError:
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


def _address(site: Kubernetes, cluster: Cluster) -> Check:
    from parslfl_executors.pool import is_own, own_address

    address = site.address or own_address()
    if not is_own(address):
        detail = f"pods call {address}, which is not this machine's: it must lead here, to {_port(site)}"
        return unknown("address", f"{detail}; --probe tells")
    near = [host(cluster)] if loopback(host(cluster)) else []
    return call_back(address, [address], near)


def _port(site: Kubernetes) -> str:
    return f"port {site.port}" if site.port else "ports 54000 to 55000 (set port for a single one)"
