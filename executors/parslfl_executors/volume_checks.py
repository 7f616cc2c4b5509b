"""The volumes of worker pods: whether their claims are there and bound, and what lies under a folder.

Does not know: what the folders are for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from parslfl_executors.checks import Check, Folder, failed, ok, unknown
from parslfl_executors.kube_api import Cluster, RefusedError
from parslfl_executors.kube_pod import Json

_CLAIM = "persistentVolumeClaim"
_PROBE = "--probe tells"


@dataclass(frozen=True)
class Mounts:
    """What the workers' container of a pod mounts: path to volume, and what was found of each volume."""

    paths: Mapping[PurePosixPath, Json]
    volumes: Mapping[str, Json]
    found: Mapping[str, Check]

    def folder(self, wanted: Folder) -> Check:
        """Whether pods have a folder that outlives them, as far as their body tells."""
        name, path = wanted.name, PurePosixPath(wanted.path)
        if not path.is_absolute():
            return unknown(name, f"{wanted.path} means something only inside of a pod; {_PROBE}")
        over = [at for at in self.paths if path.is_relative_to(at)]
        if not over:
            return _nowhere(wanted)
        mount = self.paths[max(over, key=lambda at: len(at.parts))]
        if wanted.written and mount.get("readOnly"):
            cure = f"drop readOnly there, or set {wanted.field} to another folder"
            return failed(name, f"{mount['mountPath']} is mounted read-only", cure)
        return self._inside(wanted, mount)

    def _inside(self, wanted: Folder, mount: Json) -> Check:
        volume = self.volumes.get(mount["name"], {})
        claim = _about(volume, _CLAIM).get("claimName")
        what = f"claim {claim}" if claim else f"volume {mount['name']}"
        where = f"{wanted.path} lies in {what}, mounted at {mount['mountPath']}"
        if claim:
            sound = self.found[mount["name"]].verdict == "ok"
            return ok(wanted.name, where) if sound else unknown(wanted.name, f"{where}: see above")
        kind = _kind(volume)
        said = {
            "hostPath": ", a folder of whichever node a pod is on",
            "emptyDir": ", empty when a pod starts",
        }
        return unknown(wanted.name, f"{where}: of kind {kind}{said.get(kind, '')}; {_PROBE}")


def _nowhere(wanted: Folder) -> Check:
    if wanted.written:
        detail = f"pods do not mount {wanted.path}: what is written there ends with them"
        cure = f"mount a claim, volumes: {{CLAIM: {wanted.path}}}, or set {wanted.field} to where one is"
        return failed(wanted.name, detail, cure)
    detail = f"pods mount nothing at {wanted.path}: it can only be in the image; {_PROBE}"
    return unknown(wanted.name, detail, f"mount a claim there: volumes: {{CLAIM: {wanted.path}}}")


def mounts(cluster: Cluster, body: Json, pods: int) -> Mounts:
    """What the pod `body` mounts, its claims looked up; up to `pods` of them run at a time."""
    spec: Any = body["spec"]
    volumes = {one["name"]: one for one in _blocks(spec, "volumes", "name")}
    worker = spec["containers"][0]
    paths = {PurePosixPath(one["mountPath"]): one for one in _blocks(worker, "volumeMounts", "mountPath")}
    return Mounts(paths, volumes, {name: _volume(cluster, one, pods) for name, one in volumes.items()})


def _blocks(spec: Json, name: str, key: str) -> list[Json]:
    """The blocks of a list that are whole: a user wrote some, and the server complains of the rest."""
    listed: Any = spec.get(name)
    found = listed if isinstance(listed, list) else []
    return [one for one in found if isinstance(one, dict) and isinstance(one.get(key), str) and "name" in one]


def _volume(cluster: Cluster, volume: Json, pods: int) -> Check:
    name, kind = f"volume {volume['name']}", _kind(volume)
    if kind == _CLAIM:
        return _claim(cluster, name, str(_about(volume, kind).get("claimName")), pods)
    if kind == "secret":  # which nobody here may read
        secret = _about(volume, kind).get("secretName")
        return unknown(name, f"secret {secret}: a pod waits for one that is not there; {_PROBE}")
    if kind == "emptyDir":
        return ok(name, "an emptyDir, made with each pod")
    return unknown(name, f"of kind {kind}: a pod waits for one that is not there; {_PROBE}")


def _claim(cluster: Cluster, name: str, claim: str, pods: int) -> Check:
    try:
        found = cluster.claim(claim)
    except RefusedError as error:
        return _refused(cluster, name, claim, error)
    status = found.get("status") or {}
    phase, modes = status.get("phase"), status.get("accessModes") or []
    size = (status.get("capacity") or {}).get("storage")
    told = f"claim {claim} is {phase} ({', '.join(filter(None, [size, *modes]))})"
    look = f"kubectl -n {cluster.namespace} describe pvc {claim}"
    if phase == "Lost":
        return failed(name, f"{told}: its volume is gone", f"make it anew, or name another; {look} says more")
    if phase != "Bound":
        detail = f"{told}: it may wait for its first pod, or for ever; {_PROBE}"
        return unknown(name, detail, f"{look} says which")
    if pods > 1 and modes and not any(mode.endswith("Many") for mode in modes):
        cure = "use a claim of mode ReadOnlyMany or ReadWriteMany, or set max_blocks: 1"
        return unknown(name, f"{told}: pods on other nodes than the first cannot mount it, and wait", cure)
    return ok(name, told)


def _refused(cluster: Cluster, name: str, claim: str, error: RefusedError) -> Check:
    if error.status == 404:
        cure = (
            f"`kubectl -n {cluster.namespace} get pvc` lists those that are: name one in volumes, or make it"
        )
        return failed(
            name, f"there is no claim {claim} in {cluster.namespace}: pods that mount it wait", cure
        )
    if error.status == 403:
        cure = f"kubectl apply -n {cluster.namespace} -f executors/kubernetes/rbac.yaml, bound to your user"
        return unknown(name, f"claim {claim} may not be looked at from here; {_PROBE}", cure)
    return unknown(name, f"claim {claim}: {error}; {_PROBE}")


def _kind(volume: Mapping[str, Any]) -> str:
    return next((key for key in volume if key != "name"), "emptyDir")  # what the server takes it for


def _about(volume: Mapping[str, Any], kind: str) -> Json:
    said = volume.get(kind)
    return said if isinstance(said, dict) else {}


def looked(found: Sequence[Check]) -> list[Check]:
    """What is worth a line: faults and doubts each, all that is well in one."""
    well = [check for check in found if check.verdict == "ok"]
    said = "; ".join(check.detail for check in well)
    return [*([ok("volumes", said)] if well else []), *(check for check in found if check.verdict != "ok")]
