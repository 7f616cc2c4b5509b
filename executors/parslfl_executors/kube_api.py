"""The calls of the Kubernetes API that a site needs, with its refusals as one kind of error.

Does not know: what the pods are for.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import yaml

from parslfl_executors.fields import Unusable
from parslfl_executors.kube_pod import Json, secret_name

#: Seconds that a call may take.
_TIMEOUT = 10
#: Lines of a failed pod's log that are kept.
_LINES = 8
#: Answers that say: try again later.
_PASSING = {0, 408, 429, 500, 502, 503, 504}

#: Where a pod finds its namespace.
_OWN_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


class RefusedError(Exception):
    """The API server said no, or (status 0) nothing."""

    def __init__(self, status: int, message: str, after: float = 0.0) -> None:
        self.status, self.message, self.after = status, message, after
        super().__init__(status, message, after)

    def __str__(self) -> str:
        return f"HTTP {self.status}: {self.message}" if self.status else self.message

    @property
    def full(self) -> bool:
        """Whether a quota stands in the way."""
        return self.status == 403 and "exceeded quota" in self.message

    @property
    def passing(self) -> bool:
        """Whether the same call may do better later: a full quota empties, too."""
        return self.status in _PASSING or self.full


@dataclass(frozen=True)
class Cluster:
    """One namespace of one cluster. Every call may raise RefusedError."""

    core: Any
    namespace: str

    def create_pod(self, body: Json, *, trial: bool = False) -> None:
        """Make a pod; on `trial` the server checks all that it would check, and makes none."""
        mode = {"dry_run": "All"} if trial else {}
        try:
            with _refusals():
                self.core.create_namespaced_pod(self.namespace, body, _request_timeout=_TIMEOUT, **mode)
        except ValueError as error:  # the client looks at bodies itself; what it refuses, the server would
            said = re.sub(r"For further information visit \S+", "", str(error))
            raise RefusedError(422, " ".join(said.split())[:300]) from error

    def pods(self, labels: Mapping[str, str]) -> dict[str, Json]:
        """The pods that have all of `labels`, by name."""
        selector = ",".join(f"{key}={value}" for key, value in labels.items())
        with _refusals():
            answer = self.core.list_namespaced_pod(
                self.namespace, label_selector=selector, _request_timeout=_TIMEOUT, _preload_content=False
            )
            return {pod["metadata"]["name"]: pod for pod in json.loads(answer.data)["items"]}

    def delete_pod(self, name: str) -> None:
        """Begin to delete a pod; one that is gone is no error."""
        with _refusals(), _absent():
            self.core.delete_namespaced_pod(name, self.namespace, _request_timeout=_TIMEOUT)

    def nodes(self) -> list[Json]:
        """The cluster's nodes; most users of a namespace may not list them."""
        with _refusals():
            answer = self.core.list_node(_request_timeout=_TIMEOUT, _preload_content=False)
            found: list[Json] = json.loads(answer.data)["items"]
            return found

    def claim(self, name: str) -> Json:
        """A persistent volume claim."""
        with _refusals():
            answer = self.core.read_namespaced_persistent_volume_claim(
                name, self.namespace, _request_timeout=_TIMEOUT, _preload_content=False
            )
            found: Json = json.loads(answer.data)
            return found

    def allowed(self, verb: str, resource: str) -> bool:
        """Whether the user of this client may do `verb` to `resource`, such as `pods/log`, here."""
        from kubernetes.client import AuthorizationV1Api

        kind, _, part = resource.partition("/")
        wish = {"namespace": self.namespace, "verb": verb, "group": "", "resource": kind, "subresource": part}
        review = {"spec": {"resourceAttributes": wish}}
        with _refusals():
            reviews = cast("Any", AuthorizationV1Api(self.core.api_client))
            answer = reviews.create_self_subject_access_review(
                review, _request_timeout=_TIMEOUT, _preload_content=False
            )
            return bool(json.loads(answer.data)["status"].get("allowed"))

    def last_lines(self, name: str) -> str:
        """The end of a pod's log; "" if there is none to be had."""
        try:
            with _refusals():
                answer = self.core.read_namespaced_pod_log(
                    name, self.namespace, tail_lines=_LINES, _request_timeout=_TIMEOUT, _preload_content=False
                )
                text: str = answer.data.decode(errors="replace")
        except RefusedError:
            return ""
        return "\n".join(text.strip().splitlines()[-_LINES:])

    def create_secret(self, name: str, labels: Mapping[str, str], data: Mapping[str, str]) -> None:
        """Store `data` (base64 text); what a killed run left under this name is replaced."""
        body = {"metadata": {"name": name, "labels": dict(labels)}, "data": dict(data)}
        self.delete_secret(name)
        with _refusals():
            self.core.create_namespaced_secret(self.namespace, body, _request_timeout=_TIMEOUT)

    def delete_secret(self, name: str) -> None:
        with _refusals(), _absent():
            self.core.delete_namespaced_secret(name, self.namespace, _request_timeout=_TIMEOUT)


