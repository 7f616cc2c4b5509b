"""Whether the image of worker pods is in its registry, for the nodes' platform, and has the driver's Python.

Does not know: how a registry is asked, or a pod's other fields.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence

from parslfl_executors.checks import Check, differing, failed, minor, ok, unknown
from parslfl_executors.registry import Described, Image, UnansweredError, describe, parse

#: What images built from executors/kubernetes/Dockerfile say of themselves: labels of Python and of packages.
_PYTHON, _LABELS = "parslfl.python", {"parslfl": "parslfl.version", "parsl": "parslfl.parsl"}
_DOCKERFILE = "executors/kubernetes/Dockerfile"
_PROBE = "--probe tells"
#: Looked at where the nodes' own are not known.
_COMMON = ("linux/amd64", "linux/arm64")


def image(
    name: str,
    *,
    platforms: Sequence[str],
    packages: Sequence[tuple[str, str]],
    pulled: bool,
    secrets: bool,
    prepared: bool,
) -> Check:
    """What the registry of image `name` tells of it.

    `platforms`: of the nodes, such as linux/amd64, as far as they are known. `packages`: in the versions
    that are here. `pulled`: nodes may fetch the image; `secrets`: they have a log-in of their own for that.
    `prepared`: lines of shell run in it before Python does.
    """
    if not pulled:
        return unknown(
            "image", f"{name}: pods take what their node holds (image_pull_policy: Never); {_PROBE}"
        )
    parts = parse(name)
    if parts is None:
        return failed(
            "image", f"{name} is no image's name", "write it as registry.example.org/me/parslfl:1.0"
        )
    try:
        found = describe(parts, platforms or _COMMON)
    except UnansweredError as error:
        return _unanswered(name, parts, error)
    if platforms and not set(platforms) & set(found.platforms):
        return _of_other_kind(name, found, platforms)
    return _python(name, found, platforms, packages, secrets=secrets, prepared=prepared)


def _unanswered(name: str, parts: Image, error: UnansweredError) -> Check:
    if error.why == "absent":
        build = f"docker build -f {_DOCKERFILE} -t {name} . && docker push {name}"
        cure = f"{build}; or set image_pull_policy: Never where the nodes hold it already"
        return failed("image", f"{name}: {error}", cure)
    if error.why == "closed":
        cure = f"docker login {parts.host}, so that it can be looked at from here; or correct the name"
        return unknown("image", f"{name}: {error}; {_PROBE} whether pods get it", cure)
    return unknown("image", f"{name}: {error}; {_PROBE} whether pods get it, and its Python")


def _of_other_kind(name: str, found: Described, platforms: Sequence[str]) -> Check:
    detail = f"{name} is there, but for {', '.join(found.platforms)}; the nodes are {', '.join(platforms)}"
    cure = f"docker buildx build --platform {','.join(platforms)} -f {_DOCKERFILE} -t {name} --push ."
    return failed("image", detail, cure)


def _python(
    name: str,
    found: Described,
    platforms: Sequence[str],
    packages: Sequence[tuple[str, str]],
    *,
    secrets: bool,
    prepared: bool,
) -> Check:
    own = {package: found.labels[label] for package, label in _LABELS.items() if label in found.labels}
    python = found.environment.get("PYTHON_VERSION") or found.labels.get(_PYTHON, "")
    if not python:
        detail = f"{name} is there, but does not say what Python it has; {_PROBE}"
        return unknown("image", detail, f"build it from {_DOCKERFILE}, which labels it")
    told = [(package, own[package]) for package, _ in packages if package in own]
    said = f"{name} is there, with {_told(python, told)}"
    if odd := differing(python, told, packages):
        return _unfit(name, f"{name} is there, but has {', '.join(odd)}", prepared)
    if found.signed_in and not secrets:
        cure = "set image_pull_secrets, unless the nodes or the pods' service account have a log-in"
        return unknown("image", f"{said}, as here; your own log-in showed it, pods have none; {_PROBE}", cure)
    lacking = [one for one in platforms if one not in found.platforms]
    if lacking:
        fits = next(one for one in platforms if one in found.platforms)
        cure = f"set pod: {{nodeSelector: {{kubernetes.io/arch: {fits.partition('/')[2]}}}}}"
        return unknown("image", f"{said}, as here, but not for the nodes that are {', '.join(lacking)}", cure)
    rest = "" if told else f"; whether it also has bash, Parsl and parslfl, {_PROBE}"
    return ok("image", f"{said}, as here{rest}")


def _told(python: str, packages: Sequence[tuple[str, str]]) -> str:
    return ", ".join([f"Python {python}", *(f"{package} {said}" for package, said in packages)])


def _unfit(name: str, detail: str, prepared: bool) -> Check:
    here = minor(platform.python_version())
    if prepared:  # which may well put another Python first
        return unknown("image", f"{detail}; worker_init must bring what is here; {_PROBE}")
    cure = f"docker build --build-arg PYTHON={here} -f {_DOCKERFILE} -t {name} . && docker push {name}"
    return failed("image", detail, f"{cure}; or run the driver with the image's Python and packages")
