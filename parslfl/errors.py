"""Every exception parslfl raises on purpose.

    ParslflError
    ├── ConfigError      a site file, experiment file or flag is wrong; holds every problem at once
    ├── DataError        a data set is missing, damaged or too small for its clients
    ├── PayloadError     bytes from a worker were refused
    ├── RunError         a run cannot go on: its directory, or code that it was given
    └── QuorumError      a round ended with too few updates

Each message is a sentence that names the place and the cure; the CLI prints it without a
traceback. All survive pickling, because workers send them to the driver.

Does not know: who shows them, or which exit code they become.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass


class ParslflError(Exception):
    """Root of the tree: catch this to catch everything parslfl raises on purpose."""


@dataclass(frozen=True)
class Problem:
    """One thing wrong in a configuration: where it stands, what was seen, what is allowed."""

    where: str
    field: str
    message: str

    def __str__(self) -> str:
        return ": ".join(part for part in (self.where, self.field, self.message) if part)


class ConfigError(ParslflError):
    """A configuration has one or more problems; `problems` lists them all."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__(self.problems)

    def __str__(self) -> str:
        return "\n".join(str(problem) for problem in self.problems)


class DataError(ParslflError):
    """A data set is missing, damaged, or has too few samples for its clients."""


class PayloadError(ParslflError):
    """Bytes that came from a worker are not what they claim to be, and were refused."""


class RunError(ParslflError):
    """A run directory is missing, in use, damaged, or belongs to another experiment; or a strategy failed."""


class QuorumError(ParslflError):
    """A round ended with fewer updates than its quorum."""


def unwritable(what: str, error: OSError | None) -> str:
    """Why the driver cannot do `what` on a disk, and the cure; without an `error`, for want of room."""
    full = error is None or error.errno in (errno.ENOSPC, errno.EDQUOT)
    why = error.strerror if error else "No space left on device"
    cure = "Free space there" if full else "Mend that"
    return f"the driver cannot {what}: {why}. {cure}, then resume the run"


@contextmanager
def naming(thing: object, method: str) -> Iterator[None]:
    """Whatever the `method` of `thing` raises, which may be a user's, is told as its failure.

    Raises:
        RunError: it, in place of all that is not in this tree.
    """
    try:
        yield
    except ParslflError:
        raise
    except Exception as error:
        who = f"{type(thing).__name__}.{method}"
        raise RunError(f"{who} failed: {type(error).__name__}: {error}") from error
