"""The run directory: the only state a run has.

    run.yaml        federation and experiment as resolved, versions of what computes
    journal.jsonl   one line an event, in order: a round finished, a model evaluated
    metrics.jsonl   one flat line a complete round, for plots
    models/         the last global models, and the strategy's state where it has one
    updates/        updates on their way to the driver, and spare/ files for the next ones
    parsl/          Parsl's own logs

A round counts once its line stands in the journal whole; the model is on disk before that. A
driver may die at any instant: the next one reads the journal, checks the model against the
checksum in it, and goes on from there.

Does not know: how a round is made.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, Any

import yaml

from parslfl.checkpoints import read
from parslfl.errors import RunError
from parslfl.messages import Client, Failure, Ref, RoundReport, Spent, Update
from parslfl.params import Params

_VERSIONED = ("parslfl", "parsl", "numpy", "torch", "torchvision")


@dataclass(frozen=True)
class Checkpoint:
    """What round `round` starts from: the model's file and checksum, and those of the
    strategy's state ("" where it has none)."""

    round: int
    path: Path
    model: str
    state_path: Path
    state: str

    def load(self) -> tuple[Params, Params]:
        """The model and the state, mapped and verified.

        Raises:
            RunError: a file is gone or damaged.
        """
        return read(self.path, self.model), read(self.state_path, self.state) if self.state else {}


class RunDir:
    """One run's directory, locked while this object is open."""

    def __init__(self, path: Path, lock: IO[str]) -> None:
        self.path = path
        self._lock = lock

    @classmethod
    def create(cls, path: Path, described: Mapping[str, Any]) -> RunDir:
        """Start a run in `path`, which must not hold one; `described` goes to run.yaml.

        Raises:
            RunError: there is a run in `path`, or it cannot be written.
        """
        if (path / "run.yaml").exists():
            raise RunError(
                f"{path} already holds a run: continue it with --resume, or name another --run-dir"
            )
        run = cls._locked(path)
        text = yaml.safe_dump({**described, "versions": _versions()}, sort_keys=False)
        write_text(path / "run.yaml", text)
        run._clear()
        return run

    @classmethod
    def open(cls, path: Path) -> RunDir:
        """Take up the run in `path`.

        Raises:
            RunError: there is none, or another process is running it.
        """
        if not (path / "run.yaml").is_file():
            raise RunError(f"{path} holds no run (no run.yaml): name the directory that the run printed")
        run = cls._locked(path)
        run._clear()
        run._mend()
        return run

    def close(self) -> None:
        """Remove what was on its way and release the lock. May be called twice."""
        if not self._lock.closed:
            self._clear(make=False)
            self._lock.close()

    @property
    def models(self) -> Path:
        return self.path / "models"

    def model_path(self, round: int) -> Path:
        """The global model that round `round` starts from."""
        return self.models / f"round-{round:04d}.plm"

    def state_path(self, round: int) -> Path:
        return self.models / f"round-{round:04d}.state"

    def finished(self, report: RoundReport, state: str) -> None:
        """Record that `report.round` is done; `state` is the checksum of the strategy's state."""
        entry = asdict(report)
        for update in entry["updates"]:
            del update["ref"]["data"]  # an inline update has been merged: its bytes are history
        self._append("journal.jsonl", {"event": "finished", "state": state, "report": entry})

    def evaluated(self, report: RoundReport) -> None:
        """Record the complete `report`."""
        scores = {k: getattr(report, k) for k in ("round", "accuracy", "test_loss", "evaluation_error")}
        self._append("journal.jsonl", {"event": "evaluated", **scores})
        self._append("metrics.jsonl", metrics(report))

    def is_done(self, rounds: int) -> bool:
        """Whether `rounds` rounds are finished and complete."""
        return rounds - 1 in self.evaluated_rounds()

    def evaluated_rounds(self) -> set[int]:
        return {e["round"] for e in events(self.path) if e["event"] == "evaluated"}

    def forget(self, before: int) -> None:
        """Delete the models and states of rounds before `before`."""
        for path in self.models.glob("round-*.*"):
            if int(path.stem.removeprefix("round-")) < before:
                path.unlink(missing_ok=True)

    def at(self, round: int, model: str, state: str) -> Checkpoint:
        """The checkpoint before `round`, with the checksums of its files."""
        return Checkpoint(round, self.model_path(round), model, self.state_path(round), state)

    def checkpoint(self) -> Checkpoint | None:
        """What the next round starts from, or None before round 0 is done."""
        done = [e for e in events(self.path) if e["event"] == "finished"]
        if not done:
            return None
        return self.at(done[-1]["report"]["round"] + 1, done[-1]["report"]["model"], done[-1]["state"])

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

    def _clear(self, make: bool = True) -> None:
        for name in ("updates", "spare", "closed"):
            shutil.rmtree(self.path / name, ignore_errors=True)
            if make:
                (self.path / name).mkdir()
        self.models.mkdir(exist_ok=True)

    def _mend(self) -> None:
        """Cut a last line that a killed driver left unfinished."""
        for name in ("journal.jsonl", "metrics.jsonl"):
            path = self.path / name
            data = path.read_bytes() if path.exists() else b""
            if data and not data.endswith(b"\n"):
                os.truncate(path, data.rfind(b"\n") + 1)

    def _append(self, name: str, entry: Mapping[str, Any]) -> None:
        with (self.path / name).open("a") as stream:
            stream.write(json.dumps(entry) + "\n")
            stream.flush()
            os.fsync(stream.fileno())


