"""A real image registry on this machine, for tests: Debian's docker-registry, unpacked where it is missing.

Nothing is installed: apt-get fetches the package, and its one program is run from a folder. Images are
hand-made, of a configuration and no layer, and pushed by HTTP.

Does not know: what is tested on it.
"""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import hashlib
import json
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
import yaml

_HOME = Path(tempfile.gettempdir(), "parslfl-registry")
_PROGRAM = "docker-registry"
_INDEX = "application/vnd.oci.image.index.v1+json"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
#: Who may see what begins with `mine/`, where a registry asks for tokens.
USER, PASSWORD = "me", "open sesame"

Json = dict[str, Any]


def program() -> str:
    """Path of the registry's program; skips the test where it is not to be had."""
    found = shutil.which(_PROGRAM) or _HOME / "usr/bin" / _PROGRAM
    if not Path(found).exists():
        if not shutil.which("apt-get") or not shutil.which("dpkg"):
            pytest.skip("the registry is a package of Debian and Ubuntu: needs apt-get and dpkg")
        said = _fetched()
        if said:
            (pytest.fail if os.environ.get("CI") else pytest.skip)(f"apt-get has no {_PROGRAM}: {said}")
    return str(found)


def _fetched() -> str:
    """Unpack the package into `_HOME`; what apt-get said if it cannot be had."""
    get, dpkg, said = str(shutil.which("apt-get")), str(shutil.which("dpkg")), ""
    with tempfile.TemporaryDirectory() as folder:
        for words in (["download", "-qq", _PROGRAM], ["update", "-qq"], ["download", "-qq", _PROGRAM]):
            said = subprocess.run([get, *words], cwd=folder, capture_output=True, text=True).stderr or said
            if package := next(Path(folder).glob("*.deb"), None):
                subprocess.run([dpkg, "-x", package, Path(folder, "whole")], check=True)
                with contextlib.suppress(OSError):  # another session was faster
                    shutil.move(Path(folder, "whole"), _HOME)
                return ""
    return " ".join(said.split())[-200:]


@contextmanager
def registry(folder: Path, auth: Json | None = None) -> Iterator[str]:
    """A registry on `folder`; yields its HOST:PORT. `auth`: as its configuration has it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{free.getsockname()[1]}"
    storage = {"filesystem": {"rootdirectory": str(folder / "images")}, "delete": {"enabled": False}}
    wanted: Json = {"version": 0.1, "log": {"level": "error"}, "storage": storage, "http": {"addr": host}}
    config = folder / f"{host.partition(':')[2]}.yml"
    folder.mkdir(parents=True, exist_ok=True)
    config.write_text(yaml.safe_dump({**wanted, **({"auth": auth} if auth else {})}))
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen([program(), "serve", config], stdout=log, stderr=log)
    try:
        _until_it_answers(host, process, folder / "log")
        yield host
    finally:
        process.terminate()
        process.wait(10)


def _until_it_answers(host: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 20
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(requests.ConnectionError):
            requests.get(f"http://{host}/v2/", timeout=5)
            return
        time.sleep(0.05)
    pytest.fail(f"the registry did not start: {log.read_text()[-500:]}")


def push(
    host: str,
    name: str,
    environment: Sequence[str] = (),
    labels: Mapping[str, str] | None = None,
    platforms: Sequence[str] = ("linux/amd64",),
    index: bool = False,
) -> None:
    """Push image `name` (PATH:TAG) for each of `platforms`: an `index` of them, or the only one."""
    path, _, tag = name.partition(":")
    entries = []
    for platform in platforms:
        system, kind = platform.split("/")
        config = {"os": system, "architecture": kind, "rootfs": {"type": "layers", "diff_ids": []},
                  "config": {"Env": list(environment), "Labels": dict(labels or {})}}  # fmt: skip
        made = {"schemaVersion": 2, "mediaType": _MANIFEST, "layers": [],
                "config": _blob(host, path, json.dumps(config).encode())}  # fmt: skip
        about = _manifest(host, path, "" if index else tag, made)
        entries.append({**about, "platform": {"os": system, "architecture": kind}})
    if index:
        odd = {**entries[0], "platform": {"os": "unknown", "architecture": "unknown"}}  # as of attestations
        _manifest(host, path, tag, {"schemaVersion": 2, "mediaType": _INDEX, "manifests": [odd, *entries]})


def _blob(host: str, path: str, data: bytes) -> Json:
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    begun = requests.post(f"http://{host}/v2/{path}/blobs/uploads/", timeout=10)
    put = requests.put(begun.headers["Location"], params={"digest": digest}, data=data, timeout=10)
    assert put.status_code == 201, put.text
    return {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest, "size": len(data)}


def _manifest(host: str, path: str, tag: str, made: Json) -> Json:
    data = json.dumps(made).encode()
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    url, kind = f"http://{host}/v2/{path}/manifests/{tag or digest}", made["mediaType"]
    put = requests.put(url, data=data, headers={"Content-Type": kind}, timeout=10)
    assert put.status_code == 201, put.text
    return {"mediaType": kind, "digest": digest, "size": len(data)}


@contextmanager
def tokens(folder: Path) -> Iterator[Json]:
    """A token server as Docker's registries have one; yields the `auth` of a registry that trusts it.

    Anybody gets a token for what does not begin with `mine/`; for that, only `USER`.
    """
    key, certificate = _signer()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "root.pem").write_bytes(_pem(certificate))
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Tokens)
    server.key, server.certificate = key, certificate  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, args=[0.05], daemon=True).start()
    realm = f"http://127.0.0.1:{server.server_address[1]}/token"
    about = {"service": "registry", "issuer": "tests", "rootcertbundle": str(folder / "root.pem")}
    try:
        yield {"token": {"realm": realm, **about}}
    finally:
        server.shutdown()
        server.server_close()


class _Tokens(BaseHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        query = {key: values[-1] for key, values in parse_qs(urlsplit(self.path).query).items()}
        _, name, _ = query["scope"].split(":")
        secret = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        known = self.headers.get("Authorization") == f"Basic {secret}"
        access = [{"type": "repository", "name": name, "actions": ["pull"]}]
        told = {"token": self._signed(access if known or not name.startswith("mine/") else [])}
        data = json.dumps(told).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _signed(self, access: list[Json]) -> str:
        from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
        from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.serialization import Encoding

        der = self.server.certificate.public_bytes(Encoding.DER)  # type: ignore[attr-defined]
        now = int(time.time())
        head = {"typ": "JWT", "alg": "ES256", "x5c": [base64.b64encode(der).decode()]}
        body = {"iss": "tests", "sub": "", "aud": "registry", "exp": now + 60, "nbf": now - 60, "iat": now,
                "jti": os.urandom(4).hex(), "access": access}  # fmt: skip
        text = ".".join(_url64(json.dumps(part).encode()) for part in (head, body))
        r, s = decode_dss_signature(self.server.key.sign(text.encode(), ECDSA(SHA256())))  # type: ignore[attr-defined]
        return f"{text}.{_url64(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def _url64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _signer() -> tuple[Any, Any]:
    """A key, and a certificate that it signed itself."""
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.hashes import SHA256

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "tests")])
    now = dt.datetime.now(dt.UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    made = made.not_valid_before(now - dt.timedelta(hours=1)).not_valid_after(now + dt.timedelta(hours=1))
    return key, made.sign(key, SHA256())


def _pem(certificate: Any) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    data: bytes = certificate.public_bytes(Encoding.PEM)
    return data
