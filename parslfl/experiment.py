"""What is trained, on what data and how: an experiment, and the YAML files that describe one.

Does not know: where the clients are; `fitting` says whether the two fit.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    FieldSerializationInfo,
    StrictBool,
    ValidationInfo,
    field_serializer,
    field_validator,
)

from parslfl import document, settings, specs
from parslfl.codecs import ladder
from parslfl.codecs.chain import Chain
from parslfl.codecs.names import CODECS
from parslfl.codecs.raw import Raw
from parslfl.data.cifar10 import Cifar10
from parslfl.data.names import DATASETS, PARTITIONS
from parslfl.data.partition import Classes
from parslfl.document import Document
from parslfl.errors import ConfigError, Problem, naming
from parslfl.learning import LocalWork
from parslfl.messages import Client, RoundPlan
from parslfl.models.cnn import Cnn
from parslfl.models.names import MODELS
from parslfl.planning.history import History
from parslfl.planning.links import Ladder, Rung
from parslfl.planning.selection import plan_round
from parslfl.planning.tailoring import tailored
from parslfl.protocols import ClientSide, Codec, Dataset, Model, Partition, Strategy
from parslfl.strategies.fedavg import FedAvg
from parslfl.strategies.names import STRATEGIES
from parslfl_executors.fields import Count, Duration, FieldError, Number, Settings, Whole

#: Field -> (what a spec can name, what an object needs).
_FAMILIES: dict[str, tuple[Mapping[str, type], type]] = {
    "dataset": (DATASETS, Dataset),
    "partition": (PARTITIONS, Partition),
    "model": (MODELS, Model),
    "strategy": (STRATEGIES, Strategy),
    "codec": (CODECS, Codec),
    "downlink_codec": (CODECS, Codec),
}
#: Families whose members `+` joins, and into what.
_CHAINS: dict[str, Callable[[tuple[Any, ...]], Any]] = {"codec": Chain}

#: Of `codec` and `federated_dropout`: the planner chooses, for each client and round.
AUTO: Literal["auto"] = "auto"

_LONGEST_NAME = 100
#: More is a slip of the finger.
_Many = Annotated[Count, Field(le=1_000_000)]
_Wait = Annotated[Duration, Field(le=30 * 86400)]


def _device(text: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?|mps", text):
        raise FieldError(f"expected auto, cpu, cuda, cuda:N or mps, got {text!r}")
    return text


def _dropout(value: object) -> object:
    number = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1
    if not number and value != AUTO:
        raise FieldError(f"expected auto, or a number of at least 0 and less than 1, got {value!r}")
    return value


def _name(text: str) -> str:
    if len(text) > _LONGEST_NAME:
        raise FieldError(f"expected at most {_LONGEST_NAME} characters, got {len(text)}")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", text):  # it becomes a folder's name
        raise FieldError(f"expected letters, digits, -, _ and . (not first), got {text!r}")
    return text


class Experiment(Settings):
    """What the clients of a federation do. Made in Python, it raises pydantic's ValidationError.

    dataset, partition, model, strategy, codec, downlink_codec: a spec (`classes:k=2`), or an object that
    has the methods of its Protocol. epochs, batch_size, lr, momentum, weight_decay, device: as in
    `learning.LocalWork`.

    codec: "auto": the planner chooses for each client and round, by its link and its training time.
    downlink_codec: of the model's changes, for clients that have an earlier one (`raw`: it goes out whole).
    error_feedback: what the codec leaves out of an update is kept at the site and added to the
    client's next one (None: where its error does not average out, as with topk and lowrank).
    federated_dropout: share of each hidden layer's units that a client leaves out: it trains and sends
    a smaller model, others each round (Caldas et al. 2018). "auto": slow clients do, by their pace.

    per_round: clients chosen in a round. deadline: seconds after which a round closes (clients stop
    at nine tenths of it). fastest: it closes with that many updates (None: it waits for all). quorum:
    with fewer updates the run stops (None: half of per_round, rounded up). eval_every: rounds between
    two evaluations (0: only the last round). evaluate_on: a site or "driver" (None: the first local
    site, else the driver). data_dir: data folder of the driver and of sites that name none.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    name: Annotated[str, AfterValidator(_name)] = "experiment"
    dataset: Dataset = Cifar10()
    partition: Partition = Classes(k=2)
    model: Model = Cnn()
    strategy: Strategy = FedAvg()
    codec: Codec | Literal["auto"] = Raw()
    error_feedback: StrictBool | None = None
    federated_dropout: Annotated[float | Literal["auto"], BeforeValidator(_dropout)] = 0.0
    downlink_codec: Codec = Raw()
    rounds: _Many = 10
    per_round: Count = 20
    epochs: _Many = 5
    batch_size: Count = 32
    lr: Annotated[Number, Field(gt=0)] = 0.05
    momentum: Annotated[Number, Field(ge=0, lt=1)] = 0.0
    weight_decay: Annotated[Number, Field(ge=0)] = 0.0
    device: Annotated[str, AfterValidator(_device)] = "auto"
    seed: Whole = 0
    deadline: _Wait | None = None
    fastest: Count | None = None
    quorum: Count | None = None
    eval_every: Whole = 1
    evaluate_on: str | None = None
    data_dir: str | None = None

    @field_validator(*_FAMILIES, mode="plain")
    @classmethod
    def _parse(cls, value: object, info: ValidationInfo) -> object:
        known, protocol = _FAMILIES[info.field_name or ""]
        family = (info.field_name or "").removeprefix("downlink_")
        if info.field_name == "codec" and value == AUTO:
            return AUTO
        if isinstance(value, str):
            return _parsed(value, known, family, auto=info.field_name == "codec")
        missing = [name for name in vars(protocol) if not name.startswith("_") and not hasattr(value, name)]
        if value is None or isinstance(value, dict | list | int | float | type) or missing:
            raise FieldError(specs.unfit(value, known, family, missing))
        return value

    @field_serializer(*_FAMILIES)
    def _spec(self, value: object, info: FieldSerializationInfo) -> str:
        if isinstance(value, str):
            return value
        return specs.render(value, _FAMILIES[info.field_name][0])

    def work(self) -> LocalWork:
        """What one client does in a round, before the strategy has its say."""
        return LocalWork(
            epochs=self.epochs,
            batch_size=self.batch_size,
            lr=self.lr,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            device=self.device,
            keep=1.0 if self.federated_dropout == AUTO else 1 - self.federated_dropout,
        )

    def assigned(self) -> LocalWork:
        """What one client does in a round, as the strategy has it.

        Raises:
            RunError: the strategy's `local` fails, or returns something else.
        """
        with naming(self.strategy, "local"):
            return replace(self.strategy.local(self.work()))

    def plan(
        self,
        round: int,
        roster: Sequence[Client],
        waits: Mapping[str, float] = MappingProxyType({}),
        history: History = History(),  # noqa: B008 - frozen
        unsent: Collection[str] = (),
    ) -> RoundPlan:
        """Who of `roster` trains in `round`, and how. `waits`: seconds until a site begins, where known.
        `history`: of the rounds before, and `unsent`: sites whose updates stay there, for what is "auto"."""
        rungs, codec = self._codecs()
        plan = plan_round(
            round,
            roster,
            self.per_round,
            self.seed,
            self.assigned(),
            codec,
            quorum=self.quorum,
            fastest=self.fastest,
            deadline=self.deadline,
            waits=waits,
        )
        shrink = self.federated_dropout == AUTO
        return tailored(plan, history, rungs, shrink=shrink, unsent=unsent) if rungs or shrink else plan

    def adapts(self) -> bool:
        """Whether the planner chooses anything by what rounds have shown."""
        return AUTO in (self.codec, self.federated_dropout)

    def _codecs(self) -> tuple[Ladder | None, Codec]:
        """What "auto" chooses from, and the codec of clients of which nothing is known."""
        if not isinstance(self.codec, str):
            return None, self.codec
        rungs = [Rung(*one) for one in ladder.rungs(biased=self.feeds_back())]
        return Ladder(rungs, ladder.FIRST), rungs[ladder.FIRST].codec

    def keepers(self) -> list[str]:
        """Fields that ask for state of clients to be kept at their sites from round to round."""
        asked = {"strategy": isinstance(self.strategy, ClientSide), "error_feedback": self.feeds_back()}
        return [field for field, needed in asked.items() if needed]

    def feeds_back(self) -> bool:
        """Whether clients add to their next update what the codec left out of the last one."""
        if self.error_feedback is None:
            return self.codec == AUTO or bool(getattr(self.codec, "biased", False))
        return self.error_feedback

    def downlink(self) -> Codec | None:
        """The codec of what goes out to clients; None where every model goes out whole."""
        return None if isinstance(self.downlink_codec, Raw) else self.downlink_codec

    def resolved(self) -> dict[str, Any]:
        """Plain data that makes an equal experiment again, if its objects are known by name."""
        return self.model_dump(mode="json")


