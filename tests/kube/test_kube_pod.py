"""The pod that is sent, and what its state means: plain data, worked by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from parslfl_executors.kube_pod import Patience, Template, body, judge, marks, merge, secret_name

LABELS = {"parslfl/site": "cloud"}
PATIENCE = Patience(pending=60, image=20)


def made(**changes: Any) -> dict[str, Any]:
    return body("p", Template("img:1", **changes), LABELS, "work", "certs")


def pod(phase: str, state: dict[str, Any] | None = None, **status: Any) -> dict[str, Any]:
    containers = [{"name": "sidecar", "state": {}}, {"name": "worker", "state": state or {}}]
    return {"metadata": {"name": "p"}, "status": {"phase": phase, "containerStatuses": containers, **status}}


def test_the_least_pod() -> None:
    spec = made()["spec"]
    (container,) = spec["containers"]
    assert (spec["restartPolicy"], spec["terminationGracePeriodSeconds"]) == ("Never", 5)
    assert container["args"][1].splitlines()[-1] == "exec work"
    assert spec["volumes"] == [{"name": "parslfl-certificates", "secret": {"secretName": "certs"}}]
    assert "imagePullPolicy" not in container
    assert "activeDeadlineSeconds" not in spec


def test_every_named_field_has_its_place() -> None:
    whole = made(
        pull_policy="Always", script="module load x", limits={"cpu": "2", "nvidia.com/gpu": "1"},
        service_account="me", pull_secrets=("reg",), secrets={"key": "/key"}, volumes={"claim": "/data"},
        walltime=90.0, labels={"team": "a"},
    )  # fmt: skip
    spec, (container,) = whole["spec"], whole["spec"]["containers"]
    assert whole["metadata"] == {"name": "p", "labels": {"team": "a", "parslfl/site": "cloud"}}
    assert container["resources"]["limits"] == container["resources"]["requests"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert container["volumeMounts"][:2] == [
        {"name": "claim", "mountPath": "/data"},
        {"name": "key", "mountPath": "/key", "readOnly": True},
    ]
    assert spec["volumes"][0] == {"name": "claim", "persistentVolumeClaim": {"claimName": "claim"}}
    assert (spec["serviceAccountName"], spec["activeDeadlineSeconds"]) == ("me", 90)
    assert (spec["imagePullSecrets"], container["imagePullPolicy"]) == ([{"name": "reg"}], "Always")
    assert "module load x\nexec work" in container["args"][1]


def test_a_patch_wins_and_lists_are_joined() -> None:
    whole = made(
        pod={"tolerations": [{"key": "spot"}], "restartPolicy": "OnFailure", "volumes": [{"name": "shm"}]},
        container={"securityContext": {"runAsUser": 1000}, "volumeMounts": [{"name": "shm"}]},
    )["spec"]
    assert (whole["tolerations"], whole["restartPolicy"]) == ([{"key": "spot"}], "OnFailure")
    assert [v["name"] for v in whole["volumes"]] == ["parslfl-certificates", "shm"]
    assert len(whole["containers"][0]["volumeMounts"]) == 2
    assert whole["containers"][0]["securityContext"] == {"runAsUser": 1000}


def test_merge_leaves_both_alone() -> None:
    base, patch = {"a": {"b": [1]}, "c": 1}, {"a": {"b": [2], "d": 3}}
    assert merge(base, patch) == {"a": {"b": [1, 2], "d": 3}, "c": 1}
    assert (base, patch) == ({"a": {"b": [1]}, "c": 1}, {"a": {"b": [2], "d": 3}})


UNMET = [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}]
PULL = {"waiting": {"reason": "ErrImagePull", "message": "not found"}}
CASES = [
    (pod("Pending"), 1, "pending", ""),
    (pod("Pending", conditions=UNMET), 1, "pending", "Unschedulable: 0/3 nodes"),
    (pod("Pending", conditions=UNMET), 61, "stuck", "pending for 61 s: Unschedulable: 0/3 nodes"),
    (pod("Pending", PULL), 10, "pending", "ErrImagePull: not found"),
    (pod("Pending", PULL), 21, "stuck", "ErrImagePull: not found"),
    (pod("Running", {"running": {}}), 999, "running", ""),
    (pod("Succeeded", {"terminated": {"exitCode": 0}}), 5, "succeeded", "its workers left by themselves"),
    (pod("Failed", {"terminated": {"exitCode": 7, "reason": "Error"}}), 5, "failed", "Error, exit code 7"),
    (pod("Failed", reason="Evicted", message="low on memory"), 5, "evicted", "Evicted: low on memory"),
    (pod("Failed", reason="DeadlineExceeded"), 5, "failed", "DeadlineExceeded"),
    (None, 5, "deleted", "deleted (by hand, a drain or a preemption, or with its node)"),
]


@pytest.mark.parametrize(("seen", "age", "state", "why"), CASES)
def test_what_a_state_means(seen: dict[str, Any] | None, age: float, state: str, why: str) -> None:
    verdict = judge(seen, age, age, PATIENCE)
    assert (verdict.state, verdict.why) == (state, why)
    assert verdict.over == (state not in {"pending", "running"})


def test_a_pod_on_its_way_out_is_over() -> None:
    leaving = pod("Running", {"running": {}})
    leaving["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert judge(leaving, 1, 0, PATIENCE).state == "deleted"


def test_an_image_is_waited_for_from_its_own_trouble_on() -> None:
    assert judge(pod("Pending", PULL), 50, 5, PATIENCE).state == "pending"


def test_a_run_is_known_by_its_folder(tmp_path: Path) -> None:
    one, other = (marks(tmp_path / run / "parsl", "My_Site") for run in ("Run 1", "run 2"))
    assert one == marks(tmp_path / "Run 1/parsl", "My_Site")
    assert one["parslfl/run"].startswith("run-1-")
    assert one["parslfl/run"] != other["parslfl/run"]
    assert secret_name(one) == f"parslfl-{one['parslfl/run']}-{one['parslfl/site']}"


def test_sites_whose_names_differ_in_capitals_stay_apart() -> None:
    names = [
        marks(Path("/run/parsl"), site)["parslfl/site"] for site in ("cloud", "Cloud", "cloud_", "CLOUD")
    ]
    assert names[0] == "cloud"
    assert len(set(names)) == 4
    assert all(name.startswith("cloud") and name == name.lower() for name in names)
