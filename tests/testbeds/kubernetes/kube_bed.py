"""A Kubernetes cluster for tests: the loopback one, or that of PARSLFL_TEST_KUBECONFIG.

A real cluster also needs PARSLFL_TEST_IMAGE (with this version of parslfl), and may need
PARSLFL_TEST_NAMESPACE and PARSLFL_TEST_ADDRESS (where its pods reach this machine).

Does not know: what is tested on it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from kube_cluster import Cluster
from kube_server import can_isolate, serve

from parslfl_executors.kubernetes import Kubernetes

ROOT = Path(__file__).parents[3]
#: Workers of tests import from here what the driver does.
IMPORTS = os.pathsep.join(map(str, (ROOT, ROOT / "executors", ROOT / "tests/workers")))


#: Of every pod of the loopback cluster, which ignores it; no registry is there, and none outside is asked.
IMAGE = "localhost:9/parslfl:test"


@dataclass(frozen=True)
class Bed:
    """Where tests find a cluster.

    `kube`: its levers, and `shared`, a folder that is the same for pods: a real one has neither.
    """

    fields: dict[str, Any]
    shared: Path | None = None
    kube: Cluster | None = None

    def settings(self, **changes: Any) -> Kubernetes:
        """A site's executor on this cluster, one small pod unless said otherwise."""
        return Kubernetes.model_validate({**self.fields, **changes})

    def levers(self) -> Cluster:
        if self.kube is None:
            pytest.skip("a real cluster has no lever for this")
        return self.kube


def real(kubeconfig: str) -> Bed:
    """The cluster of a kubeconfig file."""
    if "PARSLFL_TEST_IMAGE" not in os.environ:
        pytest.fail("PARSLFL_TEST_KUBECONFIG is set, so PARSLFL_TEST_IMAGE must name an image")
    return Bed({
        "kubeconfig": kubeconfig, "image": os.environ["PARSLFL_TEST_IMAGE"], "cores": "500m",
        "namespace": os.environ.get("PARSLFL_TEST_NAMESPACE"), "memory": "1Gi", "poll": 1,
        "address": os.environ.get("PARSLFL_TEST_ADDRESS"),
    })  # fmt: skip


@contextmanager
def loopback(folder: Path, isolated: bool | None = None) -> Iterator[Bed]:
    """A cluster on this machine; pods have namespaces of their own where that is allowed."""
    with serve(folder, can_isolate(folder) if isolated is None else isolated) as (kube, config):
        python = f"export PATH={Path(sys.executable).parent}:$PATH PYTHONPATH={IMPORTS}"
        shared = folder / "claims/shared"
        shared.mkdir(parents=True)
        fields = {
            "kubeconfig": str(config), "image": IMAGE, "address": "127.0.0.1", "cores": 1,
            "memory": "1Gi", "worker_init": python, "poll": 0.5, "volumes": {"shared": str(shared)},
        }  # fmt: skip
        yield Bed(fields, shared, kube)
