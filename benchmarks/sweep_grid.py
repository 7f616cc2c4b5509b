"""What a sweep runs: the settings of each table, the cut of the data, and the experiments that follow.

Does not know: how runs are made, or what becomes of their results.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from fewer import Fewer
from hostile_model import Hostile

from parslfl import specs
from parslfl.data.names import PARTITIONS
from parslfl.experiment import Experiment
from parslfl.models.names import MODELS
from parslfl.protocols import Model, Partition
from parslfl.seeding import derive
from parslfl.sites import Federation, Site
from parslfl_executors.local import Local

HERE = Path(__file__).resolve().parent
TWO_CLASSES = "classes:k=2"


@dataclass(frozen=True)
class Cut:
    """How much of the whole task is done. `examples`: share of each client's examples that it trains on;
    `every`: rounds between two evaluations on the central test set; `split`: the partition in place of those
    of the table. The rest is as in `Experiment`."""

    rounds: int
    epochs: int
    examples: float = 1.0
    every: int = 5
    clients: int = 60
    per_round: int = 20
    lr: float = 0.05
    dataset: str = "cifar10"
    model: str = "cnn"
    split: str = ""

    def __post_init__(self) -> None:
        least = ("rounds", "epochs", "every", "clients", "per_round")
        if min(getattr(self, name) for name in least) < 1 or not 0 < self.examples <= 1:
            raise ValueError(f"--cut: {', '.join(least)} are at least 1, examples above 0 and at most 1")

    def changed(self, text: str) -> Cut:
        """This cut with `KEY=VALUE,KEY=VALUE` in place.

        Raises:
            ValueError: an unknown key, or a value that does not fit, in a sentence.
        """
        kinds = {f.name: type(getattr(self, f.name)) for f in fields(self)}
        found: dict[str, Any] = {}
        for pair in filter(None, text.split(",")):
            key, _, value = pair.partition("=")
            if key not in kinds:
                raise ValueError(f"--cut {pair}: unknown key {key!r}{specs.hint(key, kinds)}")
            try:
                found[key] = kinds[key](value)
            except ValueError:
                raise ValueError(f"--cut {pair}: {value!r} is no {kinds[key].__name__}") from None
        return replace(self, **found)

    def partition(self, spec: str) -> Partition:
        whole = specs.parse(spec, PARTITIONS, "partition")
        return whole if self.examples == 1 else Fewer(whole, self.examples)

    def told(self) -> str:
        """In words, for a reader of the table."""
        part = "all" if self.examples == 1 else f"{100 * self.examples:g} %"
        return (
            f"{self.dataset}, {self.model}, {self.clients} clients, {self.per_round} a round, "
            f"{self.rounds} rounds of {self.epochs} epoch{'s' * (self.epochs > 1)} over {part} of a client's "
            f"examples, lr {self.lr:g}, scored on the whole central test set every {self.every} rounds"
        )


@dataclass(frozen=True)
class Setting:
    """A row of a table, by `name`, in a `partition`; `changes`: (field, value) of the experiment. `attack`:
    what a fifth of the clients do, of `ATTACKS`."""

    name: str
    changes: tuple[tuple[str, Any], ...]
    partition: str = TWO_CLASSES
    attack: str = ""

    @property
    def place(self) -> str:
        """The column of a table that has its row."""
        return ", ".join(filter(None, [self.partition, self.attack]))


@dataclass(frozen=True)
class Run:
    """One setting with one seed, and the folder of its run."""

    setting: Setting
    seed: int
    experiment: Experiment
    federation: Federation
    path: Path


def _codec(spec: str, feedback: bool | None = None) -> Setting:
    off = ", no error feedback" if feedback is False else ""
    return Setting(f"{spec}{off}", (("codec", spec), ("error_feedback", feedback)))


#: The first is what the others are held against.
CODECS = (
    _codec("raw"),
    _codec("fp16"),
    _codec("quantize:bits=8"),
    _codec("quantize:bits=4"),
    _codec("topk:ratio=0.1"),
    _codec("topk:ratio=0.1", feedback=False),
    _codec("topk:ratio=0.01"),
    _codec("topk:ratio=0.01", feedback=False),
    _codec("topk:ratio=0.05+quantize:bits=4+zstd"),
    _codec("lowrank:ratio=0.15+quantize:bits=4,block=64+zstd"),
    _codec("lowrank:ratio=0.05+quantize:bits=4,block=64+zstd"),
)
DROPOUT = tuple(Setting(f"{share:g}", (("federated_dropout", share),)) for share in (0.0, 0.25, 0.5))
PARTITIONED = (TWO_CLASSES, "dirichlet:alpha=0.1", "dirichlet:alpha=0.5")
STRATEGIES = (
    "fedavg",
    "fedprox",
    "dynamic",
    "fedavgm",
    "fedadagrad",
    "fedadam",
    "fedyogi",
    "fednova",
    "scaffold",
    "qfedavg",
    "ditto",
    "trimmed",
    "krum:hostile=4,keep=12",
    "geomedian",
)
METHODS = tuple(
    Setting(strategy, (("strategy", strategy),), partition)
    for partition in PARTITIONED
    for strategy in STRATEGIES
)
SILOS = tuple(
    Setting(strategy, (("strategy", strategy),), "dirichlet:alpha=0.1")
    for strategy in ("fedavg", "scaffold", "scaffold:by=clients")
)
#: What the updates of those who lie are multiplied by.
ATTACKS = {"no liars": 1.0, "turned": -1.0, "turned, x 5": -5.0, "x 100": 100.0}
#: The first is what the others are held against.
GUARDS = (
    "fedavg",
    "median",
    "trimmed:cut=0.2",
    "krum:hostile=2",
    "krum:hostile=2,keep=6",
    "geomedian",
    "medianclip",
    "clip:norm=1",
    "median:mix=2",
    "trimmed:cut=0.2,mix=2",
    "geomedian:mix=2",
)
LIARS = tuple(
    Setting(strategy, (("strategy", strategy),), "iid", attack) for attack in ATTACKS for strategy in GUARDS
)

TABLES: dict[str, tuple[Setting, ...]] = {
    "codecs": CODECS,
    "dropout": DROPOUT,
    "methods": METHODS,
    "silos": SILOS,
    "liars": LIARS,
}
#: Each keeps its table under two hours on two cores: `sweep.py` says what the longest took.
CUTS = {
    "codecs": Cut(rounds=60, epochs=1, every=2),
    "dropout": Cut(rounds=60, epochs=1, every=3),
    "methods": Cut(rounds=20, epochs=1, examples=0.4, every=4),
    "silos": Cut(rounds=30, epochs=1, examples=0.5, every=3, clients=8, per_round=8),
    "liars": Cut(rounds=20, epochs=1, examples=0.1, every=2, clients=10, per_round=10),
}


def chosen(table: str, names: Sequence[str]) -> tuple[Setting, ...]:
    """The settings of `table` whose name is in `names`, or all if that is empty.

    Raises:
        ValueError: a name that `table` does not have.
    """
    known = list(dict.fromkeys(setting.name for setting in TABLES[table]))  # once, of several partitions
    for name in names:
        if name not in known:
            raise ValueError(f"--only: {table} has no {name!r}{specs.hint(name, known)}")
    return tuple(s for s in TABLES[table] if not names or s.name in names)


def runs(table: str, settings: Sequence[Setting], cut: Cut, seeds: Sequence[int], work: Path) -> list[Run]:
    """All runs, one seed after the other: a sweep that is ended early then has whole seeds."""
    placed = [replace(setting, partition=cut.split or setting.partition) for setting in settings]
    placed = list(dict.fromkeys(placed))  # once, of several partitions
    return [_run(setting, cut, seed, work / table) for seed in seeds for setting in placed]


def _run(setting: Setting, cut: Cut, seed: int, folder: Path) -> Run:
    experiment = Experiment.model_validate(
        {
            "dataset": cut.dataset,
            "model": _model(cut, setting, seed),
            "partition": cut.partition(setting.partition),
            "rounds": cut.rounds,
            "per_round": cut.per_round,
            "epochs": cut.epochs,
            "lr": cut.lr,
            "eval_every": cut.every,
            "seed": seed,
            **dict(setting.changes),
        }
    )
    executor = Local(workers=2, worker_init=f"export PYTHONPATH={HERE}${{PYTHONPATH:+:$PYTHONPATH}}")
    site = Site(name="here", clients=cut.clients, executor=executor)
    return Run(
        setting=setting,
        seed=seed,
        experiment=experiment,
        federation=Federation(name="sweep", sites=(site,)),
        path=folder / _folder(setting, experiment, cut) / f"seed-{seed}",
    )


def _model(cut: Cut, setting: Setting, seed: int) -> Model:
    """The model, of which every fifth client makes lies where there is an attack."""
    honest = specs.parse(cut.model, MODELS, "model")
    factor = ATTACKS.get(setting.attack, 1.0)
    if factor == 1:
        return honest
    liars = range(3, cut.clients, 5)
    lies = frozenset(derive(seed, "train", number, liar) for number in range(cut.rounds) for liar in liars)
    return Hostile(honest, factor, lies)


def _folder(setting: Setting, experiment: Experiment, cut: Cut) -> str:
    """A name that is another one whenever the experiment is."""
    described = {**experiment.resolved(), "seed": None, "clients": cut.clients}
    if setting.attack:
        described |= {"model": cut.model, "attack": setting.attack}
    digest = hashlib.blake2b(json.dumps(described, sort_keys=True).encode(), digest_size=4).hexdigest()
    return f"{re.sub(r'[^a-z0-9.]+', '-', setting.name.lower())}-{digest}"
