"""Blocks as pods, without an executor: each way a pod may end, and each refusal of the API."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kube_bed import Bed, loopback
from looking import wait_until
from parsl.jobs.states import JobState, JobStatus

from parslfl_executors.kube_pod import Patience, marks
from parslfl_executors.kube_provider import Pods

Make = Callable[..., Pods]
LOGS = Path("/nowhere/run/parsl")


@pytest.fixture
def pods(bed: Bed) -> Iterator[Make]:
    """Makes a provider on the test's cluster; all it made is gone afterwards."""
    opened = []

    def make(patience: Patience = Patience(), site: str = "cloud", **changes: Any) -> Pods:  # noqa: B008
        quick = {"terminationGracePeriodSeconds": 1, **changes.pop("pod", {})}
        settings = bed.settings(worker_init="", pod=quick, **changes)
        provider = Pods(settings.cluster(), settings.template(), marks(LOGS, site), patience=patience)
        opened.append(provider)
        return provider

    yield make
    for provider in opened:
        provider.close()


def look(provider: Pods, job: str) -> JobStatus:
    (status,) = provider.status([job])
    return status


def until(provider: Pods, job: str, state: JobState, seconds: float = 10) -> str:
    """Wait for `state`; the message that came with it."""
    assert wait_until(lambda: look(provider, job).state == state, seconds), look(provider, job)
    return look(provider, job).message or ""


def test_a_pod_runs_and_is_scaled_in(bed: Bed, pods: Make) -> None:
    provider = pods()
    job = provider.submit("sleep 60", 1, "parsl.cloud.block-0")
    until(provider, job, JobState.RUNNING)
    assert provider.explain(job) == ""
    assert provider.began(job) == pytest.approx(time.time(), abs=30)
    assert list(provider.cluster.pods(provider.labels)) == [job]
    assert provider.cancel([job]) == [True]
    assert look(provider, job).state == JobState.CANCELLED
    assert provider.explain(job) == f"pod {job}: scaled in"


def test_a_pod_that_ends_by_itself(pods: Make) -> None:
    provider = pods()
    job = provider.submit("true", 1, "b-0")
    assert "its workers left by themselves" in until(provider, job, JobState.TIMEOUT)
    assert provider.cluster.pods(provider.labels) == {}


def test_a_crash_is_told_with_its_last_words(pods: Make) -> None:
    provider = pods()
    job = provider.submit("bash -c 'echo no parsl here; exit 7'", 1, "b-0")
    said = until(provider, job, JobState.TIMEOUT)
    assert said == f"pod {job}: Error, exit code 7; it said: no parsl here"
    assert look(provider, job).exit_code == 7


def test_a_deleted_pod(bed: Bed, pods: Make) -> None:
    provider = pods()
    job = provider.submit("sleep 60", 1, "b-0")
    until(provider, job, JobState.RUNNING)
    provider.cluster.delete_pod(job)
    assert f"pod {job}: being deleted" in until(provider, job, JobState.COMPLETED)


def test_a_node_that_vanishes(bed: Bed, pods: Make) -> None:
    kube, provider = bed.levers(), pods()
    job = provider.submit("sleep 60", 1, "b-0")
    until(provider, job, JobState.RUNNING)
    kube.vanish(job)
    assert "or with its node" in until(provider, job, JobState.COMPLETED)


def test_an_eviction(bed: Bed, pods: Make) -> None:
    kube, provider = bed.levers(), pods()
    job = provider.submit("sleep 60", 1, "b-0")
    until(provider, job, JobState.RUNNING)
    kube.evict(job)
    assert "Evicted: The node was low on resource: memory." in until(provider, job, JobState.TIMEOUT)


def test_out_of_memory(bed: Bed, pods: Make) -> None:
    kube, provider = bed.levers(), pods()
    job = provider.submit("sleep 60", 1, "b-0")
    until(provider, job, JobState.RUNNING)
    kube.oom(job)
    assert "OOMKilled, exit code 137" in until(provider, job, JobState.TIMEOUT)


def test_walltime(pods: Make) -> None:
    provider = pods(walltime=1)
    job = provider.submit("sleep 60", 1, "b-0")
    assert "DeadlineExceeded" in until(provider, job, JobState.TIMEOUT, 30)


