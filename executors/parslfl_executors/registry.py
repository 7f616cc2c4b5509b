"""What an image's registry says of it: asked for manifest and configuration by the OCI distribution API.

No layer is pulled. Source: OCI distribution specification 1.1, "Pull"; tokens as Docker's registry has them.

Does not know: what the image is for, or what it should hold.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from parslfl_executors.address_checks import loopback

if TYPE_CHECKING:
    import requests

Json = dict[str, Any]

#: Seconds to connect, and for each answer.
_TIMEOUT = (4.0, 6.0)
#: Bytes of a manifest, a configuration or a token at most: what the specification asks registries to take.
_MOST = 4 << 20
_INDEXES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_SINGLE = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_HUB, _HUB_API = "docker.io", "registry-1.docker.io"
_PATH = re.compile(r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_HOST = re.compile(r"[A-Za-z0-9.-]+(?::\d+)?|\[[0-9a-fA-F:]+\](?::\d+)?")
_PART = re.compile(r'(\w+)="([^"]*)"')


class UnansweredError(Exception):
    """No description of an image: it is `absent`, `closed` to us, or the registry is `away` or `odd`."""

    def __init__(self, why: Literal["absent", "closed", "away", "odd"], message: str) -> None:
        self.why = why
        super().__init__(why, message)

    def __str__(self) -> str:
        return str(self.args[1])


@dataclass(frozen=True)
class Image:
    """An image's name, in parts: `host` of its registry, `path` there, and tag or digest."""

    host: str
    path: str
    reference: str

    @property
    def url(self) -> str:
        api = _HUB_API if self.host == _HUB else self.host
        # as Docker and containerd: without TLS only on this machine
        scheme = "http" if loopback(urlsplit(f"//{api}").hostname or "") else "https"
        return f"{scheme}://{api}/v2/{self.path}"


@dataclass(frozen=True)
class Described:
    """What a registry says: `platforms` such as linux/amd64, and what the image sets for one of them.

    `signed_in`: only this user's own log-in was let in.
    """

    platforms: tuple[str, ...]
    environment: Mapping[str, str]
    labels: Mapping[str, str]
    signed_in: bool


def parse(name: str) -> Image | None:
    """The parts of an image's name, as Docker reads it; None if it is none."""
    rest, _, digest = name.partition("@")
    head, _, tail = rest.partition("/")
    outside = bool(tail) and ("." in head or ":" in head or head == "localhost")
    host, path = (head, tail) if outside else (_HUB, rest)
    path, colon, tag = path.partition(":")
    if host in {_HUB, "index.docker.io"}:
        host, path = _HUB, path if "/" in path else f"library/{path}"
    reference = digest or (tag if colon else "latest")
    fits = _DIGEST.fullmatch(reference) if digest else _TAG.fullmatch(reference)
    whole = fits and _PATH.fullmatch(path) and _HOST.fullmatch(host)
    return Image(host, path, reference) if whole and ("@" not in name or digest) else None


def describe(image: Image, wanted: Sequence[str]) -> Described:
    """What the registry says of `image`, looked at for the first of the platforms `wanted` that it has.

    Raises:
        UnansweredError: it says nothing of it.
    """
    import requests

    with requests.Session() as session, _understood(image):
        return _Asking(session, image).describe(wanted)


@contextlib.contextmanager
def _understood(image: Image) -> Iterator[None]:
    from requests import RequestException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except (RequestException, HTTPError, OSError) as error:
        reason = re.sub(r"HTTPS?Connection\w*\([^)]*\):? ?", "", str(_cause(error)))
        raise UnansweredError("away", f"{image.host} is not reached from here: {reason}") from error
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        said = " ".join(f"{type(error).__name__} {error}".split())[:120]
        raise UnansweredError("odd", f"{image.host} answers what describes no image ({said})") from error


def _cause(error: BaseException) -> object:
    """The innermost reason that requests and urllib3 wrap."""
    wrapped = (getattr(error, "reason", None), *error.args)
    inner = next((one for one in wrapped if isinstance(one, BaseException) and one is not error), None)
    return error if inner is None else _cause(inner)


