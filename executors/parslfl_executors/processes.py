"""Parsl's LocalProvider, stopped without the `ps` program, which small machines lack.

Does not know: what the processes run.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Sequence

from parsl.providers import LocalProvider


class LocalProcesses(LocalProvider):
    """Blocks are process groups on this machine."""

    def cancel(self, job_ids: Sequence[object]) -> list[bool]:
        """End each block's process group."""
        for job in job_ids:
            entry = self.resources[job]
            entry["cancelled"] = True
            with contextlib.suppress(ProcessLookupError):
                os.killpg(os.getpgid(entry["remote_pid"]), signal.SIGTERM)
        return [True for _ in job_ids]
