"""The session's Kubernetes cluster, left as it was found by every test."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from kube_bed import Bed, loopback, real
from looking import wait_until


@pytest.fixture(scope="session")
def session_bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    if config := os.environ.get("PARSLFL_TEST_KUBECONFIG"):
        yield real(config)
        return
    with loopback(tmp_path_factory.mktemp("kube")) as bed:
        yield bed


@pytest.fixture
def bed(session_bed: Bed) -> Iterator[Bed]:
    """The cluster, with all levers back afterwards, and nothing left in it."""
    yield session_bed
    if session_bed.kube:
        kube = session_bed.kube
        kube.calm()
        assert wait_until(lambda: not kube.pods, 10), list(kube.pods)
        assert kube.secrets == {}
        assert wait_until(lambda: not kube.processes(), 5), kube.processes()
        kube.calls.clear()
        kube.created.clear()
