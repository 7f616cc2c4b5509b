"""The command line's flags and their help; the same for every workflow.

A flag that is not given says nothing: defaults live in `Experiment`, workflows and experiment
files, and the help only quotes them. Values are kept as written; `settings` checks them all at
once. Nothing heavy is imported before a help text is asked for.

Does not know: what a flag does.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from parslfl.errors import ConfigError, Problem
from parslfl.specs import hint

LEARN, WHO, CLOSE, WHERE, RUN = (
    "what to learn",
    "who takes part",
    "how a round closes",
    "where",
    "this run",
)

_UNKNOWN = "unknown argument "

#: Site file where none is named.
SITE = "local.yaml"


@dataclass(frozen=True)
class Flag:
    """One flag. `field`: the Experiment's field it sets, if any; `family`: module and dict of names."""

    name: str
    group: str
    help: str
    metavar: str | None = None
    field: str | None = None
    family: tuple[str, str] | None = None
    action: str = "store"


def _of(name: str, group: str, metavar: str, help: str, family: tuple[str, str] | None = None) -> Flag:
    """A flag that sets the Experiment's field of the same name."""
    return Flag(f"--{name}", group, help, metavar, name.replace("-", "_"), family)


_DATASET = _of(
    "dataset",
    LEARN,
    "NAME",
    "data set, or auto: the default if it is found, else digits",
    ("parslfl.data.names", "DATASETS"),
)
_PARTITION = _of(
    "partition", WHO, "SPEC", "how examples are divided among clients", ("parslfl.data.names", "PARTITIONS")
)
_SEED = _of("seed", RUN, "N", "all random choices follow from it")
_DATA_DIR = _of("data-dir", WHERE, "DIR", "data folder for sites that name none (or set PARSLFL_DATA)")
_CLIENTS = Flag("--clients", WHO, "clients in all, over the sites in the site file's proportion", "N")
_DEBUG = Flag("--debug", RUN, "show the traceback of an error", action="store_true")

#: Flags of every workflow and of `parslfl run`.
FLAGS = (
    _DATASET,
    _of("model", LEARN, "NAME", "model family", ("parslfl.models.names", "MODELS")),
    _of(
        "strategy",
        LEARN,
        "SPEC",
        "how updates become the next model",
        ("parslfl.strategies.names", "STRATEGIES"),
    ),
    _of(
        "codec",
        LEARN,
        "SPEC",
        "how updates are written; + joins several, as in lowrank:ratio=0.15+quantize:bits=4,block=64+zstd; "
        "or auto: as strongly as each client's link needs for sending to take a tenth of its training",
        ("parslfl.codecs.names", "CODECS"),
    ),
    _of(
        "error-feedback",
        LEARN,
        "true|false",
        "add to a client's next update what the codec left out; without it: with topk, randomk and lowrank",
    ),
    _of(
        "federated-dropout",
        LEARN,
        "SHARE",
        "share of hidden units that a client leaves out: it trains and sends a smaller model (0 to 1); or "
        "auto: for slow clients only, by their pace",
    ),
    _of(
        "downlink-codec",
        LEARN,
        "SPEC",
        "how the model goes out to clients that have an earlier one: what has changed since, as --codec "
        "writes updates; raw: always whole",
    ),
    _of("rounds", LEARN, "N", "rounds in all"),
    _of("epochs", LEARN, "N", "passes of a client over its own examples in a round"),
    _of("batch-size", LEARN, "N", "examples in one step"),
    _of("lr", LEARN, "RATE", "learning rate"),
    _of("momentum", LEARN, "M", "momentum in [0, 1)"),
    _of("weight-decay", LEARN, "W", "weight decay"),
    _of("eval-every", LEARN, "N", "rounds between two evaluations; 0: only the last round"),
    _CLIENTS,
    _of("per-round", WHO, "N", "clients chosen in a round"),
    _PARTITION,
    _of(
        "deadline",
        CLOSE,
        "TIME",
        "a round waits no longer, and clients stop at nine tenths of it: seconds, 90s, 5m, 1h or 00:05:00",
    ),
    _of("fastest", CLOSE, "N", "a round closes with this many updates, without the slower ones"),
    _of("quorum", CLOSE, "N", "with fewer updates the run stops; without it: half the cohort"),
    Flag("--site", WHERE, "site file: as given, else in site_configs/", "FILE", action="once"),
    _DATA_DIR,
    _of("device", WHERE, "NAME", "auto, cpu, cuda, cuda:1 or mps"),
    Flag("--experiment", RUN, "experiment file; beats the defaults, flags beat it", "FILE"),
    Flag("--set", RUN, "any field; beats every flag; may be repeated", "KEY=VALUE", action="append"),
    _SEED,
    Flag("--run-dir", RUN, "directory of this run (default: a new one in runs/)", "DIR"),
    Flag("--resume", RUN, "go on with the run in --run-dir", action="store_true"),
    Flag("--dry-run", RUN, "check everything, show the next round, start nothing", action="store_true"),
    Flag("--plain", RUN, "one line a round instead of the live display", action="store_true"),
    Flag("--quiet", RUN, "only the last line", action="store_true"),
    _DEBUG,
)

