"""Start a run directory, or take one up again if it belongs to the same experiment.

Does not know: what a run directory holds; that is the journal's.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from parslfl.errors import RunError
from parslfl.experiment import Experiment
from parslfl.journal import RunDir, described
from parslfl.sites import Federation

#: What may differ when a run goes on: none of these changes a model.
_FREE = frozenset({"name", "rounds", "eval_every", "evaluate_on", "data_dir"})


def open_run(
    run_dir: Path | str | None, federation: Federation, experiment: Experiment, resume: bool
) -> RunDir:
    """The run directory, locked: a new one, or with `resume` the one that is there.

    Raises:
        RunError: it holds a run already, none, another experiment's, or is in use.
    """
    path = Path(run_dir).absolute() if run_dir is not None else fresh_path(experiment.name)
    now = {"federation": federation.resolved(), "experiment": experiment.resolved()}
    if not resume:
        return RunDir.create(path, now)
    differing = _differences(described(path), now)
    if differing:
        raise RunError(
            f"{path} holds another experiment:\n"
            + "\n".join(f"  {line}" for line in differing)
            + "\nResume with the same settings (parslfl resume takes them from the run), "
            "or name another --run-dir."
        )
    return RunDir.open(path)


def fresh_path(name: str) -> Path:
    """A path in `runs/` that does not exist yet, absolute."""
    stem = Path("runs", f"{name}-{time.strftime('%Y%m%d-%H%M%S')}").absolute()
    tries = (stem if n == 0 else stem.with_name(f"{stem.name}-{n}") for n in range(1000))
    return next(path for path in tries if not path.exists())


def _differences(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """One line per setting that changes models and is not as it was."""
    old, new = then.get("experiment", {}), now["experiment"]
    keys = [k for k in {**old, **new} if k not in _FREE and old.get(k) != new.get(k)]
    lines = [f"{key}: was {old.get(key)!r}, now {new.get(key)!r}" for key in keys]
    rosters = [_roster(described) for described in (then, now)]
    return [*lines, *([] if rosters[0] == rosters[1] else [f"clients: was {rosters[0]}, now {rosters[1]}"])]


def _roster(content: dict[str, Any]) -> str:
    sites = content.get("federation", {}).get("sites", [])
    return ", ".join(f"{site['clients']} at {site['name']}" for site in sites)
