"""Start a run directory, or take one up again if it belongs to the same experiment.

Does not know: what a run directory holds; that is the journal's.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from itertools import count
from pathlib import Path
from typing import Any
from uuid import uuid4

from parslfl.errors import RunError
from parslfl.experiment import Experiment
from parslfl.reports import RoundReport
from parslfl.rundir.journal import RunDir, described, refuse_to_overwrite, reports
from parslfl.sites import Federation

#: What may differ when a run goes on. None changes what a client trains; `deadline` and `fastest`
#: decide which updates are in time, and that is never the same twice.
_FREE = frozenset(
    {"name", "rounds", "eval_every", "evaluate_on", "data_dir", "quorum", "deadline", "fastest"}
)
_VERSIONED = ("parslfl", "parsl", "numpy", "torch", "torchvision")
#: Packages that compute: another version may give other bits.
_COMPUTING = ("parslfl", "numpy", "torch")

_log = logging.getLogger(__name__)


def open_run(
    run_dir: Path | str | None, federation: Federation, experiment: Experiment, resume: bool
) -> RunDir:
    """The run directory, locked: a new one, or with `resume` the one that is there.

    Raises:
        RunError: it holds a run already, none, another experiment's, or is in use.
    """
    path = Path(run_dir).absolute() if run_dir is not None else fresh_path(experiment.name)
    now = _now(federation, experiment)
    if not resume:
        return RunDir.create(path, {"id": _new_id(), **now})
    then = described(path)
    _require_same(then, now, path)
    asked = {name: now[name] for name in ("federation", "experiment")}
    run = RunDir.open(path, {"id": _new_id(), **then, **asked})
    _tell_versions(then.get("versions"), path)
    return run


def finished(path: Path, federation: Federation, experiment: Experiment, resume: bool) -> list[RoundReport]:
    """The rounds that a run in `path` would find done; nothing is written there.

    Raises:
        RunError: `open_run` would refuse it, but for a run that another process has now.
    """
    if not resume:
        refuse_to_overwrite(path)
        return []
    _require_same(described(path), _now(federation, experiment), path)
    return reports(path)


def _new_id() -> str:
    """A name that no other run has, and that stays: directories are moved, and taken up from other hosts."""
    return uuid4().hex[:16]


def _now(federation: Federation, experiment: Experiment) -> dict[str, Any]:
    """What a run directory keeps of a run that begins now."""
    return {
        "federation": federation.resolved(),
        "experiment": experiment.resolved(),
        "resolved": {name: {"threads": number} for name, number in threads(federation).items()},
        "versions": _versions(),
    }


def _require_same(then: dict[str, Any], now: dict[str, Any], path: Path) -> None:
    """Refuse settings that would make another model than the run in `path`."""
    differing = _differences(then, now, path)
    if differing:
        raise RunError(
            f"{path} holds another experiment:\n"
            + "\n".join(f"  {line}" for line in differing)
            + "\nResume with the same settings (parslfl resume takes them from the run), "
            "or name another --run-dir."
        )
    _same_threads(recorded_threads(then), recorded_threads(now), path)


def fresh_path(name: str, parent: Path | None = None) -> Path:
    """A new, empty folder in `parent` (`runs/`), absolute; of two callers at once, each gets its own.

    Raises:
        RunError: it cannot be made.
    """
    stem = Path(parent or "runs", f"{name}-{time.strftime('%Y%m%d-%H%M%S')}").absolute()
    for number in count():
        path = stem if number == 0 else stem.with_name(f"{stem.name}-{number}")
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            if not stem.parent.is_dir():
                raise RunError(f"{stem.parent} is not a folder: name a --run-dir") from None
        except OSError as error:
            raise RunError(f"cannot make the run directory {path}: {error.strerror}") from None
        else:
            return path
    raise AssertionError("count() does not end")


def threads(federation: Federation) -> dict[str, int]:
    """CPU threads of a worker at each site that is this machine: the sums' order depends on them."""
    local = (site for site in federation.sites if site.executor.kind == "local")
    return {site.name: site.executor.threads_per_worker() for site in local}


def recorded_threads(then: Mapping[str, Any]) -> dict[str, int]:
    """What `threads` was when the run that `then` describes began; empty if it does not say."""
    found = then.get("resolved")
    items = found.items() if isinstance(found, dict) else ()
    known = {name: block.get("threads") for name, block in items if isinstance(block, dict)}
    return {name: number for name, number in known.items() if isinstance(number, int) and number > 0}


def _same_threads(then: dict[str, int], now: dict[str, int], path: Path) -> None:
    lines = [
        f"  {name}: was {then[name]}, now {number}: --set sites.{name}.executor.threads={then[name]}"
        for name, number in now.items()
        if name in then and then[name] != number
    ]
    if lines:
        raise RunError(
            f"{path} was begun with another number of CPU threads a worker; the same model needs the same:\n"
            + "\n".join(lines)
            + "\nparslfl resume does so by itself."
        )


def _tell_versions(then: object, path: Path) -> None:
    """Warn of packages that compute and are not as they were."""
    old, new = then if isinstance(then, dict) else {}, _versions()
    changed = [f"{k} was {old[k]}, now {new[k]}" for k in _COMPUTING if k in old and old[k] != new[k]]
    if changed:
        _log.warning("%s: %s: the model may differ in its last bits", path, "; ".join(changed))


def _versions() -> dict[str, str]:
    found = {}
    for name in _VERSIONED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def _differences(then: dict[str, Any], now: dict[str, Any], path: Path) -> list[str]:
    """One line per setting that changes models and is not as it was."""
    old, new = _as_resolved_now(then["experiment"]), now["experiment"]
    keys = [k for k in {**old, **new} if k not in _FREE and old.get(k) != new.get(k)]
    lines = [f"{key}: was {old.get(key)!r}, now {new.get(key)!r}" for key in keys]
    rosters = [_roster(described, path) for described in (then, now)]
    return [*lines, *([] if rosters[0] == rosters[1] else [f"clients: was {rosters[0]}, now {rosters[1]}"])]


def _as_resolved_now(experiment: dict[str, Any]) -> dict[str, Any]:
    """`experiment` as this version writes it, where it knows all of its names."""
    try:
        return Experiment.model_validate(experiment).resolved()
    except ValueError:
        return experiment


def _roster(content: dict[str, Any], path: Path) -> str:
    try:
        return ", ".join(map(_clients, content["federation"]["sites"]))
    except (AttributeError, KeyError, TypeError):
        raise RunError(f"{path / 'run.yaml'} is damaged: its federation has no sites") from None


def _clients(site: dict[str, Any]) -> str:
    """How many a site has, and whether it adds their updates up itself: the order of additions counts."""
    job = site["executor"] if site.get("executor", {}).get("kind") == "mpi" else None
    merged = ", merged there" if site.get("merge") == "site" and not job else ""
    return f"{site['clients']} at {site['name']}{_ranks(job) if job else merged}"


def _ranks(job: dict[str, Any]) -> str:
    nodes = (job.get("slurm") or {}).get("nodes_per_block", 1)
    return f" in {nodes} x {job['ranks_per_node']} ranks that share the {job['split']}"
