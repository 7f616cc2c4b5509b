"""`parslfl cleanup`: what a killed driver left of its run, ended site by site.

Does not know: what belongs to a run at a site; each kind of site does.
"""

from __future__ import annotations

import sys
from pathlib import Path

from parslfl.document import Document, shown
from parslfl.errors import ParslflError, RunError
from parslfl.exchange import open_exchange
from parslfl.rundir import journal
from parslfl.rundir.journal import RunDir
from parslfl.settings import build
from parslfl.sites import Federation, Site
from parslfl_executors.fields import Unusable


def unfinished(folder: Path) -> list[Path]:
    """Every run directory in `folder`, by name."""
    return sorted(path.parent.absolute() for path in folder.glob("*/run.yaml"))


def clean(path: Path, *, alone: bool) -> bool:
    """End what is left of the run in `path` and say what; whether nothing is left now.

    Not `alone`: a run that goes on is passed over.

    Raises:
        RunError: there is no run, or its driver lives.
        ConfigError: its sites cannot be read back.
    """
    federation = build(Federation, Document(journal.described(path).get("federation")))
    try:
        run = RunDir.open(path)
    except RunError as error:
        if alone:
            raise
        print(f"{shown(path)}: left alone: {error}")
        return True
    try:
        outcomes = [_site(site, path) for site in federation.sites]
        _folders(path, federation)
    finally:
        run.close()
    return all(outcomes)


def _site(site: Site, path: Path) -> bool:
    """End what is left at one site."""
    logs, name = path / "parsl", f"{shown(path)}: {site.name}"
    try:
        before = site.executor.left(site.name, logs)
        after = site.executor.clean(site.name, logs)
    except Unusable as error:
        print(f"{name}: not cleaned up: {error}", file=sys.stderr)
        return False
    ended = [one for one in before if one not in after]
    if ended or not after:
        print(f"{name}: ended {', '.join(ended)}" if ended else f"{name}: nothing was left")
    if after:
        print(f"{name}: still there: {', '.join(after)}; try again", file=sys.stderr)
    return not after


def _folders(path: Path, federation: Federation) -> None:
    """Remove this run's folders in what sites share: they held updates on their way."""
    sharing = tuple(site for site in federation.sites if site.transport.kind == "file")
    try:
        open_exchange(path, sharing).close()
    except ParslflError as error:
        print(f"{shown(path)}: {error}", file=sys.stderr)
