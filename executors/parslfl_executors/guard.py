"""Run a module as a program that does not outlive the driver.

`python -m parslfl_executors.guard PID START GROUP MODULE [ARGUMENT ...]` kills MODULE's whole
process group within two seconds of process PID's end, however that came. GROUP is `own` for a
new group, so that Ctrl-C in the driver's terminal or notebook does not hit MODULE, or `given`
where whoever started it has already made one.

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


def command(module: str, *, own_group: bool) -> list[str]:
    """The command line, without MODULE's arguments, that guards `module` with this process."""
    pid, group = os.getpid(), "own" if own_group else "given"
    return [sys.executable, "-m", "parslfl_executors.guard", str(pid), started(pid), group, module]


def _watch(pid: int, start: str) -> None:
    while started(pid) == start:
        time.sleep(_PERIOD)
    os.killpg(0, signal.SIGKILL)


def main() -> None:
    pid, start, group, module = int(sys.argv[1]), *sys.argv[2:5]
    if group == "own":
        os.setpgid(0, 0)  # before anything else: the group that is killed must never be the driver's
    threading.Thread(target=_watch, args=(pid, start), daemon=True, name="guard").start()
    sys.argv = [module, *sys.argv[5:]]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
