"""Blocks of a Parsl executor as pods: asked for, watched, explained and deleted.

Nothing here raises into Parsl, whose poller would stop watching every site, and nothing sleeps
in it: a call that was refused is made again at a later look.

Does not know: what the pods run, or which tasks they were given.
"""

from __future__ import annotations

import base64
import logging
import re
import secrets
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from parsl.jobs.states import JobStatus
from parsl.providers.base import ExecutionProvider

from parslfl_executors.kube_api import Cluster, RefusedError, sweep
from parslfl_executors.kube_block import PodBlock
from parslfl_executors.kube_pod import (
    SITE,
    Json,
    Patience,
    Template,
    Verdict,
    began,
    blocked,
    body,
    judge,
    open_nodes,
    plain,
    secret_name,
)
from parslfl_executors.ledger import Event, bursts
from parslfl_executors.signals import SiteSignals, counted

_LOG = logging.getLogger(__name__)

#: Seconds between attempts to make a pod: doubled after each failure, up to the second.
_PAUSES = (0.5, 30.0)


class Pods(ExecutionProvider):
    """One pod a block, in one namespace of one cluster."""

    def __init__(
        self,
        cluster: Cluster,
        template: Template,
        labels: Mapping[str, str],
        *,
        init_blocks: int = 1,
        min_blocks: int = 0,
        max_blocks: int = 1,
        parallelism: float = 1.0,
        patience: Patience = Patience(),  # noqa: B008 - immutable
        poll: float = 3.0,
    ) -> None:
        self.cluster, self.template, self.labels, self.patience = cluster, template, dict(labels), patience
        self.init_blocks, self.min_blocks, self.max_blocks = init_blocks, min_blocks, max_blocks
        self.parallelism, self.nodes_per_block = parallelism, 1
        self.cores_per_node = self.mem_per_node = None
        self.script_dir: str | None = None
        self.resources: dict[object, Any] = {}
        self._poll = poll
        self._lock = threading.RLock()
        self._certificates: Path | None = None
        self._secret: str | None = None
        self._pause, self._not_before = 0.0, 0.0
        self._refusals: list[tuple[float, str]] = []
        self._may_list = True

    @property
    def label(self) -> str:
        return "kubernetes"

    @property
    def status_polling_interval(self) -> float:  # type: ignore[override]  # Parsl only compares it
        return self._poll

    def open(self, certificates: Path | None) -> None:
        """Before the first pod: the folder of the executor's certificates, if it encrypts."""
        self._certificates = certificates

    def submit(self, command: str, tasks_per_node: int, job_name: str = "parsl") -> str:
        """Ask for a pod. One that is refused for now is asked for again, for as long as it may pend."""
        number = job_name.rpartition("-")[2]
        name = f"{plain(f'parslfl-{self.labels[SITE]}', 40)}-{plain(number, 8)}-{secrets.token_hex(4)}"
        with self._lock:
            self.resources[name] = PodBlock(name, command)
            self._create(self.resources[name])
        return name

    def status(self, job_ids: Sequence[object]) -> list[JobStatus]:
        with self._lock:
            for block in self._blocks():
                if not block.over and block.made is None:
                    self._create(block)
            self._look()
            self._clean()
            return [self.resources[job].status() for job in job_ids]

    def cancel(self, job_ids: Sequence[object]) -> list[bool]:
        """Delete the pods; those that cannot be now are deleted at a later look, or by `close`."""
        with self._lock:
            for job in job_ids:
                block = self.resources[job]
                if not block.over:
                    block.cancelled = True
                    block.unclean = block.made is not None
            self._clean()
        return [True for _ in job_ids]

    def close(self) -> None:
        """Delete all that belongs to the run; a warning names what could not be."""
        with self._lock:
            left = sweep(self.cluster, self.labels)
            if left:
                _LOG.warning("%s: not deleted: %s", self.cluster.namespace, ", ".join(left))

    def explain(self, job: object) -> str:
        """What became of a block, and why; "" while there is nothing to say."""
        block = self.resources.get(job)
        return block.explain() if block is not None else ""

    def began(self, job: object) -> float | None:
        """When a block's pod began on its node, as the cluster's clock has it; None until then."""
        block = self.resources.get(job)
        return block.began if block is not None else None

    def troubles(self) -> tuple[Event, ...]:
        """Calls that were refused for now, and made again, since this was asked last."""
        with self._lock:
            found, self._refusals = self._refusals, []
        return bursts(found)

    def outwaited(self, job: object) -> bool:
        """Whether a block that never ran was given all the time that it may pend."""
        block = self.resources.get(job)
        return block is not None and block.began is None and block.waited >= self.patience.pending

    def waiting(self) -> str:
        """Why no pod runs yet, as of the last look; "" if one does."""
        alive = [block for block in self._blocks() if not block.over]
        if not alive or any(block.verdict.state == "running" for block in alive):
            return ""
        return alive[0].explain() or f"pod {alive[0].name}: pending"

    def signals(self, managers: Sequence[Mapping[str, Any]]) -> SiteSignals:
        """How this site stands: pods as of the last look, nodes as of now, where they may be listed."""
        limit = self.template.pod.get("activeDeadlineSeconds", self.template.walltime)
        with self._lock:
            told = tuple(block.told(limit) for block in self._blocks() if not block.over)
        workers, free = counted(managers)
        return SiteSignals(time.time(), told, workers, free, nodes=self._nodes())

    def trial(self, command: str) -> None:
        """Have the server check the pod that `submit` would ask for, without making it.

        Raises:
            RefusedError: it would refuse.
        """
        name = f"parslfl-trial-{plain(self.labels[SITE], 40)}-{secrets.token_hex(4)}"
        trial = body(name, self.template, self.labels, command, secret_name(self.labels))
        self.cluster.create_pod(trial, trial=True)

    def named(self, hostname: str) -> str:
        """The block on `hostname`, which is its pod's name; "" for any other machine."""
        return hostname if hostname in self.resources else ""

    def _blocks(self) -> Iterator[PodBlock]:
        yield from list(self.resources.values())  # asked from several threads

    def _nodes(self) -> int | None:
        """Nodes that take pods; who may not list them is not asked again."""
        if not self._may_list:
            return None
        try:
            return len(open_nodes(self.cluster.nodes()))
        except RefusedError as error:
            self._may_list = error.passing
            return None

    def _create(self, block: PodBlock) -> None:
        """Try to make the block's pod, unless the last attempts failed too short a time ago."""
        now = time.monotonic()
        if now < self._not_before:
            return
        try:
            self._share_certificates()
            made = body(block.name, self.template, self.labels, block.command, self._secret)
            self.cluster.create_pod(made)
        except RefusedError as error:
            self._refuse(block, error)
            return
        block.made, block.refused = now, ""

    def _refuse(self, block: PodBlock, error: RefusedError) -> None:
        block.waited = time.monotonic() - block.asked
        if error.status == 409:  # an answer was lost: the name is ours alone
            block.made, block.refused = block.asked, ""
        elif error.passing and block.waited < self.patience.pending:
            block.refused = f"not made yet: {error}"
            self._ride_out(error)
        else:
            block.refused = f"refused: {error}"
            block.verdict = Verdict("stuck", block.refused)
        self._slower(error.after)

    def _slower(self, at_least: float = 0.0) -> None:
        shortest, longest = _PAUSES
        self._pause = min(max(2 * self._pause, shortest), longest)
        self._not_before = time.monotonic() + max(self._pause, at_least)

    def _share_certificates(self) -> None:
        if self._certificates is None or self._secret:
            return
        names = ("client.key_secret", "server.key_secret")
        texts = {name: (self._certificates / name).read_text() for name in names}
        texts["server.key_secret"] = _public_half(texts["server.key_secret"])
        data = {name: base64.b64encode(text.encode()).decode() for name, text in texts.items()}
        secret = secret_name(self.labels)
        self.cluster.create_secret(secret, self.labels, data)
        self._secret = secret

    def _look(self) -> None:
        """Judge every pod that lives, by one call."""
        alive = [block for block in self._blocks() if block.made is not None and not block.over]
        if not alive:
            return
        try:
            pods = self.cluster.pods(self.labels)
        except RefusedError as error:
            _LOG.warning("%s: cannot look at pods: %s", self.labels[SITE], error)
            self._ride_out(error)
            return
        for block in alive:
            self._judge(block, pods.get(block.name))

    def _judge(self, block: PodBlock, pod: Json | None) -> None:
        now = time.monotonic()
        block.began = began(pod) if pod else block.began
        if pod is None or not blocked(pod):
            block.blocked = None
        elif block.blocked is None:
            block.blocked = now
        blocked_for = now - block.blocked if block.blocked else 0.0
        block.waited = now - block.asked
        block.verdict = judge(pod, block.waited, blocked_for, self.patience)
        state = block.verdict.state
        if state == "running":
            self._pause = 0.0
        if not block.over:
            return
        if state == "failed":
            self._quote(block)
        if state in {"failed", "stuck"}:
            self._slower()
        block.unclean = pod is not None
        level = logging.INFO if state == "succeeded" else logging.WARNING
        _LOG.log(level, "%s: %s", self.labels[SITE], block.explain())

    def _quote(self, block: PodBlock) -> None:
        """Add what the pod said last."""
        said = self.cluster.last_lines(block.name)
        verdict = block.verdict
        if said:
            block.verdict = Verdict(verdict.state, f"{verdict.why}; it said: {said}", verdict.code)

    def _clean(self) -> None:
        """Delete the pods of blocks that are over, as far as the server lets us."""
        for block in self._blocks():
            if block.unclean:
                try:
                    self.cluster.delete_pod(block.name)
                    block.unclean = False
                except RefusedError as error:
                    _LOG.warning("%s: cannot delete pod %s yet: %s", self.labels[SITE], block.name, error)
                    self._ride_out(error)
                    return

    def _ride_out(self, error: RefusedError) -> None:
        self._refusals.append((time.time(), f"the API server: {error}"))


def _public_half(certificate: str) -> str:
    """The server's certificate with its secret key blotted out: workers need the public one."""
    return re.sub(r'(secret-key = ")[^"]{40}"', lambda found: found[1] + "0" * 40 + '"', certificate)
