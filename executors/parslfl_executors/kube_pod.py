"""A worker pod: the body that is sent to Kubernetes, and what its state there means.

Pure functions over plain data, as the API's JSON has it.

Does not know: how either travels, or what the workers do.
"""

from __future__ import annotations

import copy
import datetime as dt
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Json = dict[str, Any]

#: Labels of everything that belongs to a run: they find it again.
OWNER, RUN, SITE = "app.kubernetes.io/managed-by", "parslfl/run", "parslfl/site"
#: Seconds between the signal to stop and the kill: a worker pool does not heed the signal.
_GRACE = 5
#: Where the certificates' Secret is mounted, and the folder of a pod's own files.
_SECRET_AT, HOME = "/etc/parslfl-certificates", "$PARSLFL_POD"
#: Reasons for a waiting container that no waiting cures, unless a registry is only slow to answer.
_STUCK = {
    "ImagePullBackOff", "ErrImagePull", "ErrImageNeverPull", "InvalidImageName",
    "CreateContainerConfigError", "CreateContainerError", "CrashLoopBackOff",
}  # fmt: skip

_UNITS = {"m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15,
          "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50}  # fmt: skip


@dataclass(frozen=True)
class Template:
    """What all pods of a site have in common; `pod` and `container` are merged in last."""

    image: str
    pull_policy: str | None = None
    script: str = ""
    limits: Mapping[str, str] = field(default_factory=dict)
    service_account: str | None = None
    pull_secrets: tuple[str, ...] = ()
    secrets: Mapping[str, str] = field(default_factory=dict)
    volumes: Mapping[str, str] = field(default_factory=dict)
    walltime: float | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    pod: Mapping[str, Any] = field(default_factory=dict)
    container: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Patience:
    """Seconds that a pod may wait: for a node, and for its image."""

    pending: float = 600.0
    image: float = 20.0


State = Literal["pending", "running", "succeeded", "failed", "evicted", "deleted", "stuck"]


@dataclass(frozen=True)
class Verdict:
    """A pod's state and, in words, why. `code`: its container's exit code, once there is one."""

    state: State
    why: str = ""
    code: int | None = None

    @property
    def over(self) -> bool:
        return self.state not in {"pending", "running"}


def merge(base: Json, patch: Mapping[str, Any]) -> Json:
    """`base` with `patch`: blocks are merged, lists are joined, all else is replaced."""
    made = dict(base)
    for key, value in patch.items():
        there = made.get(key)
        if isinstance(there, dict) and isinstance(value, Mapping):
            made[key] = merge(there, value)
        elif isinstance(there, list) and isinstance(value, list):
            made[key] = [*there, *copy.deepcopy(value)]
        else:
            made[key] = copy.deepcopy(value)
    return made


def body(name: str, template: Template, labels: Mapping[str, str], command: str, secret: str | None) -> Json:
    """The pod called `name` that runs `command`, with the certificates of Secret `secret`."""
    mounts = [(claim, path, {"persistentVolumeClaim": {"claimName": claim}}) for claim, path in
              template.volumes.items()]  # fmt: skip
    mounts += [(key, path, {"secret": {"secretName": key}}) for key, path in template.secrets.items()]
    prepare = f'export PARSLFL_POD=$(mktemp -d)\nmkdir "{HOME}/logs"\n'
    if secret:
        mounts.append(("parslfl-certificates", _SECRET_AT, {"secret": {"secretName": secret}}))
        prepare += f'mkdir -m 700 "{HOME}/certificates"\ncp {_SECRET_AT}/* "{HOME}/certificates/"\n'
    container: Json = {
        "name": "worker",
        "image": template.image,
        "command": ["/bin/bash"],
        "args": ["-c", f"{prepare}{template.script}\nexec {command}"],
        "resources": {"limits": dict(template.limits), "requests": dict(template.limits)},
        "volumeMounts": [_mount(volume, path, "secret" in source) for volume, path, source in mounts],
    }
    spec: Json = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": _GRACE,
        "volumes": [{"name": volume, **source} for volume, _, source in mounts],
    }
    if template.pull_policy:
        container["imagePullPolicy"] = template.pull_policy
    if template.service_account:
        spec["serviceAccountName"] = template.service_account
    if template.pull_secrets:
        spec["imagePullSecrets"] = [{"name": one} for one in template.pull_secrets]
    if template.walltime:
        spec["activeDeadlineSeconds"] = int(template.walltime)
    spec["containers"] = [merge(container, template.container)]
    metadata = {"name": name, "labels": {**template.labels, **labels}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": merge(spec, template.pod)}


def _mount(volume: str, path: str, only_read: bool) -> Json:
    return {"name": volume, "mountPath": path, **({"readOnly": True} if only_read else {})}


def blocked(pod: Json) -> bool:
    """Whether the container waits for what may never come, such as its image."""
    return (_container(pod).get("waiting") or {}).get("reason") in _STUCK


def judge(pod: Json | None, waited: float, blocked_for: float, patience: Patience) -> Verdict:
    """What the state of `pod` means; None: it is gone.

    It was asked for `waited` seconds ago, and has been `blocked` for `blocked_for` of them.
    """
    if pod is None:
        return Verdict("deleted", "deleted (by hand, a drain or a preemption, or with its node)")
    status, container = pod.get("status") or {}, _container(pod)
    phase = status.get("phase")
    if phase in {"Succeeded", "Failed"} and not pod["metadata"].get("deletionTimestamp"):
        return _ended(status, container)
    if pod["metadata"].get("deletionTimestamp"):
        return Verdict("deleted", "being deleted (by hand, a drain or a preemption)")
    waiting = container.get("waiting") or {}
    if blocked(pod) and blocked_for > patience.image:
        return Verdict("stuck", _words(waiting))
    if phase != "Pending":
        return Verdict("running", _words(waiting))
    why = _words(waiting) or _words(_unmet(status))
    if waited > patience.pending:
        return Verdict("stuck", f"pending for {waited:.0f} s: {why or 'no reason given'}")
    return Verdict("pending", why)


def _ended(status: Json, container: Json) -> Verdict:
    done = container.get("terminated") or {}
    code: int | None = done.get("exitCode")
    if status["phase"] == "Succeeded":
        return Verdict("succeeded", "its workers left by themselves", code)
    if status.get("reason"):  # given by the node: Evicted, DeadlineExceeded, NodeShutdown
        state: State = "evicted" if status["reason"] in {"Evicted", "Preempting"} else "failed"
        return Verdict(state, _words(status), code)
    return Verdict("failed", f"{done.get('reason') or 'Failed'}, exit code {code}", code)


def _container(pod: Json) -> Json:
    """The state of the workers' container."""
    states: list[Json] = (pod.get("status") or {}).get("containerStatuses") or []
    found: Json = next((one for one in states if one.get("name") == "worker"), {})
    state: Json = found.get("state") or {}
    return state


def began(pod: Json) -> float | None:
    """When the node took the pod, seconds since the epoch; its walltime counts from there."""
    said = (pod.get("status") or {}).get("startTime")
    return dt.datetime.fromisoformat(said).timestamp() if said else None


def open_nodes(nodes: Sequence[Json]) -> list[Json]:
    """Those of `nodes` that are ready and take new pods."""
    return [node for node in nodes if _ready(node) and not node["spec"].get("unschedulable")]


def _ready(node: Json) -> bool:
    conditions: list[Json] = (node.get("status") or {}).get("conditions") or []
    return any(one.get("type") == "Ready" and one.get("status") == "True" for one in conditions)


def _unmet(status: Json) -> Json:
    """The first condition of a pod that does not hold, such as PodScheduled."""
    conditions: list[Json] = status.get("conditions") or []
    return next((c for c in conditions if c.get("status") == "False"), {})


def _words(said: Json) -> str:
    return ": ".join(said[key] for key in ("reason", "message") if said.get(key))


def run_label(logs: Path) -> str:
    """The value of label RUN: of the run whose logs are in `logs`, and no other's."""
    return f"{plain(logs.resolve().parent.name, 40)}-{_digest(str(logs.resolve()))}"


def marks(logs: Path, site: str) -> dict[str, str]:
    """Labels of all that belongs to `site` in the run whose logs are in `logs`."""
    known = site if plain(site, 60) == site else f"{plain(site, 40)}-{_digest(site)}"
    return {OWNER: "parslfl", RUN: run_label(logs), SITE: known}


def secret_name(labels: Mapping[str, str]) -> str:
    """The Secret of one site of one run: known from its labels alone, so no listing is needed."""
    return f"parslfl-{labels[RUN]}-{labels[SITE]}"


def amount(text: str) -> float:
    """A quantity as Kubernetes writes it: 500m is 0.5."""
    digits = text.rstrip("mkKMGTPi")
    return float(digits) * _UNITS.get(text[len(digits) :], 1.0)


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()


def plain(text: str, most: int) -> str:
    """`text` as part of a Kubernetes name: small letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower())[:most].strip("-") or "run"