def test_a_bad_image(bed: Bed, pods: Make) -> None:
    provider = pods(Patience(image=1), image="bad/image:1" if bed.kube else "invalid.invalid/none:1")
    job = provider.submit("sleep 60", 1, "b-0")
    assert "bad/image:1" in until(provider, job, JobState.FAILED, 60) or not bed.kube
    assert wait_until(lambda: provider.cluster.pods(provider.labels) == {}, 10)


def test_no_node_has_that_much(pods: Make) -> None:
    provider = pods(Patience(pending=1), cores=5000)
    job = provider.submit("sleep 60", 1, "b-0")
    assert look(provider, job).state == JobState.PENDING
    said = until(provider, job, JobState.FAILED)
    assert "pending for 1 s: Unschedulable: 0/" in said


def test_a_held_pod_runs_once_it_may(bed: Bed, pods: Make) -> None:
    kube, provider = bed.levers(), pods()
    kube.hold = True
    job = provider.submit("sleep 60", 1, "b-0")
    time.sleep(0.3)
    assert "Unschedulable" in (look(provider, job).message or "")
    kube.hold = False
    until(provider, job, JobState.RUNNING)


@pytest.mark.parametrize("code", [429, 503])
def test_a_burst_of_errors_is_ridden_out(bed: Bed, pods: Make, code: int) -> None:
    kube, provider = bed.levers(), pods()
    kube.fail(code, times=2, retry_after=1 if code == 429 else 0)
    job = provider.submit("sleep 60", 1, "b-0")
    assert f"not made yet: HTTP {code}: injected" in (look(provider, job).message or "")
    until(provider, job, JobState.RUNNING, 20)
    kube.fail(code, times=2, verb="GET")
    assert look(provider, job).state == JobState.RUNNING
    kube.fail(code, times=1, verb="DELETE")
    assert provider.cancel([job]) == [True]
    look(provider, job)  # a second look deletes it
    assert job not in kube.names()
    (trouble,) = provider.troubles()
    assert re.fullmatch(
        rf"the API server: HTTP {code}: injected \(4 times within \d+\.\d s; asked again\)", trouble.why
    )
    assert provider.troubles() == ()


def test_a_lost_answer_makes_no_second_pod(bed: Bed, pods: Make) -> None:
    kube, provider = bed.levers(), pods()
    job = provider.submit("sleep 60", 1, "b-0")
    provider.resources[job].made = None  # as after a timeout
    assert wait_until(lambda: look(provider, job).state == JobState.RUNNING, 5)
    assert [call[2] for call in kube.calls].count(409) == 1
    assert kube.names() == [job]


def test_a_full_quota_is_waited_for_without_a_storm(bed: Bed, pods: Make) -> None:
    kube, provider = bed.levers(), pods(Patience(pending=5))
    kube.quota = 0
    job = provider.submit("sleep 60", 1, "b-0")
    wait_until(lambda: look(provider, job).state != JobState.PENDING, 3)
    assert "exceeded quota" in (look(provider, job).message or "")
    assert sum(call[2] == 403 for call in kube.calls) <= 4
    kube.quota = None
    until(provider, job, JobState.RUNNING)


def test_a_quota_that_never_empties(bed: Bed, pods: Make) -> None:
    kube, provider = bed.levers(), pods(Patience(pending=1))
    kube.quota = 0
    job = provider.submit("sleep 60", 1, "b-0")
    assert "refused: HTTP 403" in until(provider, job, JobState.FAILED)


REFUSED = [
    ({"namespace": "no-such-namespace"}, 404),
    ({"service_account": "no-such-account"}, 403),
    ({"container": {"resources": {"requests": {"nvidia.com/gpu": "1"}}}}, 422),
]


@pytest.mark.parametrize(("changes", "code"), REFUSED)
def test_what_waiting_does_not_cure_fails_at_once(pods: Make, changes: dict[str, Any], code: int) -> None:
    provider = pods(**changes)
    job = provider.submit("sleep 60", 1, "b-0")
    status = look(provider, job)
    assert (status.state, f"refused: HTTP {code}" in (status.message or "")) == (JobState.FAILED, True)


def test_failures_slow_the_next_attempt_down(bed: Bed, pods: Make) -> None:
    kube, provider = bed.levers(), pods(service_account="no-such-account")
    for number in range(20):
        provider.submit("sleep 60", 1, f"b-{number}")
    assert sum(call[0] == "POST" and "pods" in call[1] for call in kube.calls) == 1


