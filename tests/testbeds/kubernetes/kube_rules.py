"""What the API server of the loopback cluster refuses, as a real one does.

Status and reason of each answer were compared with Kubernetes 1.36; messages are shortened.

Does not know: HTTP, or what becomes of a pod that is accepted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

Json = dict[str, Any]

_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_KEY = re.compile(r"([a-z0-9.-]+/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_QUANTITY = re.compile(r"([0-9.]+)(m|k|M|G|T|Ki|Mi|Gi|Ti|)")
_UNITS = {
    "": 1.0, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12,
    "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40,
}  # fmt: skip
_REASONS = {
    400: "BadRequest", 401: "Unauthorized", 403: "Forbidden", 404: "NotFound", 405: "MethodNotAllowed",
    409: "AlreadyExists", 422: "Invalid", 429: "TooManyRequests", 500: "InternalError",
    503: "ServiceUnavailable",
}  # fmt: skip


class Refusal(Exception):  # noqa: N818 - an answer, not an accident
    """An answer other than success."""

    def __init__(self, code: int, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(code, message)
        self.code, self.headers = code, headers or {}
        self.body = {
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": message, "reason": _REASONS.get(code, "Unknown"), "code": code,
        }  # fmt: skip


def amount(text: object) -> float:
    found = _QUANTITY.fullmatch(str(text))
    if not found:
        raise Refusal(400, 'Pod in version "v1" cannot be handled as a Pod: quantities must match ...')
    return float(found[1]) * _UNITS[found[2]]


def check(namespace: str, pod: Json) -> None:
    """Refuse `pod` as a whole, or fill in the requests that follow from its limits."""
    metadata, spec = pod.setdefault("metadata", {}), pod.setdefault("spec", {})
    if metadata.get("namespace", namespace) != namespace:
        raise Refusal(400, "the namespace of the object does not match the namespace of the request")
    faults = [*_metadata(metadata), *_volumes(spec)]
    for index, container in enumerate(spec.get("containers") or []):
        where = f"spec.containers[{index}]"
        faults += [*_container(container, where), *_mounts(spec, container, where)]
        faults += _resources(container, where)
    if faults:
        raise Refusal(422, f'Pod "{metadata.get("name", "")}" is invalid: {", ".join(faults)}')


def _metadata(metadata: Json) -> Iterator[str]:
    name = metadata.get("name", "")
    if len(name) > 253 or not _SUBDOMAIN.fullmatch(name):
        yield f'metadata.name: Invalid value: "{name}": a lowercase RFC 1123 subdomain must consist of ...'
    for key in {**(metadata.get("annotations") or {}), **(metadata.get("labels") or {})}:
        if not _KEY.fullmatch(key):
            yield f'metadata.annotations: Invalid value: "{key}": name part must consist of ...'


def _volumes(spec: Json) -> Iterator[str]:
    if not spec.get("containers"):
        yield "spec.containers: Required value"
    names = [volume.get("name", "") for volume in spec.get("volumes") or []]
    for index, name in enumerate(names):
        if not _LABEL.fullmatch(name):
            yield f'spec.volumes[{index}].name: Invalid value: "{name}"'
        if name in names[:index]:
            yield f'spec.volumes[{index}].name: Duplicate value: "{name}"'


def _container(container: Json, where: str) -> Iterator[str]:
    if not _LABEL.fullmatch(container.get("name", "")):
        yield f"{where}.name: Invalid value"
    if not container.get("image"):
        yield f"{where}.image: Required value"


def _mounts(spec: Json, container: Json, where: str) -> Iterator[str]:
    known = {volume.get("name") for volume in spec.get("volumes") or []}
    mounts = container.get("volumeMounts") or []
    paths = [mount["mountPath"] for mount in mounts]
    for index, mount in enumerate(mounts):
        if mount["name"] not in known:
            yield f'{where}.volumeMounts[{index}].name: Not found: "{mount["name"]}"'
        if mount["mountPath"] in paths[:index]:
            yield f"{where}.volumeMounts[{index}].mountPath: Invalid value: must be unique"


def _resources(container: Json, where: str) -> Iterator[str]:
    resources = container.setdefault("resources", {})
    limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
    for kind, of in (("limits", limits), ("requests", requests)):
        for name, value in of.items():
            amount(value)
            if "/" not in name and name not in {"cpu", "memory", "ephemeral-storage"}:
                yield f"{where}.resources.{kind}[{name}]: Invalid value: must be a standard resource"
            if "/" in name and amount(value) != int(amount(value)):
                yield f"{where}.resources.{kind}[{name}]: Invalid value: must be an integer"
    resources["requests"] = {**limits, **requests}
    for name, value in resources["requests"].items():
        if name in limits and amount(value) > amount(limits[name]):
            yield f"{where}.resources.requests: Invalid value: must be less than or equal to {name} limit"
        if "/" in name and (name not in limits or amount(value) != amount(limits[name])):
            yield f"{where}.resources.limits: Required value: Limit must be set for {name}"
