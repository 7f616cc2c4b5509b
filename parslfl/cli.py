"""The commands: `parslfl ...` and every script in workflows/ begin here.

Turns whatever can go wrong into one clear message and an exit code:

    0  done                          70  a bug in parslfl
    1  it could not be done         130  stopped by Ctrl-C
    2  a file or a flag is wrong    128 + n  stopped by signal n (143: SIGTERM)

Does not know: what the commands do; `commands` is loaded once it is clear that one shall run.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import sys
import threading
import time
import traceback
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType

import parslfl
from parslfl.commands.flags import DOCTOR_FLAGS, FLAGS, PARTITION_FLAGS, RESUME_FLAGS, Parser, add
from parslfl.errors import ConfigError, ParslflError

OK, FAILED, USAGE, BUG, CTRL_C = 0, 1, 2, 70, 130
#: Seconds after a Ctrl-C in which more of them change nothing: the command is ending.
_IMPATIENCE = 10.0


class Stopped(KeyboardInterrupt):
    """A signal other than Ctrl-C asked the command to end; everything treats it like Ctrl-C."""

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(f"signal {number}")


class _CtrlC:
    """The first Ctrl-C ends the command in order; impatient ones that follow do not break into that."""

    def __init__(self) -> None:
        self.pressed: float | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.pressed is None or now - self.pressed > _IMPATIENCE:
            self.pressed = now
            raise KeyboardInterrupt


def main(argv: Sequence[str] | None = None) -> int:
    """The command `parslfl`; returns its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    return _guarded(words, lambda: _dispatch(_parser().parse_args(words)), whole=argv is None)


def workflow(
    defaults: Mapping[str, object], argv: Sequence[str] | None = None, about: str | None = None
) -> int:
    """A workflow script: `parslfl run` with defaults of its own; returns its exit code.

    `defaults`: fields of `Experiment`, and `site`, the site file used without --site. `about`
    stands above the help. An experiment file, flags and --set beat the defaults, in this order.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    parser = Parser(description=about, defaults=defaults)
    add(parser, FLAGS)
    parser.set_defaults(command="run", defaults=defaults)
    return _guarded(words, lambda: _dispatch(parser.parse_args(words)), whole=argv is None)


def _parser() -> Parser:
    parser = Parser(
        prog="parslfl", description="Federated learning as Parsl workflows, for hybrid HPC and cloud."
    )
    parser.set_defaults(defaults={})
    parser.add_argument("--version", action="version", version=f"parslfl {parslfl.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    add(commands.add_parser("run", help="train a model on a federation's sites"), FLAGS)
    resume = commands.add_parser("resume", help="go on with a run that was stopped")
    resume.add_argument("run_dir", metavar="RUN_DIR")
    add(resume, RESUME_FLAGS)
    report = commands.add_parser("report", help="show the rounds of a run")
    report.add_argument("run_dir", metavar="RUN_DIR")
    report.add_argument("--debug", action="store_true", help="show the traceback of an error")
    sites = commands.add_parser("sites", help="list the site files, or show one")
    sites.add_argument("file", metavar="FILE", nargs="?")
    sites.add_argument("--debug", action="store_true", help="show the traceback of an error")
    doctor = commands.add_parser("doctor", help="look at every site before anything is spent on it")
    add(doctor, DOCTOR_FLAGS)
    cleanup = commands.add_parser("cleanup", help="end the jobs and pods that killed drivers left")
    cleanup.add_argument("run_dir", metavar="RUN_DIR", nargs="?", help="without it: every run in runs/")
    cleanup.add_argument("--debug", action="store_true", help="show the traceback of an error")
    add(commands.add_parser("partition", help="show which client holds what"), PARTITION_FLAGS)
    inspect = commands.add_parser("inspect", help="look into a model, an update or a client's state")
    inspect.add_argument("file", metavar="FILE")
    inspect.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def _dispatch(args: Namespace) -> int:
    from parslfl.commands.actions import COMMANDS  # loads pydantic and rich: a mistyped flag needs neither

    return COMMANDS[args.command](args)


def _guarded(words: Sequence[str], action: Callable[[], int], *, whole: bool = False) -> int:
    """Run `action`; an exception becomes a message on standard error and an exit code.

    `whole`: this process ends with it.
    """
    _open_closed()
    try:
        with _signals(whole):
            code = action()
            sys.stdout.flush()  # a reader that went away must show here, not at exit
            return code
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - nothing may end in a traceback
        if isinstance(error, BrokenPipeError) and _nobody_reads():
            return FAILED
        _empty_output()
        if "--debug" in words:
            traceback.print_exception(error)
        for line in _message(error):
            print(line, file=sys.stderr)
        return _code(error)


def _open_closed() -> None:
    """Give standard output and error a file where they were closed (`>&-`).

    Else the next file that is opened, a journal perhaps, would get their numbers.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115, PTH123  as long as the process


def _empty_output() -> None:
    """Write what was printed, so that it stands before the error, if it can be written."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at exit


def _nobody_reads() -> bool:
    """Whether standard output's reader went away, as in `parslfl report | head`: it has seen enough."""
    try:
        number = sys.stdout.fileno()
    except OSError:  # a standard output that is no file has no pipe to break
        return False
    look = select.poll()
    look.register(number, select.POLLOUT)
    gone = any(flags & (select.POLLERR | select.POLLHUP) for _, flags in look.poll(0))
    if gone:
        os.dup2(os.open(os.devnull, os.O_WRONLY), number)  # Python flushes once more at exit
    return gone


def _message(error: BaseException) -> list[str]:
    if isinstance(error, ConfigError):
        lines = [f"error: {problem}" for problem in error.problems]
    elif isinstance(error, ParslflError):
        lines = [f"error: {error}"]
    elif isinstance(error, KeyboardInterrupt):
        lines = ["stopped"]
    elif _full(error):
        place = getattr(error, "filename", None) or "standard output or the run directory"
        lines = [f"error: no space is left to write {place}: free some, or write elsewhere"]
    else:
        text = " ".join(f"{type(error).__name__}: {error}".split())
        lines = [
            f"error: {text}",
            "this is a bug in parslfl; run again with --debug for the traceback",
        ]
    return [*lines, *getattr(error, "__notes__", [])]


def _code(error: BaseException) -> int:
    if isinstance(error, Stopped):
        return 128 + error.number
    if isinstance(error, KeyboardInterrupt):
        return CTRL_C
    if isinstance(error, ParslflError):
        return USAGE if isinstance(error, ConfigError) else FAILED
    return FAILED if _full(error) else BUG


def _full(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}


@contextmanager
def _signals(whole: bool) -> Iterator[None]:
    """Make SIGTERM and SIGHUP end a command as Ctrl-C does: in order, with no process left.

    After a Ctrl-C, more of them do nothing while the process ends, if it is `whole`.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may handle signals
        return
    wanted = [
        number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) == signal.SIG_DFL
    ]
    for number in wanted:  # one that is ignored, as under nohup, stays ignored
        signal.signal(number, _stop)
    before, ctrl_c = signal.getsignal(signal.SIGINT), _CtrlC()
    if before == signal.default_int_handler:
        signal.signal(signal.SIGINT, ctrl_c)
    try:
        yield
    finally:
        for number in wanted:
            signal.signal(number, signal.SIG_DFL)
        if before == signal.default_int_handler:
            signal.signal(signal.SIGINT, signal.SIG_IGN if whole and ctrl_c.pressed else before)


def _stop(number: int, _frame: FrameType | None) -> None:
    raise Stopped(number)
