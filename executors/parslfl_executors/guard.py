"""Run a module as a program that does not outlive the driver.

`python -m parslfl_executors.guard PID START MODULE [ARGUMENT ...]` takes MODULE out of the
driver's process group, so that Ctrl-C in the driver's terminal or notebook does not hit it, and
kills its whole group within two seconds of process PID's end, however that came.

START is PID's start time, from `started`: a reused PID is another process. Works on the machine
of process PID only.

Does not know: what MODULE is.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading
import time

import psutil

#: Seconds between two looks at the driver.
_PERIOD = 1.0


def started(pid: int) -> str:
    """A text that tells process `pid` from a later one with the same number; "" if it is gone."""
    try:
        process = psutil.Process(pid)
        dead = process.status() == psutil.STATUS_ZOMBIE  # its parent has not looked at it yet
        return "" if dead else f"{process.create_time():.2f}"
    except psutil.NoSuchProcess:
        return ""


def command(module: str) -> list[str]:
    """The command line, without MODULE's arguments, that guards `module` with this process."""
    pid = os.getpid()
    return [sys.executable, "-m", "parslfl_executors.guard", str(pid), started(pid), module]


def _watch(pid: int, start: str) -> None:
    while started(pid) == start:
        time.sleep(_PERIOD)
    os.killpg(0, signal.SIGKILL)


def main() -> None:
    pid, start, module = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    if os.getpgid(0) == os.getpgid(os.getppid()) and os.getppid() == pid:
        os.setpgid(0, 0)
    threading.Thread(target=_watch, args=(pid, start), daemon=True, name="guard").start()
    sys.argv = [module, *sys.argv[4:]]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