#: Flags of `parslfl partition`.
PARTITION_FLAGS = (
    _DATASET,
    _PARTITION,
    _CLIENTS,
    _SEED,
    _DATA_DIR,
    Flag("--counts", RUN, "numbers instead of a picture", action="store_true"),
    Flag("--plot", RUN, "also write a picture to FILE (.png, .pdf, .svg; needs matplotlib)", "FILE"),
    _DEBUG,
)

#: Flags of `parslfl resume`.
RESUME_FLAGS = (
    _of("rounds", RUN, "N", "rounds in all, those already done included"),
    *(flag for flag in FLAGS if flag.group == CLOSE),
    _DATA_DIR,
    *(flag for flag in FLAGS if flag.name in {"--plain", "--quiet", "--debug"}),
)

#: Flags of `parslfl doctor`.
DOCTOR_FLAGS = (
    *(
        flag
        for flag in FLAGS
        if flag.name not in {"--run-dir", "--resume", "--dry-run", "--plain", "--quiet"}
    ),
    Flag("--run-dir", RUN, "where a run's directory would be made (default: runs/)", "DIR"),
    Flag("--probe", RUN, "also start a short job at each site", action="store_true"),
    Flag("--wait", RUN, "how long a probe may wait in a queue: seconds, 90s, 5m (default: 10m)", "TIME"),
)

#: Experiment fields that flags set.
FIELDS = tuple(flag.field for flag in FLAGS if flag.field)


class _Once(argparse.Action):
    """Keeps the value of a flag that a user may well give twice, to mean both."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: Any = None
    ) -> None:
        if getattr(namespace, self.dest) is not None:
            parser.error(f"{option} was given twice: one file lists all sites of a run, as hybrid.yaml does")
        setattr(namespace, self.dest, values)


class Parser(argparse.ArgumentParser):
    """An argument parser whose mistakes are `ConfigError`s and whose help quotes defaults."""

    def __init__(self, *, defaults: Mapping[str, object] | None = None, **kwargs: Any) -> None:
        kwargs |= {"allow_abbrev": False, "formatter_class": argparse.RawDescriptionHelpFormatter}
        super().__init__(**kwargs)
        self.quoted: dict[str, Flag] = {}
        self.defaults = dict(defaults or {})

    def parse_known_args(  # type: ignore[override]  # its overloads only tell namespaces apart
        self, args: Any = None, namespace: Any = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """As usual, but a command refuses what it does not know itself, for it knows its flags."""
        found, rest = super().parse_known_args(args, namespace)
        if rest:
            self.error(f"{_UNKNOWN}{' '.join(rest)}")
        return found, rest

    def error(self, message: str) -> NoReturn:
        """Refuse the command line.

        Raises:
            ConfigError: always.
        """
        known = [option for option in self._option_string_actions if option.startswith("--")]
        head, _, wrong = message.partition(_UNKNOWN)
        if wrong.startswith("-") and not head:
            near = hint(wrong.split()[0].partition("=")[0], known)
            message += near if "did you mean" in near else ""
        raise ConfigError([Problem("", "", f"{message}; {self.prog} --help lists what there is")])

    def format_help(self) -> str:
        """The help, with names and defaults filled in."""
        given = {**_experiment_defaults(), "site": SITE, **self.defaults}
        for action in self._actions:
            flag = self.quoted.get(action.dest)
            if flag:
                action.help = _described(flag, given)
        return super().format_help()


def add(parser: Parser, flags: Sequence[Flag]) -> None:
    """Give `parser` these flags, under their groups' headings."""
    for title in (LEARN, WHO, CLOSE, WHERE, RUN):
        group = parser.add_argument_group(title)
        for flag in (flag for flag in flags if flag.group == title):
            extra: dict[str, Any] = {} if flag.action == "store_true" else {"metavar": flag.metavar}
            default = False if flag.action == "store_true" else None
            action: Any = _Once if flag.action == "once" else flag.action
            added = group.add_argument(flag.name, help=flag.help, action=action, default=default, **extra)
            parser.quoted[added.dest] = flag


def _described(flag: Flag, defaults: Mapping[str, object]) -> str:
    """The flag's help, the names it knows, its default; `%` doubled as argparse wants it."""
    text = flag.help
    if flag.family:
        text += ": " + ", ".join(_specs(*flag.family))
    default = defaults.get(flag.field or flag.name.removeprefix("--"))
    if default is not None:
        text += f" (default: {default})"
    return text.replace("%", "%%")


def _specs(module: str, names: str) -> list[str]:
    """The specs of a family: each name, with its fields and their defaults."""
    known: Mapping[str, type] = getattr(importlib.import_module(module), names)
    return [_spec(name, kind) for name, kind in known.items()]


def _spec(name: str, kind: type) -> str:
    fields = [f for f in dataclasses.fields(kind) if f.init] if dataclasses.is_dataclass(kind) else []
    pairs = (
        f.name + "=" + (f.name.upper() if f.default is dataclasses.MISSING else str(f.default))
        for f in fields
    )
    return f"{name}:{','.join(pairs)}" if fields else name


def _experiment_defaults() -> dict[str, object]:
    """Field -> default, from `Experiment`, whose pydantic only a help text needs here."""
    from parslfl.experiment import Experiment

    return Experiment().resolved()
