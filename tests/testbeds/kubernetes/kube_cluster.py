"""A cluster on loopback: keeps pods as the API server does, and runs them as local processes.

As root each pod has namespaces of its own (podrun.sh), else it is plain processes that carry a
mark. Images are ignored, but for those that start with `bad/`, which are never pulled.

Does not know: HTTP.
"""

from __future__ import annotations

import base64
import contextlib
import copy
import datetime as dt
import os
import shlex
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from kube_rules import Json, Refusal, amount, check

#: Set in every process of a pod: its uid.
MARK = "PARSLFL_LOOPBACK_POD"
_PODRUN = Path(__file__).with_name("podrun.sh")
_TICK = 0.05
#: Seconds between a container's end and the end of its pod's object.
_FAREWELL = 0.3

Key = tuple[str, str]


@dataclass
class Running:
    """A pod's container on this machine."""

    process: subprocess.Popen[bytes]
    uid: str
    ends: float | None = None  # the walltime's end
    kill_at: float | None = None
    gone_at: float | None = None
    killed: bool = False


@dataclass
class Fault:
    """The next `times` calls of `verb` on paths that contain `path` are answered by `code`."""

    code: int
    times: int = 1
    verb: str = ""
    path: str = ""
    message: str = "injected"
    retry_after: int = 0