def test_no_server_is_no_exception(tmp_path: Path) -> None:
    with loopback(tmp_path / "gone", isolated=False) as bed:
        settings = bed.settings()
        provider = Pods(settings.cluster(), settings.template(), marks(LOGS, "cloud"))
    job = provider.submit("sleep 60", 1, "b-0")
    assert "no answer from the API server" in (look(provider, job).message or "")
    assert provider.cancel([job]) == [True]


def test_two_clusters_in_one_process(bed: Bed, pods: Make, tmp_path: Path) -> None:
    kube, here = bed.levers(), pods()
    with loopback(tmp_path / "other") as other:
        settings = other.settings(worker_init="")
        there = Pods(settings.cluster(), settings.template(), marks(LOGS, "cloud"))
        mine, its = here.submit("sleep 60", 1, "b-0"), there.submit("sleep 60", 1, "b-0")
        assert (kube.names(), other.levers().names()) == ([mine], [its])
        there.close()
        assert kube.names() == [mine]


def test_the_body_that_arrived(bed: Bed, pods: Make) -> None:
    kube = bed.levers()
    wish = {"nodeSelector": {"pool": "spot"}, "tolerations": [{"key": "spot", "operator": "Exists"}]}
    kube.hold = True
    pods(pod=wish, gpus=1, labels={"team": "a"}).submit("work", 1, "b-0")
    (body,) = kube.created
    assert body["spec"].items() >= wish.items()
    assert body["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert body["metadata"]["labels"].items() >= {"team": "a", **marks(LOGS, "cloud")}.items()


def test_certificates_come_by_secret_and_go(bed: Bed, pods: Make, tmp_path: Path) -> None:
    server = 'metadata\n    public-key = "P"\n    secret-key = "' + "s" * 40 + '"\n'
    (tmp_path / "server.key_secret").write_text(server)
    (tmp_path / "client.key_secret").write_text("client")
    provider = pods()
    provider.open(tmp_path)
    shown = "cd $PARSLFL_POD/certificates; cat *; stat -c %a .; exit 3"
    job = provider.submit(f"bash -c '{shown}'", 1, "b-0")
    said = until(provider, job, JobState.TIMEOUT)
    assert all(words in said for words in ("client", "0" * 40, "700"))
    assert "s" * 40 not in said
    if bed.kube:
        (secret,) = bed.kube.secrets.values()
        assert secret["metadata"]["labels"] == provider.labels
    provider.close()


def test_cleaning_up_after_a_killed_driver(bed: Bed, pods: Make) -> None:
    settings, provider, other = bed.settings(), pods(), pods(site="other")
    job, kept = provider.submit("sleep 60", 1, "b-0"), other.submit("sleep 60", 1, "b-0")
    until(provider, job, JobState.RUNNING)
    provider.cluster.create_secret(f"parslfl-{provider.labels['parslfl/run']}-cloud", provider.labels, {})
    assert settings.clean("cloud", LOGS) == []
    assert wait_until(lambda: provider.cluster.pods(provider.labels) == {}, 15)
    assert list(other.cluster.pods(other.labels)) == [kept]
    assert settings.clean("cloud", LOGS) == []


def test_the_role_allows_what_is_called_and_no_more(
    bed: Bed, pods: Make, repository: Path, tmp_path: Path
) -> None:
    kube, provider = bed.levers(), pods()
    for name in ("client", "server"):
        (tmp_path / f"{name}.key_secret").write_text("")
    provider.open(tmp_path)
    job = provider.submit("false", 1, "b-0")
    until(provider, job, JobState.TIMEOUT)
    provider.close()
    provider.cluster.claim("shared")  # as doctor does
    _, role, _ = yaml.safe_load_all((repository / "executors/kubernetes/rbac.yaml").read_text())
    allowed = {(verb, kind) for rule in role["rules"] for verb in rule["verbs"] for kind in rule["resources"]}
    assert {right(*call[:2]) for call in kube.calls} == allowed


def right(method: str, path: str) -> tuple[str, str]:
    """The RBAC verb and resource of a call."""
    parts = path.partition("?")[0].split("/")[5:]  # pods, NAME, log
    verb = {"POST": "create", "DELETE": "delete", "GET": "get" if len(parts) > 1 else "list"}[method]
    return verb, "/".join(parts[::2])
