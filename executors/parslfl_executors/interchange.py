"""Parsl's interchange process, which can also be told that a block is lost.

Parsl's own takes a manager for lost only when its heartbeats have failed to come for long enough;
the scheduler may have said so long before. Whoever knows it leaves a file with the block's name in
the folder `LOST` of the interchange's log folder: its tasks end at once, as lost.

Does not know: who asks, or how it was learnt.
"""

from __future__ import annotations

import pickle
import sys
import time
import traceback
from pathlib import Path

from parsl.executors.high_throughput.interchange import Interchange
from parsl.monitoring.radios.base import MonitoringRadioSender
from parsl.utils import setproctitle

#: Folder in the interchange's log folder; in it, a file for each block that is lost.
LOST = "lost"
#: Seconds between two looks into it.
_PERIOD = 0.25
_LOG = "interchange.log"


class Attentive(Interchange):
    """An interchange that looks for lost blocks between two messages."""

    _looked = 0.0

    def expire_bad_managers(
        self, interesting_managers: set[bytes], monitoring_radio: MonitoringRadioSender | None
    ) -> None:
        """Besides those that are silent, managers of lost blocks are given up."""
        now = time.monotonic()
        if now - self._looked >= _PERIOD:
            self._looked = now
            lost = named(Path(self.logdir))
            for manager in self._ready_managers.values():
                if manager["block_id"] in lost:
                    manager["last_heartbeat"] = 0.0
        super().expire_bad_managers(interesting_managers, monitoring_radio)


def named(logs: Path) -> set[str]:
    """The blocks that are said to be lost in the log folder `logs`."""
    try:
        return {file.name for file in (logs / LOST).iterdir()}
    except FileNotFoundError:
        return set()


def tell(logs: Path, block: str) -> None:
    """Say that `block` is lost to the interchange whose log folder is `logs`."""
    folder = logs / LOST
    folder.mkdir(exist_ok=True)
    (folder / block).touch()


def last_words(logs: Path) -> str:
    """The last line of the log of the interchange whose log folder is `logs`; "" if there is none."""
    try:
        lines = (logs / _LOG).read_text(errors="replace").split("\n")
    except OSError:
        return ""
    return next((" ".join(line.split()) for line in reversed(lines) if line.strip()), "")


def main() -> None:
    """Run; what ends it is the last thing in its log, where the driver finds it."""
    setproctitle("parsl: HTEX interchange")
    settings = pickle.load(sys.stdin.buffer)  # noqa: S301 - from the driver, as in Parsl's own
    try:
        Attentive(**settings).start()
    except Exception:  # noqa: BLE001 - whatever it is, it is over
        with (Path(settings["logdir"]) / _LOG).open("a") as log:
            traceback.print_exc(file=log)
        sys.exit(1)


if __name__ == "__main__":
    main()
