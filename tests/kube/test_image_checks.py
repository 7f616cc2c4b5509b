"""An image looked up in a real registry: there or not, for whom, and which Python it has."""

from __future__ import annotations

import base64
import json
import platform
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from registry_bed import PASSWORD, USER, push, registry, tokens

import parslfl
from parslfl_executors.checks import Check, minor
from parslfl_executors.image_checks import image
from parslfl_executors.registry import Image, login_of, parse

HERE = platform.python_version()
PACKAGES = (("parslfl", "0.1.0"), ("parsl", "2026.1.1"), ("numpy", "2.0"))
#: Of the password, as `htpasswd -B` writes it.
HASH = "$2y$05$abcdefghijklmnopqrstuupx2xBUC4954936wVIjyyPHmUBFu0wCW"
OURS = {"parslfl.python": HERE, "parslfl.version": "0.1.0", "parslfl.parsl": "2026.1.1"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a registry keeps: images of every kind."""
    made = tmp_path_factory.mktemp("registry")
    with registry(made) as host:
        push(host, "fl/official:1", [f"PYTHON_VERSION={HERE}", "PATH=/bin"])
        push(host, "fl/official:old", ["PYTHON_VERSION=3.9.1"])
        push(host, "fl/ours:1", [], OURS)
        push(host, "fl/ours:stale", [], OURS | {"parslfl.parsl": "2024.1.1"})
        push(host, "fl/conda:1", ["PATH=/opt/conda/bin"])
        push(host, "fl/arm:1", [f"PYTHON_VERSION={HERE}"], platforms=["linux/arm64"])
        push(
            host,
            "fl/both:1",
            [f"PYTHON_VERSION={HERE}"],
            platforms=["linux/arm64", "linux/amd64"],
            index=True,
        )
        push(host, "mine/fl:1", [f"PYTHON_VERSION={HERE}"])
    return made


@pytest.fixture(scope="module")
def host(folder: Path) -> Iterator[str]:
    with registry(folder) as found:
        yield found


@pytest.fixture
def login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file where Docker keeps log-ins: there is none yet, and no other is looked at."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("REGISTRY_AUTH_FILE", raising=False)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    return tmp_path / "config.json"


def looked(name: str, platforms: tuple[str, ...] = ("linux/amd64",), **changes: bool) -> Check:
    plain = {"pulled": True, "secrets": False, "prepared": False}
    return image(name, platforms=platforms, packages=PACKAGES, **{**plain, **changes})


def test_an_official_python_says_its_version(host: str) -> None:
    said = looked(f"{host}/fl/official:1")
    assert said.verdict == "ok"
    assert said.detail == (
        f"{host}/fl/official:1 is there, with Python {HERE}, as here; "
        "whether it also has bash, Parsl and parslfl, --probe tells"
    )


def test_our_own_images_say_all_that_must_agree(host: str) -> None:
    said = looked(f"{host}/fl/ours:1")
    assert said.detail == (
        f"{host}/fl/ours:1 is there, with Python {HERE}, parslfl 0.1.0, parsl 2026.1.1, as here"
    )


def test_another_python_or_parsl_is_a_fault(host: str) -> None:
    old = looked(f"{host}/fl/official:old")
    assert (old.verdict, f"has Python 3.9.1 (here {HERE})" in old.detail) == ("failed", True)
    assert f"--build-arg PYTHON={minor(HERE)} " in old.cure
    stale = looked(f"{host}/fl/ours:stale")
    assert (stale.verdict, "has parsl 2024.1.1 (here 2026.1.1)" in stale.detail) == ("failed", True)
    prepared = looked(f"{host}/fl/official:old", prepared=True)
    assert (prepared.verdict, "worker_init must bring" in prepared.detail) == ("unknown", True)


def test_an_image_that_does_not_say_its_python(host: str) -> None:
    said = looked(f"{host}/fl/conda:1")
    assert (said.verdict, "does not say what Python" in said.detail) == ("unknown", True)


@pytest.mark.parametrize("name", ["fl/ours:2", "fl/nothing:1"])
def test_what_is_not_there(host: str, name: str) -> None:
    said = looked(f"{host}/{name}")
    assert said.verdict == "failed"
    assert said.cure.startswith(
        f"docker build -f executors/kubernetes/Dockerfile -t {host}/{name} . && docker push"
    )


def test_an_image_for_other_machines(host: str) -> None:
    arm = looked(f"{host}/fl/arm:1")
    assert (arm.verdict, "but for linux/arm64; the nodes are linux/amd64" in arm.detail) == ("failed", True)
    mixed = looked(f"{host}/fl/arm:1", ("linux/amd64", "linux/arm64"))
    assert (mixed.verdict, mixed.cure) == ("unknown", "set pod: {nodeSelector: {kubernetes.io/arch: arm64}}")
    assert looked(f"{host}/fl/both:1", ("linux/amd64", "linux/arm64")).verdict == "ok"
    assert looked(f"{host}/fl/arm:1", ()).verdict == "ok"  # nobody knows what the nodes are


def test_an_image_by_its_digest(host: str, folder: Path) -> None:
    tags = folder / "images/docker/registry/v2/repositories/fl/ours/_manifests/tags/1/current/link"
    assert looked(f"{host}/fl/ours@{tags.read_text()}").verdict == "ok"
    assert looked(f"{host}/fl/ours@sha256:{'0' * 64}").verdict == "failed"


def test_a_registry_that_asks_for_tokens(folder: Path, tmp_path: Path, login: Path) -> None:
    with tokens(tmp_path) as auth, registry(folder, auth) as host:
        assert looked(f"{host}/fl/ours:1").verdict == "ok"  # anybody may
        closed = looked(f"{host}/mine/fl:1")
        assert (closed.verdict, closed.cure.partition(",")[0]) == ("unknown", f"docker login {host}")
        secret = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        login.write_text(json.dumps({"auths": {f"https://{host}/v1/": {"auth": secret}}}))
        mine = looked(f"{host}/mine/fl:1")
        assert (mine.verdict, "image_pull_secrets" in mine.cure) == ("unknown", True)
        assert looked(f"{host}/mine/fl:1", secrets=True).verdict == "ok"


def test_a_registry_that_asks_for_a_password(folder: Path, tmp_path: Path, login: Path) -> None:
    (tmp_path / "users").write_text(f"{USER}:{HASH}\n")
    auth = {"htpasswd": {"realm": "tests", "path": str(tmp_path / "users")}}
    with registry(folder, auth) as host:
        assert looked(f"{host}/fl/ours:1").verdict == "unknown"
        secret = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        login.write_text(json.dumps({"auths": {host: {"auth": secret}}}))
        assert looked(f"{host}/fl/ours:1", secrets=True).verdict == "ok"
        login.write_text(json.dumps({"auths": {host: {"auth": base64.b64encode(b"me:wrong").decode()}}}))
        assert looked(f"{host}/fl/ours:1", secrets=True).verdict == "unknown"


@contextmanager
def answering(head: str, body: bytes = b"") -> Iterator[str]:
    """A server that answers every call alike: what no real registry does."""
    data = f"HTTP/1.1 {head}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    line, _ = server.accept()
                except OSError:
                    return
                with line:
                    line.recv(65536)
                    line.sendall(data)

        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)


ODD = [
    ("200 OK", b"<html>a portal</html>", "answers what describes no image"),
    ("200 OK", b"[1, 2]", "answers what describes no image"),
    ("200 OK", b'{"schemaVersion": 1}', "answers what describes no image"),
    ("200 OK", b'{"config": {"digest": "../../etc"}}', "is no sha256 digest"),
    ("200 OK", b'{"config": {"digest": "sha256:' + b"0" * 64 + b'"}}', "has another checksum"),
    ("200 OK", b"0" * (5 << 20), "more than 4194304 bytes"),
    ("200 OK", b"[" * 100_000, "answers what describes no image"),
    ("503 Busy", b"", "answers HTTP 503"),
    ('401 No\r\nWWW-Authenticate: Bearer realm="http://203.0.113.1/t"', b"", "without TLS"),
    ("401 No", b"", "only after a log-in"),
]


@pytest.mark.parametrize(("head", "body", "said"), ODD)
def test_whatever_a_server_answers_is_told(login: Path, head: str, body: bytes, said: str) -> None:
    with answering(head, body) as host:
        found = looked(f"{host}/fl/x:1")
    assert (found.verdict, said in found.detail) == ("unknown", True), found


def test_a_registry_that_is_away() -> None:
    said = looked("127.0.0.1:9/fl/x:1")
    assert said.verdict == "unknown"
    assert "127.0.0.1:9 is not reached from here: " in said.detail
    assert "Connection refused" in said.detail
    assert "--probe tells whether pods get it" in said.detail


def test_an_image_that_nodes_hold_is_not_looked_for() -> None:
    assert "image_pull_policy: Never" in looked("127.0.0.1:9/fl/x:1", pulled=False).detail


NAMES = [
    ("python", Image("docker.io", "library/python", "latest")),
    ("python:3.11-slim", Image("docker.io", "library/python", "3.11-slim")),
    ("docker.io/me/fl:1", Image("docker.io", "me/fl", "1")),
    ("me/fl", Image("docker.io", "me/fl", "latest")),
    ("registry.example.org/me/fl:1.0", Image("registry.example.org", "me/fl", "1.0")),
    ("localhost/fl", Image("localhost", "fl", "latest")),
    ("reg:5000/a/b/c:v", Image("reg:5000", "a/b/c", "v")),
    (f"ghcr.io/me/fl:1@sha256:{'a' * 64}", Image("ghcr.io", "me/fl", f"sha256:{'a' * 64}")),
]


@pytest.mark.parametrize(("name", "parts"), NAMES)
def test_a_name_is_read_as_docker_does(name: str, parts: Image) -> None:
    assert parse(name) == parts


@pytest.mark.parametrize(
    "name", ["", "Me/Fl", "a:b:c", "fl:", "fl@", "fl@sha256:1", "a b", "reg.io/../x", "-x", "a//b"]
)
def test_what_is_no_name(name: str) -> None:
    said = looked(name)
    assert (said.verdict, "is no image's name" in said.detail) == ("failed", True)


def test_tls_is_left_out_only_on_this_machine() -> None:
    urls = [
        str(getattr(parse(name), "url", ""))
        for name in ("python", "reg.io/x", "localhost:5/x", "127.0.0.1/x")
    ]
    assert urls == [
        "https://registry-1.docker.io/v2/library/python", "https://reg.io/v2/x",
        "http://localhost:5/v2/x", "http://127.0.0.1/v2/x",
    ]  # fmt: skip


def test_a_log_in_is_read_as_docker_and_podman_write_it(
    login: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert login_of("reg.io") is None
    login.write_text("{")
    (tmp_path / "podman.json").write_text(json.dumps({"auths": {"reg.io/me": {"auth": "bWU6eA=="}}}))
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "podman.json"))
    assert login_of("reg.io") == "bWU6eA=="
    login.write_text(
        json.dumps({"auths": {"https://index.docker.io/v1/": {"auth": "bWU6eQ=="}, "reg.io": {}}})
    )
    assert login_of("docker.io") == "bWU6eQ=="
    assert login_of("reg.io") == "bWU6eA=="
    login.write_text(json.dumps({"auths": {"reg.io": {"auth": "no base64"}}}))
    assert login_of("reg.io") == "bWU6eA=="


def test_the_dockerfile_labels_what_it_installs(repository: Path) -> None:
    file = (repository / "executors/kubernetes/Dockerfile").read_text()
    (pinned,) = re.findall(r"(?m)^parsl==(\S+)", (repository / "constraints.txt").read_text())
    (line,) = re.findall(r"(?m)^LABEL (.*)", file)
    assert line == f"parslfl.python=${{PYTHON}} parslfl.version={parslfl.__version__} parslfl.parsl={pinned}"
    assert file.index("ARG PYTHON\n") < file.index("LABEL ")  # one before FROM is forgotten there
