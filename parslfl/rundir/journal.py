"""The run directory: the only state a run has.

    run.yaml        the run's id, federation and experiment as resolved, versions of what computes
    journal.jsonl   one line an event, in order: a round finished, a model evaluated
    metrics.jsonl   one flat line a complete round, for plots
    signals.jsonl   one line a planned round: how each site stood
    models/         the last global models, the strategy's state, and with a downlink codec what it left
                    out; clients/ has the clients' own
    differences/    with a downlink codec: what the last rounds changed, as it goes out to clients
    updates/        updates on their way to the driver, and spare/ files for the next ones
    parsl/          Parsl's own logs

A round counts once its line stands in the journal whole; the model is on disk before that. A
driver may die at any instant: the next one reads the journal, checks the model against the
checksum in it, and goes on from there.

Does not know: how a round is made.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import yaml

from parslfl.downlink import DIFFERENCES, Outgoing
from parslfl.errors import RunError
from parslfl.folding.checkpoints import Checkpoint, model_name
from parslfl.protocols import Codec
from parslfl.reports import RoundReport
from parslfl.rundir import records
from parslfl.rundir.records import Entry, Finished, Scored

_LINES = ("journal.jsonl", "metrics.jsonl", "signals.jsonl")


class RunDir:
    """One run's directory, locked while this object is open."""

    def __init__(self, path: Path, lock: IO[str]) -> None:
        self.path = path
        self._lock = lock

    @classmethod
    def create(cls, path: Path, described: Mapping[str, Any]) -> RunDir:
        """Start a run in `path`; `described` goes to run.yaml.

        What a run left there that never finished a round is removed.

        Raises:
            RunError: there is a run in `path` with a finished round, or it cannot be written.
        """
        run = cls._locked(path)
        with run._preparing():
            refuse_to_overwrite(path)
            (path / "run.yaml").unlink(missing_ok=True)
            for folder in (run.models, path / "clients"):
                shutil.rmtree(folder, ignore_errors=True)
            run._clear()
            for name in _LINES:
                (path / name).write_bytes(b"")
            run._describe(described)
        return run

    @classmethod
    def open(cls, path: Path, described: Mapping[str, Any] | None = None) -> RunDir:
        """Take up the run in `path`; `described` replaces run.yaml, where given.

        Raises:
            RunError: there is none, or another process is running it.
        """
        if not (path / "run.yaml").is_file():
            raise RunError(_no_run(path))
        run = cls._locked(path)
        with run._preparing():
            run._mend()
            run._clear()
            if described is not None:
                run._describe(described)
        return run

    def close(self) -> None:
        """Remove what was on its way and release the lock. May be called twice."""
        if not self._lock.closed:
            self._clear(make=False)
            self._lock.close()

    @contextlib.contextmanager
    def _preparing(self) -> Iterator[None]:
        """Release the lock if what is done here fails."""
        try:
            yield
        except BaseException as error:
            self._lock.close()
            if not isinstance(error, OSError):
                raise
            place = error.filename or self.path
            raise RunError(f"cannot write the run directory {self.path}: {place}: {error.strerror}") from None

    @cached_property
    def id(self) -> str:
        """What names the run, wherever its directory is and whichever host goes on with it."""
        return str(described(self.path)["id"])

    @property
    def models(self) -> Path:
        return self.path / "models"

    def model_path(self, round: int) -> Path:
        """The global model that round `round` starts from."""
        return self.models / model_name(round)

    def state_path(self, round: int) -> Path:
        return self.models / f"round-{round:04d}.state"

    def outgoing(self, round: int, codec: Codec | None, seed: int) -> Outgoing | None:
        """How the step is written that makes the model which round `round` starts from."""
        path = self.path / DIFFERENCES / model_name(round)
        return Outgoing(codec, seed, path, self._residual_path(round)) if codec else None

    def finished(self, report: RoundReport, state: str, residual: str = "") -> None:
        """Record that `report.round` is done; `state` and `residual`: checksums as in `Checkpoint`."""
        self._append("journal.jsonl", records.finished(report, state, residual))

    def evaluated(self, report: RoundReport) -> None:
        """Record the complete `report`."""
        self._append("journal.jsonl", records.scored(report))
        self._append("metrics.jsonl", records.metrics(report))

    def is_done(self, rounds: int) -> bool:
        """Whether `rounds` rounds are finished and complete."""
        return rounds - 1 in self.evaluated_rounds()

    def evaluated_rounds(self) -> set[int]:
        return {entry.round for entry in events(self.path) if isinstance(entry, Scored)}

    def forget(self, before: int) -> None:
        """Delete the models and states of rounds before `before`."""
        for path in self.models.glob("round-*.*"):
            if int(path.stem.removeprefix("round-")) < before:
                path.unlink(missing_ok=True)

    def at(self, round: int, model: str, state: str, residual: str = "", difference: str = "") -> Checkpoint:
        """The checkpoint before `round`, with the checksums of its files."""
        paths = self.model_path(round), self.state_path(round), self._residual_path(round)
        return Checkpoint(round, paths[0], model, paths[1], state, paths[2], residual, difference)

    def _residual_path(self, round: int) -> Path:
        return self.models / f"round-{round:04d}.residual"

    def checkpoint(self) -> Checkpoint | None:
        """What the next round starts from, or None before round 0 is done."""
        done = [entry for entry in events(self.path) if isinstance(entry, Finished)]
        if not done:
            return None
        last = done[-1]
        return self.at(last.report.round + 1, last.report.model, last.state, last.residual)

    @classmethod
    def _locked(cls, path: Path) -> RunDir:
        try:
            path.mkdir(parents=True, exist_ok=True)
            lock = (path / "lock").open("w")
        except OSError as error:
            raise RunError(f"cannot write the run directory {path}: {error.strerror}") from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            raise RunError(f"{path} is being run by another process: wait for it or stop it") from None
        return cls(path, lock)

    def _describe(self, described: Mapping[str, Any]) -> None:
        write_text(self.path / "run.yaml", yaml.safe_dump(dict(described), sort_keys=False))

    def _clear(self, make: bool = True) -> None:
        for name in ("updates", "spare", "closed", DIFFERENCES):
            shutil.rmtree(self.path / name, ignore_errors=True)
        for name in ("updates", "spare", "closed", "models") if make else ():
            (self.path / name).mkdir(exist_ok=True)

    def _mend(self) -> None:
        """Cut a last line that a killed driver left unfinished; make the metrics agree with the rest."""
        path = self.path / "journal.jsonl"
        data = path.read_bytes() if path.exists() else b""
        if not data.endswith(b"\n"):
            path.touch()
            os.truncate(path, data.rfind(b"\n") + 1)
        complete = self.evaluated_rounds()
        lines = (records.line(records.metrics(r)) for r in reports(self.path) if r.round in complete)
        write_text(self.path / "metrics.jsonl", "".join(lines))

    def _append(self, name: str, entry: Mapping[str, Any]) -> None:
        """Add a line to a file that is there: one made anew would lack the rounds before."""
        path = self.path / name
        try:
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND), "w") as stream:
                stream.write(records.line(entry))
                stream.flush()
                os.fsync(stream.fileno())
        except FileNotFoundError:
            raise RunError(f"{path} is gone: it was removed while the run went on; start it anew") from None
        except OSError as error:
            raise RunError(f"cannot write {path}: {error.strerror}") from None


