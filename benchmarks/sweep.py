"""Tables of accuracy from whole, real runs: against bytes, with smaller models, of all strategies.

    python benchmarks/sweep.py codecs|dropout|methods|silos|liars [--seeds 0,1,2] [--rounds N]
        [--cut KEY=VALUE,...] [--only NAME[;NAME...]] [--plan] [--work runs/sweep] [--out docs/results]

codecs   accuracy against uplink bytes, 2 classes a client, with and without error feedback
dropout  federated dropout: seconds, memory, bytes and accuracy
methods  strategies against partitions; the robust ones among them meet no liars here
silos    some of them with few, large clients, all in every round
liars    robust strategies where a fifth of the clients send updates turned round, turned round and 5 times as
         long, or 100 times as long; they do not adapt to the strategy, as stronger attacks would

Each (setting, seed) is a run through `parslfl.orchestrator.rounds` on a local site with two workers, in a
folder of its own under `--work`. End it at any time: the same command goes on where it was. Before it
starts it times two rounds and says how many runs there are and about how long they take; `--plan` stops
there. `--cut` changes how much of the task is done (`sweep_grid.Cut` has the keys); what was cut is printed
and stands in the table. A page and a plot go to `--out` once every run is done,
over those of the same table there: with `--only` name another folder.

How long, with the default cuts and three seeds, on two cores of an AMD EPYC: one epoch of the `cnn` over a
client's 833 images takes 0.24 CPU seconds (0.16 and 0.12 with a quarter and half dropped), the test set 0.9,
a run 5 s to begin; so a round of 20 clients takes about 2.5 s an epoch. The 33 runs of codecs took 1 h 38
min beside other work. The 126 of methods took 1 h 45 min 37 s on slower cores (Zen 3), with a few minutes of
tests beside them; with tests beside most of them it was 2 h 19 min.

Does not know: what the numbers should be.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import sweep_runs
from sweep_grid import CUTS, DROPOUT, TABLES, Cut, Run, Setting, chosen, runs
from sweep_memory import Footprint, footprint, measured
from sweep_plot import draw
from sweep_runs import Outcome
from sweep_tables import codecs, dropout, liars, methods, page

from parslfl.document import Document
from parslfl.errors import ConfigError, ParslflError
from parslfl.experiment import Experiment
from parslfl.fitting import check
from parslfl.settings import build

TITLES = {
    "codecs": "Accuracy against bytes",
    "dropout": "Federated dropout",
    "methods": "Strategies against partitions",
    "silos": "All clients in every round",
    "liars": "A fifth of the clients lie",
}
#: What federated dropout's memory is measured with.
MODELS = ("cnn", "resnet18")


def main(words: Sequence[str] | None = None) -> int:
    asked = _parser().parse_args(words)
    try:
        cut = CUTS[asked.table].changed(asked.cut)
        cut = cut.changed(f"rounds={asked.rounds}") if asked.rounds is not None else cut
        _require_sound(cut)
        settings = chosen(asked.table, [name for name in asked.only.split(";") if name])
        seeds = _seeds(asked.seeds)
        todo = runs(asked.table, settings, cut, seeds, asked.work)
        for run in todo:
            check(run.federation, run.experiment)
        print(f"{asked.table}: {len(todo) // len(seeds)} settings x {len(seeds)} seeds = {len(todo)} runs")
        print(f"the cut: {cut.told()}", flush=True)
        found = _swept(todo, plan=asked.plan)
    except (ParslflError, ValueError) as error:
        print(f"sweep: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nended; the same command goes on from here", file=sys.stderr)
        return 130
    if found:
        _write(asked.table, _again(asked), seeds, cut, found, asked.out, asked.work)
    return 0


def _seeds(text: str) -> list[int]:
    words = text.split(",")
    if not all(word.isdecimal() for word in words) or len({int(word) for word in words}) < len(words):
        raise ValueError(f"--seeds {text}: expected whole numbers from 0, each once, joined by commas")
    return [int(word) for word in words]


def _require_sound(cut: Cut) -> None:
    """Refuse values that no experiment may have, in the words that its file would get."""
    names = ("dataset", "model", "rounds", "per_round", "epochs", "lr")
    try:
        build(Experiment, Document({name: getattr(cut, name) for name in names}))
    except ConfigError as error:
        raise ValueError(f"--cut: {'; '.join(map(str, error.problems))}") from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("sweep.py", description="Tables of accuracy from whole runs.")
    parser.add_argument("table", choices=TABLES)
    parser.add_argument("--seeds", default="0,1,2", help="such as 0,1,2")
    parser.add_argument("--rounds", type=int, help="the same as --cut rounds=N")
    parser.add_argument("--cut", default="", help="KEY=VALUE,...: examples=0.5,epochs=1")
    parser.add_argument("--only", default="", help="settings by name, joined by ;")
    parser.add_argument("--plan", action="store_true", help="only say how long it would take")
    parser.add_argument("--work", type=Path, default=Path("runs/sweep"), help="folder of the runs")
    parser.add_argument("--out", type=Path, default=Path("docs/results"), help="folder of page and plot")
    return parser


def _again(asked: argparse.Namespace) -> str:
    """The command that makes the same table; where it puts it is left out."""
    given = {"--seeds": asked.seeds, "--rounds": asked.rounds, "--cut": asked.cut, "--only": asked.only}
    flags = [word for flag, value in given.items() if value for word in (flag, str(value))]
    return shlex.join(["python", "benchmarks/sweep.py", asked.table, *flags])


def _swept(every: Sequence[Run], *, plan: bool) -> list[Outcome]:
    """What all runs came to, once those that are left are done; nothing with `plan`."""
    todo = [run for run in every if not sweep_runs.finished(run)]
    print(f"{len(every) - len(todo)} of {len(every)} runs are finished", flush=True)
    starts = [sweep_runs.time_first(todo[0]).start] if todo and not _paces(every) else []
    if todo:
        print(f"about {_left(todo, every, starts)} to go, judged by the rounds done so far", flush=True)
    if plan:
        return []
    stopped = {}
    for number, run in enumerate(todo, 1):
        went = sweep_runs.complete(run)
        starts.append(went.start)
        stopped[run.path] = went.stopped
        said = went.stopped or _reached(run)
        to_go = _left(todo[number:], every, starts)
        setting = f"{run.setting.name}, {run.setting.place}, seed {run.seed}"
        print(f"{number}/{len(todo)} {setting}: {said}; about {to_go} to go", flush=True)
    return [sweep_runs.outcome(run, stopped.get(run.path, "")) for run in every]


def _paces(every: Sequence[Run]) -> list[tuple[Setting, float]]:
    found = [(run.setting, sweep_runs.pace(run)) for run in every]
    return [(setting, pace) for setting, pace in found if pace is not None]


def _left(todo: Sequence[Run], every: Sequence[Run], starts: Sequence[float]) -> str:
    ahead = [(run.setting, sweep_runs.rounds_left(run)) for run in todo]
    start = sum(starts) / len(starts) if starts else 5.0
    minutes = round(sweep_runs.left(ahead, _paces(every), start) / 60) if _paces(every) else 0
    return f"{minutes // 60} h {minutes % 60:02d} min"


def _reached(run: Run) -> str:
    scored = sweep_runs.outcome(run).scored()
    return f"{scored[-1][2]:.1f} %" if scored else "not scored"


def _write(
    table: str, command: str, seeds: Sequence[int], cut: Cut, found: Sequence[Outcome], out: Path, work: Path
) -> None:
    out.mkdir(parents=True, exist_ok=True)
    if table == "codecs":
        parts = codecs(found)
    elif table == "dropout":
        parts = dropout(found, _footprints(work / "footprints") if cut.dataset == "cifar10" else {})
    else:
        parts = (liars if table == "liars" else methods)(found)
    draw(found, out / f"{table}.svg", against_bytes=table == "codecs")
    (out / f"{table}.md").write_text(page(TITLES[table], command, seeds, cut, parts, f"{table}.svg"))
    print(f"written: {out / table}.md and .svg")


def _footprints(folder: Path) -> dict[tuple[str, str], Footprint]:
    """For each model and ratio; measured once, then read from `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for model in MODELS:
        for setting in DROPOUT:
            kept = folder / f"{model}-{setting.name}.json"
            if not kept.exists():
                made = measured(model, float(setting.name))
                part = kept.with_suffix(".part")
                part.write_text(json.dumps(asdict(made)))
                part.replace(kept)
            found[model, setting.name] = footprint(kept.read_text())
    return found


if __name__ == "__main__":
    sys.exit(main())