def connect(kubeconfig: str | None, context: str | None, namespace: str | None) -> Cluster:
    """The cluster that a kubeconfig file names, or the one that this process runs in.

    Each cluster has a client of its own: several can be in one run. `namespace` None: that of
    the context, else `default`.

    Raises:
        Unusable: the client is not installed, or no cluster is configured.
    """
    try:
        from kubernetes import client
        from kubernetes import config as package
    except ImportError as error:  # in a checkout, the folder executors/kubernetes bears the name
        raise Unusable(
            f"a site of kind kubernetes needs the Kubernetes client ({error}): "
            "pip install 'parslfl[kubernetes]'"
        ) from error
    settings, config = client.Configuration(), cast("Any", package)  # it types only some
    settings.retries = False  # what did not work is done again at a later look
    file = str(Path(kubeconfig).expanduser()) if kubeconfig else os.environ.get("KUBECONFIG")
    if kubeconfig and not Path(str(file)).is_file():
        raise Unusable(f"there is no kubeconfig {file}")
    try:
        config.load_kube_config(file, context, client_configuration=settings)
        namespace = namespace or _context_namespace(config, file, context)
    except config.ConfigException as error:
        if kubeconfig or context:
            raise Unusable(f"cannot use kubeconfig {file or '~/.kube/config'}: {error}") from error
        own = _inside(config, settings, error)
        namespace = namespace or own
    except (OSError, yaml.YAMLError, ValueError, TypeError, AttributeError) as error:
        said = " ".join(str(error).split())
        raise Unusable(f"cannot read kubeconfig {file or '~/.kube/config'}: {said}") from error
    return Cluster(client.CoreV1Api(client.ApiClient(settings)), namespace or "default")


def _context_namespace(config: Any, file: str | None, context: str | None) -> str | None:
    contexts, active = config.list_kube_config_contexts(file)
    found = next((one for one in contexts if one["name"] == context), active)
    named: str | None = found["context"].get("namespace")
    return named


def _inside(config: Any, settings: Any, error: Exception) -> str | None:
    """Set up for the cluster that this process is a pod of; the pod's namespace."""
    try:
        config.load_incluster_config(client_configuration=settings)
        return _OWN_NAMESPACE.read_text().strip() if _OWN_NAMESPACE.exists() else None
    except config.ConfigException:
        raise Unusable(
            f"no Kubernetes cluster is configured ({error}): set kubeconfig, or KUBECONFIG, "
            "or run the driver inside the cluster"
        ) from error


def alive(pods: Mapping[str, Json]) -> list[str]:
    """Names of `pods` that are not on their way out: the cluster ends those within their grace."""
    return [name for name, pod in pods.items() if not pod["metadata"].get("deletionTimestamp")]


def sweep(cluster: Cluster, labels: Mapping[str, str], seconds: float = 15.0) -> list[str]:
    """Delete the Secret and every pod of a site's run; what is still there after `seconds`.

    Pods that are on their way out do not count: the cluster ends them within their grace period.
    """
    until = time.monotonic() + seconds
    left: list[str] = []
    while True:
        try:
            live = alive(cluster.pods(labels))
            left = [*(f"pod {name}" for name in live), f"secret {secret_name(labels)}"]
            for name in live:
                cluster.delete_pod(name)
            cluster.delete_secret(secret_name(labels))
        except RefusedError as error:
            if time.monotonic() > until or not error.passing:
                return [*left, str(error)]
            time.sleep(min(max(error.after, 0.5), 5.0))
        else:
            return []


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    """The client's errors, and the network's, as RefusedError."""
    from kubernetes.client.exceptions import ApiException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ApiException as error:
        raise _refused(error) from error
    except (HTTPError, OSError) as error:
        raise RefusedError(0, f"no answer from the API server: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", None) or error)


def _refused(error: Any) -> RefusedError:
    try:
        message = json.loads(error.body)["message"]
    except (TypeError, ValueError, KeyError):
        message = error.reason or ""
    after = (error.headers or {}).get("Retry-After", "0")
    return RefusedError(error.status or 0, message, float(after) if after.isdigit() else 0.0)


@contextlib.contextmanager
def _absent() -> Iterator[None]:
    """What is gone need not be deleted."""
    from kubernetes.client.exceptions import ApiException

    try:
        yield
    except ApiException as error:
        if error.status != 404:
            raise