def events(path: Path) -> list[Entry]:
    """The journal of the run in `path`, oldest first; an unfinished last line is left out.

    Raises:
        RunError: it is damaged.
    """
    journal = path / "journal.jsonl"
    try:
        lines = journal.read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise RunError(f"cannot read {journal}: {error.strerror}") from None
    return [records.parse(line, f"{journal}:{number}") for number, line in enumerate(lines, 1)]


def reports(path: Path) -> list[RoundReport]:
    """The finished rounds of the run in `path`, with their scores where these are in.

    Raises:
        RunError: its journal is damaged.
    """
    entries = events(path)
    scores = {entry.round: entry.scores for entry in entries if isinstance(entry, Scored)}
    found = (entry.report for entry in entries if isinstance(entry, Finished))
    return [replace(report, **scores.get(report.round, {})) for report in found]


def described(path: Path) -> dict[str, Any]:
    """What run.yaml says.

    Raises:
        RunError: there is no run in `path`, or its run.yaml is unreadable.
    """
    file = path / "run.yaml"
    try:
        content = yaml.safe_load(file.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise RunError(_no_run(path)) from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise RunError(f"{file} cannot be read: {' '.join(str(error).split())}") from None
    found = dict(content) if isinstance(content, dict) else {}
    if not all(isinstance(found.get(key), dict) for key in ("federation", "experiment")):
        raise RunError(f"{file} is damaged: it describes no federation and experiment")
    return found


def write_text(path: Path, text: str) -> None:
    """Write `path` so that it appears only when whole."""
    part = path.with_name(f".{path.name}.part")
    part.write_text(text)
    part.replace(path)


def refuse_to_overwrite(path: Path) -> None:
    """Refuse to begin a run where one has finished rounds.

    Raises:
        RunError: it has, or its journal cannot be read, which counts as the same.
    """
    try:
        held = any(isinstance(entry, Finished) for entry in events(path))
    except RunError:
        held = True
    if held and (path / "run.yaml").exists():
        raise RunError(f"{path} already holds a run: continue it with --resume, or name another --run-dir")
    if held or (not (path / "run.yaml").exists() and any(path.glob("models/*"))):
        raise RunError(
            f"{path} holds rounds of a run, but not its run.yaml: put that back, remove the directory, "
            "or name another --run-dir"
        )


def _no_run(path: Path) -> str:
    return f"{path} holds no run (no run.yaml): name the directory that the run printed"