def events(path: Path) -> list[dict[str, Any]]:
    """The journal of the run in `path`, oldest first; an unfinished last line is left out."""
    journal = path / "journal.jsonl"
    lines = journal.read_text().split("\n")[:-1] if journal.exists() else []
    try:
        return [json.loads(line) for line in lines]
    except ValueError as error:
        raise RunError(f"{journal} is damaged: {error}") from None


def reports(path: Path) -> list[RoundReport]:
    """The finished rounds of the run in `path`, with their scores where these are in."""
    scores = {e["round"]: e for e in events(path) if e["event"] == "evaluated"}
    found = [_report(e["report"]) for e in events(path) if e["event"] == "finished"]
    keys = ("accuracy", "test_loss", "evaluation_error")
    return [replace(r, **{k: scores[r.round][k] for k in keys}) if r.round in scores else r for r in found]


def described(path: Path) -> dict[str, Any]:
    """What run.yaml says.

    Raises:
        RunError: there is no run in `path`, or its run.yaml is unreadable.
    """
    try:
        content = yaml.safe_load((path / "run.yaml").read_text())
    except (OSError, yaml.YAMLError) as error:
        raise RunError(f"{path} holds no readable run: {error}") from None
    if not isinstance(content, dict):
        raise RunError(f"{path / 'run.yaml'} is not a run's description")
    return content


def metrics(report: RoundReport) -> dict[str, Any]:
    """`report` as one flat line: counts instead of clients."""
    flat = {k: v for k, v in asdict(report).items() if k not in {"updates", "failures"}}
    return {**flat, "updates": len(report.updates), "failures": len(report.failures)}


def write_text(path: Path, text: str) -> None:
    """Write `path` so that it appears only when whole."""
    part = path.with_name(f".{path.name}.part")
    part.write_text(text)
    part.replace(path)


def _report(entry: dict[str, Any]) -> RoundReport:
    updates = tuple(
        Update(**{**u, "client": Client(**u["client"]), "ref": Ref(**u["ref"]), "spent": Spent(**u["spent"])})
        for u in entry["updates"]
    )
    failures = tuple(Failure(**{**f, "client": Client(**f["client"])}) for f in entry["failures"])
    return RoundReport(**{**entry, "updates": updates, "failures": failures})


def _versions() -> dict[str, str]:
    found = {}
    for name in _VERSIONED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found