@dataclass
class Cluster:
    """The store, the scheduler and the only kubelet. Levers are plain methods and fields."""

    folder: Path
    isolated: bool
    nodes: dict[str, dict[str, str]] = field(
        default_factory=lambda: {"node-1": {"cpu": "8", "memory": "16Gi"}}
    )
    at: str = "127.0.0.1"  # where nodes say that they are
    architecture: str = "amd64"
    namespaces: frozenset[str] = frozenset({"default"})
    accounts: frozenset[str] = frozenset({"default"})
    quota: int | None = None  # most pods of a namespace
    hold: bool = False  # no node takes a new pod
    denied: frozenset[tuple[str, str]] = frozenset()  # (verb, resource) that RBAC forbids
    pods: dict[Key, Json] = field(default_factory=dict)
    secrets: dict[Key, Json] = field(default_factory=dict)
    claims: dict[str, Json] = field(default_factory=lambda: {"shared": bound("ReadWriteMany")})
    running: dict[Key, Running] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    calls: list[tuple[str, str, int]] = field(default_factory=list)
    created: list[Json] = field(default_factory=list)  # bodies as they came
    lock: threading.RLock = field(default_factory=threading.RLock)
    stopped: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        threading.Thread(target=self._live, daemon=True).start()

    def close(self) -> None:
        self.stopped.set()
        with self.lock:
            for key in list(self.running):
                self._kill(key)

    # What the API does ------------------------------------------------------------------------

    def create(self, namespace: str, pod: Json, *, trial: bool = False) -> Json:
        with self.lock:
            self._admit(namespace, pod)
            self.created += [] if trial else [copy.deepcopy(pod)]
            check(namespace, pod)
            name, spec = pod["metadata"]["name"], pod["spec"]
            account = spec.setdefault("serviceAccountName", "default")
            if account not in self.accounts:
                raise Refusal(403, f'pods "{name}" is forbidden: serviceaccount "{account}" not found')
            if (namespace, name) in self.pods:
                raise Refusal(409, f'pods "{name}" already exists')
            spec.setdefault("restartPolicy", "Always")
            spec.setdefault("terminationGracePeriodSeconds", 30)
            about = {"namespace": namespace, "uid": str(uuid.uuid4()), "creationTimestamp": now()}
            pod["metadata"].update(about)
            pod.update(kind="Pod", apiVersion="v1", status={"phase": "Pending", "conditions": []})
            if not trial:
                self.pods[namespace, name] = pod
            return pod

    def listed(self) -> list[Json]:
        """Every node, as `list_node` shows it."""
        about = {
            "conditions": [{"type": "Ready", "status": "True"}],
            "addresses": [
                {"type": "Hostname", "address": "node"},
                {"type": "InternalIP", "address": self.at},
            ],
            "nodeInfo": {"operatingSystem": "linux", "architecture": self.architecture},
        }
        cordon = {"unschedulable": True} if self.hold else {}
        return [
            {"metadata": {"name": name}, "spec": cordon, "status": {**about, "allocatable": room}}
            for name, room in self.nodes.items()
        ]

    def claim(self, name: str) -> Json:
        """A claim for a volume: pods get theirs in any case."""
        if name not in self.claims:
            raise Refusal(404, f'persistentvolumeclaims "{name}" not found')
        return self.claims[name]

    def _admit(self, namespace: str, pod: Json) -> None:
        if namespace not in self.namespaces:
            raise Refusal(404, f'namespaces "{namespace}" not found')
        used = sum(key[0] == namespace and not _over(one) for key, one in self.pods.items())
        if self.quota is not None and used >= self.quota:
            name = pod["metadata"].get("name")
            raise Refusal(
                403,
                f'pods "{name}" is forbidden: exceeded quota: pods, requested: pods=1, '
                f"used: pods={used}, limited: pods={self.quota}",
            )

    def get(self, namespace: str, name: str) -> Json:
        if (namespace, name) not in self.pods:
            raise Refusal(404, f'pods "{name}" not found')
        return self.pods[namespace, name]

    def delete(self, namespace: str, name: str, grace: int | None = None) -> Json:
        with self.lock:
            pod, key = self.get(namespace, name), (namespace, name)
            grace = pod["spec"]["terminationGracePeriodSeconds"] if grace is None else grace
            if grace == 0 or key not in self.running or _over(pod):
                return self.vanish(name, namespace)
            if not pod["metadata"].get("deletionTimestamp"):
                pod["metadata"].update(deletionTimestamp=now(), deletionGracePeriodSeconds=grace)
                self.running[key].kill_at = time.monotonic() + grace
                self._terminate(key)
            return pod

    def log(self, namespace: str, name: str, lines: int | None) -> bytes:
        self.get(namespace, name)
        path = self._home((namespace, name)) / "log"
        if not path.exists():
            raise Refusal(400, f'container in pod "{name}" is waiting to start: ContainerCreating')
        written = path.read_bytes()
        return b"".join(written.splitlines(keepends=True)[-lines:]) if lines else written

    # Levers -----------------------------------------------------------------------------------

    def evict(self, name: str, namespace: str = "default") -> None:
        """The node ran out of memory: the kubelet ends the pod, whose object stays."""
        with self.lock:
            self._kill((namespace, name))
            said = {"reason": "Evicted", "message": "The node was low on resource: memory."}
            self.get(namespace, name)["status"].update(phase="Failed", **said)

    def vanish(self, name: str, namespace: str = "default") -> Json:
        """The node is gone, and the pod with it, at once."""
        with self.lock:
            self.get(namespace, name)
            self._kill((namespace, name))
            self.running.pop((namespace, name), None)
            return self.pods.pop((namespace, name))

    def oom(self, name: str, namespace: str = "default") -> None:
        """The kernel kills the container."""
        with self.lock:
            self._kill((namespace, name))

    def fail(self, code: int, times: int = 1, **more: Any) -> None:
        with self.lock:
            self.faults.append(Fault(code, times, **more))

    def calm(self) -> None:
        """All levers back."""
        with self.lock:
            self.faults.clear()
            self.hold, self.quota, self.denied = False, None, frozenset()
            self.at, self.architecture = "127.0.0.1", "amd64"
            self.claims = {"shared": bound("ReadWriteMany")}

    def names(self) -> list[str]:
        """Pods that are not on their way out."""
        with self.lock:
            pods = self.pods.values()
            return [p["metadata"]["name"] for p in pods if not p["metadata"].get("deletionTimestamp")]

    def processes(self) -> list[psutil.Process]:
        """What still runs of any pod that this cluster ever had."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if self._ours(process) and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    # The scheduler and the kubelet ------------------------------------------------------------

    def _live(self) -> None:
        while not self.stopped.wait(_TICK):
            with self.lock:
                for key, pod in list(self.pods.items()):
                    self._sync(key, pod)

    def _sync(self, key: Key, pod: Json) -> None:
        here = self.running.get(key)
        if here is None:
            if pod["status"]["phase"] == "Pending" and self._scheduled(pod):
                self._begin(key, pod)
            return
        moment = time.monotonic()
        if here.process.poll() is None:
            if here.ends and moment > here.ends:
                self._kill(key)
                said = "Pod was active on the node longer than the specified deadline"
                pod["status"].update(phase="Failed", reason="DeadlineExceeded", message=said)
            elif here.kill_at and moment > here.kill_at:
                self._kill(key)
        elif here.gone_at is None:
            here.gone_at = moment + _FAREWELL
            self._kill(key)  # what is left of the container
            self._finish(pod, here)
        elif moment > here.gone_at and pod["metadata"].get("deletionTimestamp"):
            self.vanish(key[1], key[0])

    def _scheduled(self, pod: Json) -> bool:
        node = None if self.hold else next((n for n in self.nodes if self._fits(pod, n)), None)
        pod["spec"]["nodeName"] = node
        condition = {"type": "PodScheduled", "status": "True" if node else "False"}
        if not node:
            said = f"0/{len(self.nodes)} nodes are available: {len(self.nodes)} Insufficient resources."
            condition.update(reason="Unschedulable", message=said)
        pod["status"]["conditions"] = [condition]
        return node is not None

    def _fits(self, pod: Json, node: str) -> bool:
        there = [p for p in self.pods.values() if p["spec"].get("nodeName") == node and not _over(p)]
        used = [item for p in there if p is not pod for item in _requests(p)]
        return all(
            sum(amount(v) for name, v in used if name == wanted) + amount(value)
            <= amount(self.nodes[node].get(wanted, 0))
            for wanted, value in _requests(pod)
        )

    def _begin(self, key: Key, pod: Json) -> None:
        container = pod["spec"]["containers"][0]
        if container["image"].startswith("bad/"):
            said = {"reason": "ImagePullBackOff", "message": f'Back-off pulling image "{container["image"]}"'}
            _tell(pod, {"waiting": said})
            return
        home = self._home(key)
        home.mkdir(parents=True, exist_ok=True)
        mounts = self._mounts(key, pod)
        if mounts is None:
            return
        command = [*container.get("command", []), *container.get("args", [])]
        if self.isolated:
            pairs = ",".join(f"{there}:{path}" for path, there in mounts.items())
            command = [str(_PODRUN), str(home / "box"), key[1], pairs, *command]
        else:
            command = [_replaced(word, mounts) for word in command]
        with (home / "log").open("ab") as log:
            process = subprocess.Popen(
                command, cwd=home, env=self._environment(pod, home), stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        deadline = pod["spec"].get("activeDeadlineSeconds")
        ends = time.monotonic() + deadline if deadline else None
        self.running[key] = Running(process, pod["metadata"]["uid"], ends)
        pod["status"].update(phase="Running", podIP="127.0.0.1", startTime=now())
        _tell(pod, {"running": {"startedAt": now()}})

    def _environment(self, pod: Json, home: Path) -> dict[str, str]:
        plain = {key: value for key, value in os.environ.items() if key != "KUBECONFIG"}
        given = {e["name"]: e.get("value", "") for e in pod["spec"]["containers"][0].get("env") or []}
        own = {} if self.isolated else {"TMPDIR": str(home)}
        return {**plain, **given, **own, MARK: f"{self.folder}:{pod['metadata']['uid']}"}

    def _mounts(self, key: Key, pod: Json) -> dict[str, Path] | None:
        """Path in the container to folder here; None while a Secret is missing."""
        folders = {}
        for volume in pod["spec"].get("volumes") or []:
            claim = (volume.get("persistentVolumeClaim") or {}).get("claimName")
            folder = self.folder / "claims" / claim if claim else self._home(key) / f"volume-{volume['name']}"
            folder.mkdir(parents=True, exist_ok=True)
            folders[volume["name"]] = folder
            if "secret" in volume:
                secret = self.secrets.get((key[0], volume["secret"]["secretName"]))
                if secret is None:
                    return None
                for name, text in secret["data"].items():
                    (folder / name).write_bytes(base64.b64decode(text))
        mounts = pod["spec"]["containers"][0].get("volumeMounts") or []
        return {mount["mountPath"]: folders[mount["name"]] for mount in mounts}

    def _finish(self, pod: Json, here: Running) -> None:
        if _over(pod):
            return
        code = here.process.returncode
        code = 137 if here.killed else code if code >= 0 else 128 - code
        pod["status"]["phase"] = "Failed" if code else "Succeeded"
        reason = "OOMKilled" if here.killed else "Error" if code else "Completed"
        _tell(pod, {"terminated": {"exitCode": code, "reason": reason, "finishedAt": now()}})

    def _terminate(self, key: Key) -> None:
        """Ask the container's first process to stop; the kernel shields it unless it listens."""
        with contextlib.suppress(psutil.Error):
            outer = psutil.Process(self.running[key].process.pid)
            for first in outer.children() if self.isolated else []:
                first.send_signal(signal.SIGTERM)

    def _kill(self, key: Key) -> None:
        here = self.running.get(key)
        if here is None:
            return
        here.killed = here.killed or here.process.poll() is None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(here.process.pid, signal.SIGKILL)
        for process in psutil.process_iter() if not self.isolated else ():
            with contextlib.suppress(psutil.Error):
                if self._ours(process, here.uid):
                    process.kill()
        here.process.wait()

    def _ours(self, process: psutil.Process, uid: str = "") -> bool:
        return process.environ().get(MARK, "").startswith(f"{self.folder}:{uid}")

    def _home(self, key: Key) -> Path:
        return self.folder.joinpath("pods", *key)


def bound(*modes: str, phase: str = "Bound") -> Json:
    """A claim, as the API shows it."""
    status = {"phase": phase, "accessModes": list(modes), "capacity": {"storage": "1Gi"}}
    return {
        "kind": "PersistentVolumeClaim",
        "apiVersion": "v1",
        "status": status if modes else {"phase": phase},
    }


def now() -> str:
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _over(pod: Json) -> bool:
    return pod["status"]["phase"] in {"Succeeded", "Failed"}


def _requests(pod: Json) -> Iterator[tuple[str, str]]:
    for container in pod["spec"]["containers"]:
        yield from container["resources"]["requests"].items()


def _tell(pod: Json, state: Json) -> None:
    container = pod["spec"]["containers"][0]
    about = {"name": container["name"], "image": container["image"], "imageID": "", "restartCount": 0}
    pod["status"]["containerStatuses"] = [{**about, "ready": "running" in state, "state": state}]


def _replaced(word: str, mounts: dict[str, Path]) -> str:
    """Without namespaces nothing can be mounted: the command is told the folders themselves."""
    for path, folder in mounts.items():
        word = word.replace(path, shlex.quote(str(folder)))
    return word
