"""What a sweep found, as Markdown: every number of ours is read from the runs' journals.

Does not know: how runs are made, or how anything is drawn.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from sweep_grid import ATTACKS, CODECS, DROPOUT, GUARDS, Cut, Setting
from sweep_memory import EXAMPLES, Footprint
from sweep_runs import Outcome
from sweep_scores import (
    LAST,
    SCORES,
    Score,
    accuracy,
    below,
    by_setting,
    bytes_and_times,
    over_seeds,
    personal,
    training,
)

Rows = list[list[str]]
Footprints = Mapping[tuple[str, str], Footprint]

VERSIONED = ("parslfl", "parsl", "numpy", "torch")

#: Published accuracies on CIFAR-10, in their own settings, and where they stand: no runs of ours.
ANCHORS: Rows = [
    [
        "Dirichlet 0.1",
        "8 of 8 clients, 50 rounds of 4 epochs, ModerateCNN",
        "FedAvg 80.45, FedProx 80.59, SCAFFOLD 82.60",
        "NVFlare, CIFAR-10 example",
    ],
    ["Dirichlet 0.5", "the same", "FedAvg 87.87", "NVFlare, CIFAR-10 example"],
    [
        "2 classes",
        "10 clients, 50 rounds of 10 epochs, LeNet",
        "FedAvg 51.2, FedProx 50.4",
        "Flower, baseline niid_bench",
    ],
    ["Dirichlet 0.5", "the same", "FedAvg 62.5, SCAFFOLD 68.1", "Flower, baseline niid_bench"],
]


def page(title: str, command: str, seeds: Sequence[int], cut: Cut, parts: Sequence[str], plot: str) -> str:
    """A whole page: what was run and where, the `parts`, and the picture `plot`."""
    facts = [
        f"- `{command}`",
        f"- The cut: {cut.told()}. Seeds {', '.join(map(str, seeds))}.",
        f"- The machine: {_machine()}. {_versions()}.",
        "- One local site with two workers. Accuracy is in percent: mean over seeds (least to most).",
        f"- `end`: mean over the last {100 * LAST:.0f} % of a run's rounds. Bytes: all updates of a run.",
    ]
    return "\n\n".join([f"# {title}", "\n".join(facts), *parts, f"![{title}]({plot})"]) + "\n"


def grid(head: Sequence[str], rows: Rows) -> str:
    """A Markdown table."""
    return "\n".join(f"| {' | '.join(row)} |" for row in [list(head), ["---"] * len(head), *rows])


def codecs(found: Sequence[Outcome]) -> list[str]:
    """Accuracy against bytes, held against the first codec."""
    settings = by_setting(found)
    plain = settings.get(CODECS[0], [])
    rows = [
        [
            dict(setting.changes)["codec"],
            "yes" if mine[0].run.experiment.feeds_back() else "no",
            *bytes_and_times(mine, plain),
            *(over_seeds(mine, score) for score in SCORES),
            *(below(mine, plain, score) for score in ("best", "end")),
        ]
        for setting, mine in settings.items()
    ]
    head = ["codec", "error feedback", "bytes up", "times fewer", *SCORES]
    return [grid([*head, "best, points below raw", "end, points below raw"], rows), every_run(found)]


def dropout(found: Sequence[Outcome], footprints: Footprints) -> list[str]:
    """What smaller models save, and cost. `footprints`: by model and setting, where measured."""
    settings = by_setting(found)
    plain = settings.get(DROPOUT[0], [])
    rows = [
        [
            setting.name,
            f"{training(mine):.2f}",
            f"{training(plain) / training(mine):.2f}" if plain else "-",
            *bytes_and_times(mine, plain),
            *(over_seeds(mine, score) for score in SCORES),
        ]
        for setting, mine in settings.items()
    ]
    head = ["dropped", "training, s a client (median)", "times less", "bytes up", "times fewer", *SCORES]
    return [grid(head, rows), *([_memory(footprints)] if footprints else []), every_run(found)]


def methods(found: Sequence[Outcome]) -> list[str]:
    """Strategies against partitions, with what others published beside them."""
    anchors = grid(["partition", "their setting", "accuracy, %", "source"], ANCHORS)
    return [
        f"`end`:\n\n{_crossed(found, 'end')}",
        f"`best`:\n\n{_crossed(found, 'best')}",
        *_personal(found),
        f"What others published, in settings of their own; the cut above is another task.\n\n{anchors}",
        every_run(found),
    ]


def liars(found: Sequence[Outcome]) -> list[str]:
    """What strategies reach with and without lies, and how far that is below `GUARDS`'s first without."""
    at = {(setting.name, setting.attack): mine for setting, mine in by_setting(found).items()}
    plain = at.get((GUARDS[0], next(iter(ATTACKS))), [])
    names = dict.fromkeys(name for name, _ in at)
    rows = [
        [name, *(below(at.get((name, attack), []), plain, "end") for attack in ATTACKS)] for name in names
    ]
    return [
        f"`end`:\n\n{_crossed(found, 'end')}",
        f"`end`, points below `{GUARDS[0]}` without liars:\n\n{grid(['strategy', *ATTACKS], rows)}",
        every_run(found),
    ]


