"""A strategy whose merge loses its worker once; workers import it from here.

Does not know: which site merges.
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path

from parslfl.learning import Evidence
from parslfl.strategies.fedavg import FedAvg


@dataclass(frozen=True)
class Faltering(FedAvg):
    """FedAvg, but the first worker that weighs an update of its site kills itself; `always`: every one."""

    mark: str = ""
    always: bool = False

    def weight(self, evidence: Evidence) -> float:
        worker = "PARSL_WORKER_RANK" in os.environ
        if worker and (self.always or not Path(self.mark).exists()):
            Path(self.mark).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().weight(evidence)
