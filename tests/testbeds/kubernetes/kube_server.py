"""The loopback cluster over HTTP: the calls of the Kubernetes API that parslfl makes.

`serve` gives the real `kubernetes` client a kubeconfig file to find it by.

Does not know: what becomes of pods.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from kube_cluster import Cluster, now
from kube_rules import Json, Refusal

_PODS = re.compile(r"/api/v1/namespaces/([^/]+)/pods(?:/([^/]+)(?:/(log|eviction))?)?")
_REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
_VERBS = {"POST": "create", "DELETE": "delete"}
_CLAIMS = re.compile(r"/api/v1/namespaces/([^/]+)/persistentvolumeclaims/([^/]+)")
_SECRETS = re.compile(r"/api/v1/namespaces/([^/]+)/secrets(?:/([^/]+))?")


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    cluster: Cluster
    token: str


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *args: object) -> None:
        """Tests look at `Cluster.calls` instead."""

    def answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else {}
        headers: dict[str, str] = {}
        try:
            self._let_in()
            code, said = self._route(body or {})
        except Refusal as refusal:
            code, said, headers = refusal.code, refusal.body, refusal.headers
        self.server.cluster.calls.append((self.command, self.path, code))
        self._send(code, said, headers)

    do_GET = do_POST = do_DELETE = answer  # noqa: N815 - http.server's names

    def _send(self, code: int, said: Json | bytes, headers: dict[str, str]) -> None:
        data = said if isinstance(said, bytes) else json.dumps(said).encode()
        kind = "text/plain" if isinstance(said, bytes) else "application/json"
        self.send_response(code)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def _let_in(self) -> None:
        if self.headers.get("Authorization") != f"Bearer {self.server.token}":
            raise Refusal(401, "Unauthorized")
        cluster = self.server.cluster
        verb, resource = _asked(self.command, urlsplit(self.path).path)
        if (verb, resource) in cluster.denied:
            raise Refusal(403, f'{resource} is forbidden: User "tester" cannot {verb} resource "{resource}"')
        with cluster.lock:
            for fault in cluster.faults:
                if fault.times and fault.verb in ("", self.command) and fault.path in self.path:
                    fault.times -= 1
                    after = {"Retry-After": str(fault.retry_after)} if fault.retry_after else {}
                    raise Refusal(fault.code, fault.message, after)

    def _route(self, body: Json) -> tuple[int, Json | bytes]:
        parts = urlsplit(self.path)
        query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
        with self.server.cluster.lock:
            if found := _SECRETS.fullmatch(parts.path):
                return self._secret((found[1], found[2] or ""), body)
            if found := _PODS.fullmatch(parts.path):
                return self._pod(found[1], found[2] or "", found[3] or "", query, body)
            if (found := _CLAIMS.fullmatch(parts.path)) and self.command == "GET":
                return 200, self.server.cluster.claim(found[2])
            if parts.path == "/api/v1/nodes":
                return 200, {"kind": "NodeList", "apiVersion": "v1", "items": self.server.cluster.listed()}
            if (self.command, parts.path) == ("POST", _REVIEWS):
                return 201, self._review(body)
        raise Refusal(404, "the server could not find the requested resource")

    def _review(self, body: Json) -> Json:
        wish = body["spec"]["resourceAttributes"]
        resource = "/".join(filter(None, (wish["resource"], wish.get("subresource"))))
        allowed = (wish["verb"], resource) not in self.server.cluster.denied
        return {**body, "kind": "SelfSubjectAccessReview", "status": {"allowed": allowed}}

    def _secret(self, key: tuple[str, str], body: Json) -> tuple[int, Json]:
        kept = self.server.cluster.secrets
        if self.command == "POST":
            key = (key[0], body["metadata"]["name"])
            if key in kept:
                raise Refusal(409, f'secrets "{key[1]}" already exists')
            kept[key] = {**body, "kind": "Secret", "apiVersion": "v1"}
            kept[key]["metadata"].update(namespace=key[0], creationTimestamp=now())
            return 201, kept[key]
        if key not in kept:
            raise Refusal(404, f'secrets "{key[1]}" not found')
        if self.command == "DELETE":
            del kept[key]
            return 200, {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}
        return 200, kept[key]

    def _pod(self, space: str, name: str, part: str, query: dict[str, str], body: Json) -> tuple[int, Any]:
        cluster = self.server.cluster
        match self.command, name, part:
            case "POST", "", "":
                return 201, cluster.create(space, body, trial=query.get("dryRun") == "All")
            case "POST", _, "eviction":
                cluster.delete(space, name)
                return 201, {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}
            case "GET", "", "":
                return 200, {
                    "kind": "PodList",
                    "apiVersion": "v1",
                    "metadata": {},
                    "items": self._list(space, query),
                }
            case "GET", _, "":
                return 200, cluster.get(space, name)
            case "GET", _, "log":
                return 200, cluster.log(space, name, int(query.get("tailLines", 0)) or None)
            case "DELETE", _, "":
                grace = body.get("gracePeriodSeconds", query.get("gracePeriodSeconds"))
                return 200, cluster.delete(space, name, None if grace is None else int(grace))
        raise Refusal(405, "the server does not allow this method on the requested resource")

    def _list(self, space: str, query: dict[str, str]) -> list[Json]:
        wanted = dict(pair.split("=", 1) for pair in query.get("labelSelector", "").split(",") if pair)
        return [
            pod for (namespace, _), pod in self.server.cluster.pods.items()
            if namespace == space and wanted.items() <= (pod["metadata"].get("labels") or {}).items()
        ]  # fmt: skip


def _asked(method: str, path: str) -> tuple[str, str]:
    """The RBAC verb and resource of a call."""
    parts = path.removeprefix("/api/v1/").split("/")
    parts = parts[2:] if parts[0] == "namespaces" else parts  # pods, NAME, log
    return _VERBS.get(method) or ("get" if len(parts) > 1 else "list"), "/".join(parts[::2])


@contextmanager
def serve(folder: Path, isolated: bool, token: str = "loopback") -> Iterator[tuple[Cluster, Path]]:  # noqa: S107
    """A cluster that ends, with all its processes, on leaving; and its kubeconfig file."""
    folder.mkdir(parents=True, exist_ok=True)
    server = _Server(("127.0.0.1", 0), _Handler)
    server.cluster, server.token = Cluster(folder, isolated), token
    server.cluster.start()
    threading.Thread(target=server.serve_forever, args=[0.1], daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    (folder / "kubeconfig").write_text(json.dumps(kubeconfig({"loopback": url}, token)))
    try:
        yield server.cluster, folder / "kubeconfig"
    finally:
        server.cluster.close()
        server.shutdown()
        server.server_close()


def kubeconfig(urls: dict[str, str], token: str) -> Json:
    """One context for each of `urls`; the first is the current one."""
    return {
        "apiVersion": "v1", "kind": "Config", "current-context": next(iter(urls)),
        "clusters": [{"name": name, "cluster": {"server": url}} for name, url in urls.items()],
        "users": [{"name": "tester", "user": {"token": token}}],
        "contexts": [
            {"name": name, "context": {"cluster": name, "user": "tester", "namespace": "default"}}
            for name in urls
        ],
    }  # fmt: skip


def can_isolate(folder: Path) -> bool:
    """Whether this machine lets us run pods in namespaces of their own."""
    if os.geteuid() or not shutil.which("unshare"):
        return False
    podrun = Path(__file__).with_name("podrun.sh")
    tried = subprocess.run([podrun, folder / "trial", "trial", "", "true"], capture_output=True, timeout=20)
    return tried.returncode == 0


def main() -> None:
    """Serve until Ctrl-C, for a look by hand: python kube_server.py FOLDER."""
    import sys

    folder = Path(sys.argv[1]).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    with serve(folder, can_isolate(folder)) as (_, config):
        print(f"export KUBECONFIG={config}", flush=True)  # noqa: T201
        while True:
            time.sleep(3600)


if __name__ == "__main__":
    main()