def load_experiment(
    path: str | Path | None,
    overrides: Mapping[str, object] | None = None,
    defaults: Mapping[str, object] | None = None,
) -> Experiment:
    """The experiment in the file at `path`, if any, over `defaults` and under `overrides`.

    Keys of `overrides` are fields, or the flags that were given for them (`--per-round`);
    values that are text are read as YAML.

    Raises:
        ConfigError: with every problem at once.
    """
    found = document.read(_file(path)) if path is not None else Document({})
    if isinstance(found.data, dict):
        found = found.over(defaults or {})
    for key, value in (overrides or {}).items():
        found = found.changed(key, value)
    return settings.build(Experiment, found)


def _parsed(text: str, known: Mapping[str, type], family: str, *, auto: bool) -> object:
    try:
        if family in _CHAINS:
            return specs.parse_chain(text, known, family, _CHAINS[family])
        return specs.parse(text, known, family)
    except ConfigError as error:
        told = "; ".join(problem.message for problem in error.problems)
        more = f"; or {AUTO}, alone" if auto and f"unknown {family}" in told else ""
        raise FieldError(told + more) from None


def _file(path: str | Path) -> Path:
    candidates = [Path(path), Path(f"{path}.yaml")]
    found = next((file for file in candidates if os.path.exists(file)), None)  # noqa: PTH110  takes any text
    if found is None:
        raise ConfigError([Problem(str(path), "", f"no such experiment file (looked in {Path.cwd()})")])
    return found