class _Asking:
    """Questions to one registry; what it lets us in by is kept for the next one."""

    def __init__(self, session: requests.Session, image: Image) -> None:
        self.session, self.image = session, image
        self.pass_ = ""
        self.signed_in = False

    def describe(self, wanted: Sequence[str]) -> Described:
        manifest = self._json(f"manifests/{self.image.reference}", (*_INDEXES, *_SINGLE))
        listed = [(_platform(one["platform"]), one["digest"]) for one in manifest.get("manifests") or ()]
        offered = {platform: digest for platform, digest in listed if "unknown" not in platform}
        if offered:
            chosen = next((one for one in wanted if one in offered), None)
            if chosen is None:
                return Described(tuple(offered), {}, {}, self.signed_in)
            manifest = self._json(f"manifests/{_digest(offered[chosen])}", _SINGLE)
        config = self._json(f"blobs/{_digest(manifest['config']['digest'])}", ("*/*",))
        inner = config.get("config") or {}
        environment = dict(pair.split("=", 1) for pair in inner.get("Env") or () if "=" in pair)
        labels = {str(key): str(value) for key, value in (inner.get("Labels") or {}).items()}
        return Described(tuple(offered) or (_platform(config),), environment, labels, self.signed_in)

    def _json(self, path: str, kinds: Sequence[str]) -> Json:
        data = self._bytes(path, kinds)
        wanted = path.rpartition("/")[2]
        if _DIGEST.fullmatch(wanted) and f"sha256:{hashlib.sha256(data).hexdigest()}" != wanted:
            raise ValueError(f"{wanted[:15]} has another checksum")
        found: Json = json.loads(data)
        return found

    def _bytes(self, path: str, kinds: Sequence[str]) -> bytes:
        status, headers, data = self._get(path, kinds)
        if status == 401 and not self.pass_:
            for signed_in, pass_ in self._passes(headers.get("WWW-Authenticate", "")):
                self.signed_in, self.pass_ = signed_in, pass_
                status, _, data = self._get(path, kinds)
                if status not in {401, 403}:
                    break
        if status == 200:
            return data
        if status == 404:
            raise UnansweredError("absent", f"{self.image.host} has no such image or tag")
        if status in {401, 403}:
            raise UnansweredError("closed", f"{self.image.host} shows it only after a log-in, or has none")
        raise UnansweredError("away", f"{self.image.host} answers HTTP {status}")

    def _get(self, path: str, kinds: Sequence[str]) -> tuple[int, Mapping[str, str], bytes]:
        headers = {"Accept": ", ".join(kinds)}
        return self._read(f"{self.image.url}/{path}", headers, self.pass_)

    def _read(
        self, url: str, headers: Mapping[str, str], pass_: str, params: Mapping[str, str] | None = None
    ) -> tuple[int, Mapping[str, str], bytes]:
        """Status, headers and body; requests does not show `pass_` to another host, where one comes next."""

        def present(request: requests.PreparedRequest) -> requests.PreparedRequest:
            request.headers.update({"Authorization": pass_} if pass_ else {})
            return request  # an `auth` of ours also keeps requests from reading ~/.netrc

        with self.session.get(
            url, headers=dict(headers), params=params, auth=present, timeout=_TIMEOUT, stream=True
        ) as answer:
            data: bytes = answer.raw.read(_MOST + 1, decode_content=True)
            if len(data) > _MOST:
                raise ValueError(f"more than {_MOST} bytes")
            return answer.status_code, answer.headers, data

    def _passes(self, challenge: str) -> Iterator[tuple[bool, str]]:
        """What may let us in, the least first: (whether it is this user's log-in, header)."""
        kind, login = challenge.partition(" ")[0].lower(), login_of(self.image.host)
        mine = f"Basic {login}" if login else ""
        if kind == "basic" and mine:
            yield True, mine
        if kind == "bearer":
            for pass_ in ("", *([mine] if mine else [])):
                if token := self._token(dict(_PART.findall(challenge)), pass_):
                    yield bool(pass_), f"Bearer {token}"

    def _token(self, said: Mapping[str, str], pass_: str) -> str:
        """A token to read the image with; "" if none is given to who shows `pass_`."""
        realm = urlsplit(said["realm"])
        if realm.scheme != "https" and not (realm.scheme == "http" and loopback(realm.hostname or "")):
            raise ValueError("tokens are to be had without TLS")
        params = {"scope": f"repository:{self.image.path}:pull"}
        params |= {"service": said["service"]} if "service" in said else {}
        status, _, data = self._read(said["realm"], {}, pass_, params)
        if status != 200:
            return ""
        found = json.loads(data)
        return str(found.get("token") or found.get("access_token") or "")


def _digest(value: object) -> str:
    if not isinstance(value, str) or not _DIGEST.fullmatch(value):
        raise ValueError(f"{value!r:.80} is no sha256 digest")
    return value


def _platform(said: Mapping[str, object]) -> str:
    return f"{said.get('os') or 'unknown'}/{said.get('architecture') or 'unknown'}"


def login_of(host: str) -> str | None:
    """This user's log-in at a registry as `docker login` or `podman login` wrote it down, base64."""
    for path in _login_files():
        try:
            kept = json.loads(path.read_text())["auths"]
            found = {_registry(name): entry.get("auth") for name, entry in kept.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
        login = found.get(host)
        with contextlib.suppress(ValueError, TypeError):
            if login and b":" in base64.b64decode(login, validate=True):
                return str(login)
    return None


def _login_files() -> Iterator[Path]:
    home = Path("~").expanduser()
    yield Path(os.environ.get("DOCKER_CONFIG") or home / ".docker", "config.json")
    if file := os.environ.get("REGISTRY_AUTH_FILE"):
        yield Path(file)
    if folder := os.environ.get("XDG_RUNTIME_DIR"):
        yield Path(folder, "containers/auth.json")
    yield home / ".config/containers/auth.json"


def _registry(name: str) -> str:
    """The registry that an entry is for: some begin with https://, that of Docker Hub has a path."""
    host = name.removeprefix("https://").removeprefix("http://").partition("/")[0]
    return _HUB if host in {"index.docker.io", _HUB_API} else host
