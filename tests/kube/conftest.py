"""A Kubernetes cluster for tests: the loopback one, or that of PARSLFL_TEST_KUBECONFIG.

A real cluster also needs PARSLFL_TEST_IMAGE (with this version of parslfl), and may need
PARSLFL_TEST_NAMESPACE and PARSLFL_TEST_ADDRESS (where its pods reach this machine).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from kube_cluster import Cluster
from kube_server import can_isolate, serve
from looking import wait_until

from parslfl_executors.kubernetes import Kubernetes

ROOT = Path(__file__).parents[2]
#: Workers of tests import from here what the driver does.
IMPORTS = os.pathsep.join(map(str, (ROOT, ROOT / "executors", ROOT / "tests/workers")))


@dataclass(frozen=True)
class Bed:
    """Where tests find a cluster; `kube`: its levers, which a real one has not."""

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


@pytest.fixture(scope="session")
def session_bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    if real := os.environ.get("PARSLFL_TEST_KUBECONFIG"):
        if "PARSLFL_TEST_IMAGE" not in os.environ:
            pytest.fail("PARSLFL_TEST_KUBECONFIG is set, so PARSLFL_TEST_IMAGE must name an image")
        yield Bed({
            "kubeconfig": real, "image": os.environ["PARSLFL_TEST_IMAGE"], "cores": "500m", "memory": "1Gi",
            "namespace": os.environ.get("PARSLFL_TEST_NAMESPACE"),
            "address": os.environ.get("PARSLFL_TEST_ADDRESS"), "poll": 1,
        })  # fmt: skip
        return
    folder = tmp_path_factory.mktemp("kube")
    with serve(folder, can_isolate(folder)) as (kube, config):
        python = f"export PATH={Path(sys.executable).parent}:$PATH PYTHONPATH={IMPORTS}"
        shared = folder / "claims/shared"
        fields = {
            "kubeconfig": str(config), "image": "parslfl:test", "address": "127.0.0.1", "cores": 1,
            "memory": "1Gi", "worker_init": python, "poll": 0.5, "volumes": {"shared": str(shared)},
        }  # fmt: skip
        yield Bed(fields, shared, kube)
        assert wait_until(lambda: not kube.processes(), 5)


@pytest.fixture
def bed(session_bed: Bed) -> Iterator[Bed]:
    """The cluster, with all levers back afterwards, and nothing left in it."""
    yield session_bed
    if session_bed.kube:
        kube = session_bed.kube
        kube.calm()
        assert wait_until(lambda: not kube.pods, 10), list(kube.pods)
        assert kube.secrets == {}
