"""A Kubernetes cluster: worker pods that come and go with the work.

Does not know: what its workers are asked to do.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, JsonValue, TypeAdapter, model_validator

from parslfl_executors.fields import Count, Duration, FieldError, Keywords, Settings, Unusable, Whole
from parslfl_executors.kube_pod import HOME, Patience, Template, amount, marks

if TYPE_CHECKING:
    from parsl.executors.base import ParslExecutor

    from parslfl_executors.kube_api import Cluster

_QUANTITY = re.compile(r"\d+(\.\d+)?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?")
_CLAIM = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
#: Bytes of memory below which no Python starts.
_LEAST = 2**20
_LABEL = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")


def _quantity(value: object) -> object:
    """A number is as good as its text."""
    text = str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value
    if not isinstance(text, str) or not _QUANTITY.fullmatch(text):
        raise FieldError(f"expected an amount such as 500m, 2 or 4Gi, got {value!r}{_without_b(text)}")
    return text


def _without_b(text: object) -> str:
    """What to write instead of 4GB or 4GiB; "" where no such slip was made."""
    stem = text.removesuffix("B") if isinstance(text, str) else ""
    fitting = [one for one in (stem, f"{stem}i") if _QUANTITY.fullmatch(one)]
    return f" (write {' or '.join(fitting)})" if fitting else ""


def _memory(value: str) -> str:
    """A bare number is bytes: too few of them are a unit that was left out."""
    if amount(value) < _LEAST:
        raise FieldError(f"{value!r} is {amount(value):g} bytes: write a unit, as in 4Gi")
    return value


def _patch(value: object) -> object:
    return TypeAdapter(dict[str, JsonValue]).validate_python(value)


def _volumes(value: dict[str, str]) -> dict[str, str]:
    for name, path in value.items():
        if not _CLAIM.fullmatch(name):
            raise FieldError("a name here has small letters, digits and -, at most 63", name)
        if not path.startswith("/"):
            raise FieldError(f"expected an absolute path, got {path!r}", name)
    if len(set(value.values())) < len(value):
        raise FieldError("two of these are mounted at one path")
    return value


def _labels(value: dict[str, str]) -> dict[str, str]:
    for name, text in value.items():
        if not _LABEL.fullmatch(name.rpartition("/")[2]) or not (text == "" or _LABEL.fullmatch(text)):
            raise FieldError("a label has at most 63 letters, digits, - _ and .", name)
    return value


Quantity = Annotated[str, BeforeValidator(_quantity)]
Memory = Annotated[Quantity, AfterValidator(_memory)]
Patch = Annotated[dict[str, Any], BeforeValidator(_patch)]
Mounts = Annotated[dict[str, str], AfterValidator(_volumes)]


class Kubernetes(Settings):
    """Worker pods in one namespace of one cluster; several sites may name several clusters.

    `kubeconfig`, `context`: the file (without it KUBECONFIG, ~/.kube/config, or the cluster this
    process is a pod of) and the entry in it. `namespace`: without it, the context's.
    `image`: has Python as here, parslfl, and bash. `image_pull_policy`, `image_pull_secrets`.
    `workers_per_pod`: processes of a pod. `cores`, `memory`, `gpus` (as `gpu_resource`): of a pod,
    requested and at most. `init_blocks`, `min_blocks`, `max_blocks`: pods.
    `worker_init`: shell lines that run before the workers start.
    `address`: where pods reach this process (without it, this machine's own); `port`: there.
    `service_account`; `secrets`, `volumes`: names of Secrets and of persistent volume claims, each
    with the path it is mounted at. `labels`: more of them on every pod.
    `walltime`: a pod's life. `pending_timeout`: how long one may wait for its node.
    `max_idle`: how long one may have no task while others of the site work. `poll`:
    between two looks at the pods.
    `pod`, `container`: any field of a pod's spec and of its container, merged in last; lists are
    appended to. `parsl`: any keyword of HighThroughputExecutor.
    """

    kind: Literal["kubernetes"] = "kubernetes"
    kubeconfig: str | None = None
    context: str | None = None
    namespace: str | None = None
    image: Annotated[str, Field(min_length=1)]
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = None
    image_pull_secrets: tuple[str, ...] = ()
    workers_per_pod: Count = 1
    cores: Quantity = "1"
    memory: Memory = "2Gi"
    gpus: Whole = 0
    gpu_resource: str = "nvidia.com/gpu"
    init_blocks: Whole = 1
    min_blocks: Whole = 0
    max_blocks: Count = 1
    worker_init: str = ""
    address: str | None = None
    port: Count | None = None
    service_account: str | None = None
    secrets: Mounts = Field(default_factory=dict)
    volumes: Mounts = Field(default_factory=dict)
    labels: Annotated[dict[str, str], AfterValidator(_labels)] = Field(default_factory=dict)
    walltime: Duration | None = None
    pending_timeout: Duration = 600.0
    max_idle: Duration | None = None
    poll: Duration = 3.0
    pod: Patch = Field(default_factory=dict)
    container: Patch = Field(default_factory=dict)
    parsl: Keywords = Field(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.min_blocks <= self.init_blocks <= self.max_blocks:
            raise FieldError(
                f"expected from {self.min_blocks} (min_blocks) to {self.max_blocks} (max_blocks), "
                f"got {self.init_blocks}",
                "init_blocks",
            )
        if 0 < self.gpus < self.workers_per_pod:
            message = f"{self.workers_per_pod} workers for {self.gpus} GPUs, one each"
            raise FieldError(message, "workers_per_pod")
        if "provider" in self.parsl:
            raise FieldError("the pods are described by the fields beside `parsl`", "parsl", "provider")
        return self

    def workers_per_node(self) -> int:
        """Worker processes that run side by side in a pod."""
        return self.workers_per_pod

    def threads_per_worker(self) -> int:
        """CPU threads of one worker, at least 1."""
        return max(1, math.floor(amount(self.cores)) // self.workers_per_pod)

    def build(self, label: str, logs: Path) -> ParslExecutor:
        """A new Parsl executor called `label`; the run is known by the folder `logs`.

        Raises:
            Unusable: there is no client, no cluster is configured, or `port` is taken.
        """
        from parslfl_executors.kube_pool import PodExecutor
        from parslfl_executors.kube_provider import Pods
        from parslfl_executors.pool import is_free, is_own, own_address, worker_pool

        address = self.address or own_address()
        bound = address if is_own(address) else None
        if self.port and not is_free(bound or "", self.port):  # Parsl would wait for two minutes
            raise Unusable(f"port {self.port} cannot be listened on here: name a free one, or leave port out")
        places = {"{addresses}": address, "{logdir}": f'"{HOME}/logs"'}
        if self.parsl.get("encrypted", True):
            places["{cert_dir}"] = f'"{HOME}/certificates"'
        provider = Pods(
            self.cluster(),
            self.template(),
            marks(logs, label),
            init_blocks=self.init_blocks,
            min_blocks=self.min_blocks,
            max_blocks=self.max_blocks,
            patience=Patience(self.pending_timeout),
            poll=self.poll,
        )
        return worker_pool(
            label,
            provider,
            logs,
            address=bound,
            workers=self.workers_per_pod,
            accelerators=self.gpus or (),
            max_idle=self.max_idle,
            raw={"worker_port": self.port, **self.parsl},
            places=places,
            make=PodExecutor,
        )

    def cluster(self) -> Cluster:
        """The API of this site's cluster.

        Raises:
            Unusable: as `build`.
        """
        from parslfl_executors.kube_api import connect

        return connect(self.kubeconfig, self.context, self.namespace)

    def brief(self, seconds: float) -> Self:
        """The same site with one pod, for a look of at most `seconds`."""
        return self.model_copy(
            update={
                "min_blocks": 0,
                "init_blocks": 1,
                "max_blocks": 1,
                "walltime": min(self.walltime or seconds, seconds),
            }
        )

    def left(self, label: str, logs: Path) -> list[str]:
        """Pods of site `label` of the run with the folder `logs` that are not on their way out.

        Raises:
            Unusable: as `build`, or the server does not answer.
        """
        from parslfl_executors.kube_api import RefusedError, alive

        try:
            return [f"pod {name}" for name in alive(self.cluster().pods(marks(logs, label)))]
        except RefusedError as error:
            raise Unusable(f"{error}; try again" if error.passing else str(error)) from error

    def clean(self, label: str, logs: Path) -> list[str]:
        """Delete what the run with the folder `logs` left of site `label`; what could not be deleted.

        Raises:
            Unusable: as `build`.
        """
        from parslfl_executors.kube_api import sweep

        return sweep(self.cluster(), marks(logs, label))

    def template(self) -> Template:
        """What all pods of this site have in common."""
        from parslfl_executors.pool import bound_threads

        limits = {"cpu": self.cores, "memory": self.memory}
        return Template(
            image=self.image,
            pull_policy=self.image_pull_policy,
            script=bound_threads(self.threads_per_worker()) + self.worker_init,
            limits={**limits, **({self.gpu_resource: str(self.gpus)} if self.gpus else {})},
            service_account=self.service_account,
            pull_secrets=self.image_pull_secrets,
            secrets=self.secrets,
            volumes=self.volumes,
            walltime=self.walltime,
            labels=self.labels,
            pod=self.pod,
            container=self.container,
        )
