"""What each command does, once its flags are parsed.

Does not know: how flags are written, or what becomes of an error.
"""

from __future__ import annotations

import contextlib
import shutil
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from parslfl.commands.inspection import inspect
from parslfl.commands.rehearsal import rehearse, sites_table
from parslfl.commands.request import Request, asked, experiment_of, remembered, whole
from parslfl.commands.training import train
from parslfl.data.folder import resolve_folder
from parslfl.data.partition import holdings
from parslfl.document import shown
from parslfl.errors import ConfigError, Problem
from parslfl.outlook import kept
from parslfl.report import holdings as picture
from parslfl.report import tables
from parslfl.report.live import marks
from parslfl.report.panel import ASCII
from parslfl.report.progress import Row
from parslfl.rundir import journal
from parslfl.rundir.runs import fresh_path
from parslfl.seeding import derive
from parslfl.sites import find_site_file, load_federation, site_files

#: Clients of `parslfl partition` where none are asked for: the paper's.
_CLIENTS = "60"


def run(args: Namespace) -> int:
    """Train, or with --dry-run show what would be trained."""
    if args.resume and args.run_dir is None:
        raise ConfigError([Problem("--resume", "", "name the run to go on with: --run-dir DIR")])
    request = asked(args, args.defaults)
    path = None if args.run_dir is None else _directory(args.run_dir, "--run-dir")
    if request.note and not args.quiet:
        print(request.note, flush=True)
    if args.dry_run:
        rehearse(request, path, Console(), resume=args.resume)
    else:
        _train(args, request, path or fresh_path(request.experiment.name), args.resume)
    return 0


def _directory(text: str, flag: str) -> Path:
    if not text:
        raise ConfigError([Problem(flag, "", "expected a directory, got nothing")])
    return Path(text).absolute()


def resume(args: Namespace) -> int:
    """Go on with the run in a directory, with the settings it has."""
    path = _directory(args.run_dir, "RUN_DIR")
    _train(args, remembered(path, args), path, True)
    return 0


def report(args: Namespace) -> int:
    """Show the finished rounds of a run."""
    path = _directory(args.run_dir, "RUN_DIR")
    what = journal.described(path)["experiment"]
    print(
        ", ".join(
            f"{key} {what[key]}"
            for key in ("name", "dataset", "partition", "model", "strategy", "codec", "downlink_codec")
            if key in what and (key, what[key]) != ("downlink_codec", "raw")
        )
    )
    tables.show([Row.of(one) for one in journal.reports(path)], Console())
    for round, signals in sorted(kept(path).items())[-1:]:
        for name, told in signals.items():
            print(f"{name} before round {round + 1}: {told.text()}")
    return 0


def sites(args: Namespace) -> int:
    """List the site files that need no folder, or show one."""
    console = Console()
    if args.file:
        print(shown(find_site_file(args.file)))
        console.print(sites_table(load_federation(args.file)))
        return 0
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("site file", "sites", "where"):
        table.add_column(heading, overflow="fold")
    for name, path in sorted(site_files().items()):
        table.add_row(Text(name), _inside(path), Text(shown(path.parent)))
    console.print(table)
    return 0


def partition(args: Namespace) -> int:
    """Show which client holds how many examples of which class."""
    experiment = experiment_of(args, args.defaults)
    clients = whole(args.clients or _CLIENTS, "clients")
    folder = resolve_folder(experiment.data_dir)
    if not experiment.dataset.available(folder):
        experiment.dataset.fetch(folder)
    labels = experiment.dataset.labels(folder)
    parts = experiment.partition.split(labels, clients, derive(experiment.seed, "partition"))
    counts = holdings(labels, parts, experiment.dataset.classes)
    what = experiment.resolved()
    title = f"{what['dataset']} by {what['partition']} among {clients} clients, seed {experiment.seed}"
    _show(counts, title, args.counts)
    if args.plot:
        picture.plot(counts, title, Path(args.plot))
        print(f"picture: {args.plot}")
    return 0


def doctor(args: Namespace) -> int:
    """Look at every site before anything is spent on it."""
    from parslfl.commands.doctor import examine, patience

    wait = patience(args)
    told = args.experiment is not None or args.per_round is not None
    request = asked(args, args.defaults, fitting=told)
    parent = None if args.run_dir is None else _directory(args.run_dir, "--run-dir")
    runs = parent or Path("runs")
    was_there = runs.exists()
    folder = fresh_path("doctor", parent)
    try:
        return 1 if examine(request, folder, wait) else 0
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if not was_there:
            with contextlib.suppress(OSError):  # a run may have begun in it meanwhile
                runs.rmdir()


def cleanup(args: Namespace) -> int:
    """End what killed drivers left: of one run, or of all in runs/."""
    from parslfl.commands.cleanup import clean, unfinished

    paths = [_directory(args.run_dir, "RUN_DIR")] if args.run_dir else unfinished(Path("runs"))
    if not paths:
        print("no run in runs/: name a run directory")
    return 1 if [path for path in paths if not clean(path, alone=bool(args.run_dir))] else 0


def _train(args: Namespace, request: Request, path: Path, resume: bool) -> None:
    try:
        train(request, path, resume=resume, plain=args.plain, quiet=args.quiet)
    except BaseException:
        with contextlib.suppress(OSError):
            path.rmdir()  # it failed before it wrote anything: leave no empty folder
        raise


def _show(counts: picture.Counts, title: str, numbers: bool) -> None:
    console = Console()
    print(title)
    if numbers:
        console.print(picture.numbers(counts))
    else:
        for line in picture.picture(counts, console.width, ascii_only=marks(console) is ASCII):
            console.print(line)
    for text in picture.spread(counts):
        print(text)


def _inside(path: Path) -> Text:
    """The sites in a file, or what is wrong with it."""
    try:
        found = load_federation(path)
    except ConfigError as error:
        return Text(str(error.problems[0]), style="red")
    return Text(
        ", ".join(f"{site.name} ({site.executor.kind}, {site.clients} clients)" for site in found.sites)
    )


COMMANDS: dict[str, Callable[[Namespace], int]] = {
    "run": run,
    "resume": resume,
    "report": report,
    "sites": sites,
    "partition": partition,
    "doctor": doctor,
    "cleanup": cleanup,
    "inspect": inspect,
}