def every_run(found: Sequence[Outcome]) -> str:
    """Each run by itself, with its exact bytes and its last model's checksum."""
    rows = []
    for one in found:
        scores = [accuracy(one, score) for score in SCORES]
        said = one.stopped or (one.reports[-1].model if one.reports else "-")
        rows.append(
            [
                one.run.setting.name,
                one.run.setting.place,
                str(one.run.seed),
                f"{one.bytes_up():,}",
                *("-" if score is None else f"{score:.2f}" for score in scores),
                str(sum(len(report.failures) for report in one.reports)),
                f"{sum(report.seconds for report in one.reports):.0f}",
                " ".join(said.split()).replace("|", "/"),
            ]
        )
    head = [
        "setting",
        "partition",
        "seed",
        "bytes up",
        *SCORES,
        "failed updates",
        "s",
        "last model, or why none",
    ]
    return f"Every run:\n\n{grid(head, rows)}"


def _crossed(found: Sequence[Outcome], score: Score) -> str:
    settings = by_setting(found)
    names = dict.fromkeys(setting.name for setting in settings)
    places = dict.fromkeys(setting.place for setting in settings)

    def cell(name: str, place: str) -> str:
        at = [mine for s, mine in settings.items() if (s.name, s.place) == (name, place)]
        return over_seeds(at[0], score) if at else "-"

    return grid(["strategy", *places], [[name, *(cell(name, p) for p in places)] for name in names])


def _personal(found: Sequence[Outcome]) -> list[str]:
    scores = {setting: personal(mine) for setting, mine in by_setting(found).items()}
    rows = [_row(setting, *score) for setting, score in scores.items() if score]
    head = ["strategy", "partition", "clients' own models", "the global model on the same examples"]
    said = "Clients' own models on their held-out examples, mean over the last round's clients:"
    return [f"{said}\n\n{grid(head, rows)}"] if rows else []


def _row(setting: Setting, own: float, ours: float) -> list[str]:
    return [setting.name, setting.partition, f"{own:.1f}", f"{ours:.1f}"]


def _memory(footprints: Footprints) -> str:
    """What one client takes: each number of MB is anonymous memory, those in brackets are in all."""
    rows = [
        [
            model,
            name,
            _both(f.base.anonymous, f.base.total),
            _both(f.cut.anonymous - f.base.anonymous, f.cut.total - f.base.total),
            _both(f.peak.anonymous - f.base.anonymous, f.peak.total - f.base.total),
            _both(f.peak.anonymous, f.peak.total),
            _part(f, footprints.get((model, DROPOUT[0].name))),
            f"{f.cut_seconds:.2f}",
            f"{f.seconds:.2f}",
        ]
        for (model, name), f in footprints.items()
    ]
    said = (
        f"One client's training in a fresh process with one thread, {EXAMPLES} examples in batches of 32. MB "
        "of memory that is no file's, in brackets with mapped files and code. The base is the same whatever "
        "is dropped: Python, torch, data set and global model. On top comes the client's own, at its peak: "
        "first to find and build the smaller network, then to train it as well "
        "(`benchmarks/sweep_memory.py` says how it is counted):"
    )
    head = [
        "model",
        "dropped",
        "base, MB",
        "smaller network found, MB more",
        "trained, MB more",
        "peak, MB",
        "trained, share of whole model's",
        "s to find it",
        "s to train, with that",
    ]
    return f"{said}\n\n{grid(head, rows)}"


def _both(anonymous: float, total: float) -> str:
    return f"{anonymous:.0f} ({total:.0f})"


def _part(mine: Footprint, whole: Footprint | None) -> str:
    """Anonymous memory on top of the base, as a share of what the whole model takes there."""
    if whole is None:
        return "-"
    more, most = (f.peak.anonymous - f.base.anonymous for f in (mine, whole))
    return f"{100 * more / most:.0f} %"


def _machine() -> str:
    """Processor, cores that may be used, and how busy they were when this was written."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    cores = len(os.sched_getaffinity(0))
    name = models[0] if models else platform.machine()
    return f"{name}, {cores} cores, load {os.getloadavg()[2]:.1f} over its last 15 minutes"


def _versions() -> str:
    return ", ".join(
        [f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in VERSIONED)]
    )
