"""What a command line asks for: a federation and an experiment, every mistake told at once.

    workflow's defaults  <  experiment file  <  flags  <  --set

A flag that was not given changes nothing.

Does not know: what is done with them.
"""

from __future__ import annotations

import os
import re
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from parslfl import specs
from parslfl.commands.flags import FIELDS, SITE
from parslfl.data.digits import Digits
from parslfl.data.folder import resolve_folder
from parslfl.document import Document
from parslfl.errors import ConfigError, Problem
from parslfl.experiment import Experiment, load_experiment
from parslfl.fitting import check
from parslfl.rundir.journal import described
from parslfl.rundir.runs import recorded_threads
from parslfl.settings import build
from parslfl.sites import Federation, load_federation, local_folders

T = TypeVar("T")

#: Digits of a number of clients: more is a slip of the finger.
_DIGITS = 9
#: Value of --dataset: the workflow's own where this machine has it, else the embedded digits.
AUTO = "auto"


@dataclass(frozen=True)
class Request:
    """What to train and where; `note` tells of a choice that was made for the user."""

    federation: Federation
    experiment: Experiment
    note: str = ""


def asked(args: Namespace, defaults: Mapping[str, object], *, fitting: bool = True) -> Request:
    """What the flags ask for, over a workflow's `defaults`; not `fitting`: the two need not fit.

    Raises:
        ConfigError: with every problem of the files, the flags and their fit.
    """
    problems: list[Problem] = []
    places, fields, strange = split_settings(args.set or [])
    problems += strange
    site = args.site or str(defaults.get("site", SITE))
    clients = _tried(problems, lambda: args.clients and whole(args.clients, "clients"))
    federation = _tried(problems, lambda: _sized(load_federation(site, places), clients))
    experiment = _tried(problems, lambda: experiment_of(args, defaults, fields))
    if federation is not None and experiment is not None and not problems:
        _tried(problems, lambda: check(federation, experiment) if fitting else None)
        if not problems:
            auto = args.dataset == AUTO and "dataset" not in fields
            return _found(Request(federation, experiment)) if auto else Request(federation, experiment)
    raise ConfigError(problems)


def experiment_of(
    args: Namespace, defaults: Mapping[str, object], fields: Mapping[str, str] | None = None
) -> Experiment:
    """The experiment that the flags ask for; `fields`: those of --set.

    Raises:
        ConfigError: with every problem.
    """
    flags = _flags(args)
    if flags.get("--dataset") == AUTO:
        del flags["--dataset"]
    own = {name: value for name, value in defaults.items() if name != "site"}
    return load_experiment(getattr(args, "experiment", None), {**flags, **(fields or {})}, own)


def remembered(run_dir: Path, args: Namespace) -> Request:
    """What the run in `run_dir` was asked for, but for the flags that are given now.

    Its local sites get the CPU threads that they had then: the machine may be another one.

    Raises:
        RunError: there is no run.
        ConfigError: its settings cannot be read back.
    """
    content, problems = described(run_dir), list[Problem]()
    federation = _tried(problems, lambda: build(Federation, Document(content.get("federation"))))
    settings = Document(content.get("experiment"))
    for flag, value in _flags(args).items():
        settings = settings.changed(flag, value)
    experiment = _tried(problems, lambda: build(Experiment, settings))
    if federation is None or experiment is None:
        where = str(run_dir / "run.yaml")
        raise ConfigError(
            [
                replace(problem, where=problem.where or where, message=problem.message + _own(problem))
                for problem in problems
            ]
        )
    return Request(_with_threads(federation, recorded_threads(content)), experiment)


def _own(problem: Problem) -> str:
    """What to do where a name in a run directory is that of a user's own class."""
    if not problem.message.startswith("unknown "):
        return ""
    return "; if it is a class of your own, go on in Python: orchestrator.rounds(..., run_dir, resume=True)"


def whole(text: str, flag: str) -> int:
    """The number, 1 or more, that was given after `flag`.

    Raises:
        ConfigError: it is none.
    """
    if not text.isdecimal() or len(text) > _DIGITS or int(text) < 1:
        message = f"expected a whole number of at least 1 and at most {_DIGITS} digits, got {text!r}"
        raise ConfigError([Problem(f"--{flag} {text}", flag, message)])
    return int(text)


def _flags(args: Namespace) -> dict[str, str]:
    """The flags given for an experiment's fields, as written."""
    given = {name: getattr(args, name, None) for name in FIELDS}
    return {f"--{name.replace('_', '-')}": value for name, value in given.items() if value is not None}


def _sized(federation: Federation, clients: int | None) -> Federation:
    return federation if clients is None else federation.with_clients(clients)


def _with_threads(federation: Federation, threads: Mapping[str, int]) -> Federation:
    sites = (
        site.model_copy(update={"executor": site.executor.model_copy(update={"threads": threads[site.name]})})
        if site.name in threads and site.executor.threads_per_worker() != threads[site.name]
        else site
        for site in federation.sites
    )
    return federation.model_copy(update={"sites": tuple(sites)})


def _found(request: Request) -> Request:
    """The request as it is where its data is found, else with the digits."""
    wanted: Any = request.experiment.dataset  # every family member can tell whether it is there
    default = resolve_folder(request.experiment.data_dir)  # where the driver evaluates, without a local site
    homes = set(local_folders(request.federation, default).values()) or {default}
    missing = sorted(str(folder) for folder in homes if not wanted.available(folder))
    name = request.experiment.resolved()["dataset"]
    if not missing:
        return replace(request, note=f"{name} found in {os.pathsep.join(sorted(map(str, homes)))}: using it")
    note = f"{name} not found in {' and '.join(missing)}: using the embedded digits"
    return replace(request, experiment=request.experiment.model_copy(update={"dataset": Digits()}), note=note)


def _tried(problems: list[Problem], action: Callable[[], T]) -> T | None:
    """What `action` returns; None, and its problems noted, where it finds any."""
    try:
        return action()
    except ConfigError as error:
        problems += error.problems
        return None


def split_settings(texts: Sequence[str]) -> tuple[dict[str, str], dict[str, str], list[Problem]]:
    """`KEY=VALUE` texts as overrides of (the federation, the experiment).

    Third come the problems: texts without `=`, and keys that belong to neither.
    """
    federation: dict[str, str] = {}
    experiment: dict[str, str] = {}
    problems: list[Problem] = []
    for text in texts:
        key, equals, value = text.partition("=")
        first = re.split(r"[.\[]", key)[0]
        if not equals:
            problems.append(Problem(f"--set {text}", "", "expected KEY=VALUE"))
        elif first == "sites":
            federation[key] = value
        elif key in Experiment.model_fields:
            experiment[key] = value
        else:
            near = specs.hint(first, ["sites", *Experiment.model_fields])
            problems.append(Problem(f"--set {text}", key, f"unknown field{near}"))
    return federation, experiment, problems
