"""Experiments: specs and objects, what is refused, and whether one fits a federation."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from parslfl.channels import Inline
from parslfl.codecs.raw import Raw
from parslfl.data.digits import Digits
from parslfl.data.partition import Classes, Iid
from parslfl.errors import ConfigError
from parslfl.experiment import Experiment, load_experiment
from parslfl.fitting import check
from parslfl.learning import Guide, LocalWork, Personal, Visit
from parslfl.models.cnn import Cnn
from parslfl.params import Params
from parslfl.sites import Federation, Site
from parslfl.strategies.fedavg import FedAvg
from parslfl.strategies.fedprox import FedProx
from parslfl_executors.local import Local

FULL = """\
name: full
dataset: digits
partition: iid
model: softmax
strategy: fedprox:mu=0.5
rounds: 3
per_round: 4
lr: 1e-3
deadline: 00:05:00
"""


def made(**fields: Any) -> Experiment:
    return Experiment.model_validate(fields)


def refused(path: Path | None, **overrides: object) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_experiment(path, overrides)
    lines = str(caught.value)
    return (lines.replace(f"{path.parent}/", "") if path else lines).splitlines()


def test_the_defaults_are_the_papers() -> None:
    e = Experiment()
    assert (e.partition, e.model, e.strategy, e.codec) == (Classes(k=2), Cnn(), FedAvg(), Raw())
    assert (e.per_round, e.epochs, e.rounds) == (20, 5, 10)
    assert load_experiment(None) == e


def test_a_file_is_read_whole(tmp_path: Path) -> None:
    (tmp_path / "full.yaml").write_text(FULL)
    e = load_experiment(tmp_path / "full")
    assert (e.dataset, e.partition, e.strategy) == (Digits(), Iid(), FedProx(mu=0.5))
    assert (e.name, e.rounds, e.per_round, e.lr, e.deadline) == ("full", 3, 4, 1e-3, 300.0)


def test_defaults_yield_to_the_file_and_the_file_to_overrides(tmp_path: Path) -> None:
    (tmp_path / "e.yaml").write_text("rounds: 3\nlr: 0.1\n")
    e = load_experiment(tmp_path / "e.yaml", {"--lr": "0.2"}, {"rounds": 7, "lr": 0.3, "epochs": 2})
    assert (e.rounds, e.lr, e.epochs) == (3, 0.2, 2)


def test_what_is_resolved_is_plain_and_makes_the_same_again() -> None:
    e = made(dataset="digits", strategy="fedprox:mu=0.5", partition="classes:k=3", deadline="5m", quorum=2)
    plain = json.loads(json.dumps(e.resolved()))
    assert Experiment.model_validate(plain) == e
    assert list(plain) == list(Experiment.model_fields)
    assert (plain["strategy"], plain["partition"], plain["deadline"]) == (
        "fedprox:mu=0.5,lr=1.0",
        "classes:k=3",
        300.0,
    )


def test_work_is_what_a_client_does() -> None:
    fields: dict[str, Any] = {
        "epochs": 1, "batch_size": 8, "lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4, "device": "cuda:1",
    }  # fmt: skip
    assert made(**fields).work() == LocalWork(**fields)


@dataclass(frozen=True)
class Halving:
    """A codec of a user's own."""

    bits: int = 16

    def encode(self, delta: Any) -> Any:
        return delta, {}

    def decode(self, arrays: Any, note: Any, like: Any) -> Any:
        return arrays


def test_an_object_with_the_methods_is_taken_as_it_is() -> None:
    e = made(codec=Halving(8), model=Cnn())
    assert e.codec == Halving(8)
    assert e.resolved()["codec"] == "Halving:bits=8"


OBJECTS = [
    (Halving, "expected a codec, got the class Halving: call it"),
    (FedAvg(), "FedAvg is no codec: it lacks encode, decode"),
    (None, r"expected a codec \(allowed: .*raw.*\), got nothing"),
    ({"raw": {}}, "expected one line such as NAME:field=value"),
    (3, "expected one line such as NAME:field=value"),
]


@pytest.mark.parametrize(("thing", "message"), OBJECTS)
def test_an_object_without_them_is_refused(thing: object, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        made(codec=thing)


def test_every_mistake_is_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "e.yaml"
    path.write_text("""\
name: a/b
dataset: cifar
partition: classes:k=x
model: cn
strategy: fedprox:muu=1
rounds: many
per_round: 2.5
epochs: yes
lr: -1
momentum: 1
device: gpu
seed: -1
deadline: soon
evaluate_on: no
rouns: 3
lr: 3
weight_decay: .inf
""")
    assert refused(path) == [
        "e.yaml:1: name: expected letters, digits, -, _ and . (not first), got 'a/b'",
        "e.yaml:2: dataset: unknown dataset 'cifar' (did you mean 'cifar10'?)",
        "e.yaml:3: partition: classes:k: 'x' is not a whole number",
        "e.yaml:4: model: unknown model 'cn' (did you mean 'cnn'?)",
        "e.yaml:5: strategy: fedprox has no field 'muu' (did you mean 'mu'?)",
        "e.yaml:6: rounds: expected a whole number, got 'many'",
        "e.yaml:7: per_round: expected a whole number, got 2.5",
        "e.yaml:8: epochs: expected a whole number, got yes",
        "e.yaml:10: momentum: expected less than 1, got 1",
        "e.yaml:11: device: expected auto, cpu, cuda, cuda:N or mps, got 'gpu'",
        "e.yaml:12: seed: expected at least 0, got -1",
        "e.yaml:13: deadline: expected a duration such as 90s, 5m, 1h or 00:05:00, got 'soon'",
        "e.yaml:14: evaluate_on: expected text, got no, which YAML reads as false: put it in quotes",
        "e.yaml:15: rouns: unknown field (did you mean 'rounds'?)",
        "e.yaml:16: lr: given twice, first in line 9: delete one",
        "e.yaml:17: weight_decay: expected a finite number, got .inf",
    ]


def test_a_wrong_flag_is_shown_as_it_was_given() -> None:
    assert refused(None, **{"lr": "abc", "--per-round": "many", "--strategy": "fedprx"}) == [
        "--strategy fedprx: strategy: unknown strategy 'fedprx' (did you mean 'fedprox'?)",
        "--per-round many: per_round: expected a whole number, got 'many'",
        "--set lr=abc: lr: expected a number, got 'abc'",
    ]


def test_a_missing_or_empty_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="none: no such experiment file"):
        load_experiment(tmp_path / "none")
    (tmp_path / "e.yaml").write_text("")
    assert refused(tmp_path / "e.yaml") == ["e.yaml: the file is empty"]


def test_a_folder_is_no_experiment_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load_experiment(tmp_path)


FITS: list[dict[str, Any]] = [
    {},
    {"quorum": 20, "evaluate_on": "driver"},
    {"fastest": 10},
    {"fastest": 3, "quorum": 3, "evaluate_on": "b"},
    {"per_round": 1, "fastest": 1},
]
CLASHES: list[tuple[dict[str, Any], list[str]]] = [
    (
        {"per_round": 31},
        ["per_round: 31 clients a round, but the federation has 30: choose fewer or give it more"],
    ),
    ({"quorum": 21}, ["quorum: 21 updates needed, but only 20 clients train in a round"]),
    ({"fastest": 21}, ["fastest: 21 updates would close a round, but only 20 clients train in it"]),
    ({"fastest": 5, "quorum": 6}, ["fastest: 5 updates close a round, but its quorum is 6"]),
    (
        {"fastest": 9},
        ["fastest: 9 updates close a round, but its quorum is 10, half of per_round: set quorum too"],
    ),
    ({"evaluate_on": "c"}, ["evaluate_on: no site is called 'c' (allowed: a, b, driver)"]),
    (
        {"per_round": 40, "quorum": 50, "evaluate_on": "drivr"},
        [
            "per_round: 40 clients a round, but the federation has 30: choose fewer or give it more",
            "quorum: 50 updates needed, but only 40 clients train in a round",
            "evaluate_on: no site is called 'drivr' (did you mean 'driver'?)",
        ],
    ),
]
THIRTY = Federation(
    sites=(Site(name="a", clients=10, executor=Local()), Site(name="b", clients=20, executor=Local()))
)


@pytest.mark.parametrize("fields", FITS)
def test_what_fits_passes(fields: dict[str, Any]) -> None:
    check(THIRTY, made(**fields))


@pytest.mark.parametrize(("fields", "problems"), CLASHES)
def test_what_does_not_fit_is_refused_with_every_reason(fields: dict[str, Any], problems: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        check(THIRTY, made(**fields))
    assert str(caught.value).splitlines() == problems


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("epochs", 10**20, "epochs: expected at most 1,000,000"),
        ("rounds", 10**7, "rounds: expected at most 1,000,000"),
        ("deadline", "31d", "deadline: expected at most 2,592,000"),
        ("name", "n" * 101, "name: expected at most 100 characters, got 101"),
        ("strategy", "fedprox:mu=nan", "'nan' is not a finite number"),
    ],
)
def test_slips_of_the_finger_are_refused(field: str, value: object, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_experiment(None, {field: value})


@dataclass(frozen=True)
class Keeper(FedAvg):
    """Its clients have a part: nothing else says that they keep something."""

    def fresh(self, params: Params) -> Params:
        return {}

    def guide(self, shared: Params, kept: Params) -> Guide:
        return Guide()

    def keep(self, visit: Visit) -> tuple[Params, Personal | None]:
        return {}, None


def test_what_keeps_state_needs_a_place_for_it_at_every_site() -> None:
    cloud = Site(name="cloud", clients=30, executor=Local(), transport=Inline())
    bare = Federation(sites=(*THIRTY.sites, cloud))
    kept = Federation(sites=(*THIRTY.sites, cloud.model_copy(update={"state": "/keep"})))
    check(bare, made())
    for fields, said in [
        ({"strategy": Keeper()}, r"^strategy: the state of Keeper.* cloud has no place .*cloud.state=FOLDER"),
        ({"codec": "topk"}, r"^error_feedback: what topk.* leaves out .*, or --error-feedback false$"),
        ({"error_feedback": True}, r"^error_feedback: what raw leaves out "),
    ]:
        check(kept, made(**fields))
        with pytest.raises(ConfigError, match=said):
            check(bare, made(**fields))
    check(bare, made(codec="topk", error_feedback=False))


@pytest.mark.parametrize(
    ("codec", "on"),
    [
        ("raw", False),
        ("fp16", False),
        ("quantize:bits=2", False),
        ("quantize:bits=2,nearest=true", True),
        ("topk", True),
        ("randomk", True),
        ("randomk:unbiased=true", False),
        ("topk+quantize:bits=4+zstd", True),
        ("quantize+zstd", False),
    ],
)
def test_error_feedback_is_on_where_the_error_does_not_average_out(codec: str, on: bool) -> None:
    assert made(codec=codec).feeds_back() is on
    assert made(codec=codec, error_feedback=not on).feeds_back() is not on
    assert made(codec=codec).keepers() == (["error_feedback"] if on else [])


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("topk:ratio=0.05+quantize:bits=4+zstd", "topk:ratio=0.05+quantize:bits=4+zstd:level=0"),
        ("topk:ratio=1e-2 + zstd:level=3", "topk:ratio=0.01+zstd:level=3"),
        ("randomk:ratio=0.5,unbiased=true+bf16", "randomk:ratio=0.5,unbiased=true+bf16"),
        ("quantize", "quantize"),
    ],
)
def test_a_chain_of_codecs_is_written_as_it_is_read(text: str, written: str) -> None:
    experiment = made(codec=text)
    assert experiment.resolved()["codec"] == written
    assert made(codec=written) == experiment


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("zstd+topk", "codecs are joined in this order"),
        ("raw+zstd", "raw stands alone"),
        ("quantize+fp16", "codecs are joined in this order"),
        ("topk+quantise", "unknown codec 'quantise' .did you mean 'quantize'"),
        ("topk+", "unknown codec 'topk[+]'"),
        ("topk:ratio=0", "ratio must be above 0 and at most 1, got 0.0"),
        ("topk:ratio=2+zstd", "ratio must be above 0 and at most 1, got 2.0"),
        ("quantize:bits=3", "bits must be 8, 4 or 2, got 3"),
        ("quantize:block=100", "block must be 0 or a power of two from 16 to 65536, got 100"),
        ("zstd:level=20", "level must be from 0 to 19, got 20"),
    ],
)
def test_a_codec_that_cannot_be_is_refused(text: str, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        made(codec=text)


def test_a_downlink_codec_is_written_as_a_codec_is() -> None:
    spec = "topk:ratio=0.05+quantize:bits=4,block=256,nearest=false+zstd:level=0"
    e = made(downlink_codec="topk:ratio=0.05+quantize:bits=4+zstd")
    assert e.resolved()["downlink_codec"].startswith("topk:ratio=0.05+quantize:bits=4")
    assert Experiment.model_validate(e.resolved()) == e
    assert e.downlink() == e.downlink_codec != Raw()
    assert made(downlink_codec=spec) == e
    assert made().downlink() is made(downlink_codec="raw").downlink() is None
    with pytest.raises(ValidationError, match=r"unknown codec 'topc' \(did you mean 'topk'"):
        made(downlink_codec="topc:ratio=0.1")


def test_only_where_the_planner_may_choose_is_auto_offered() -> None:
    with pytest.raises(ValidationError, match="or auto, alone"):
        made(codec="zap")
    with pytest.raises(ValidationError, match="unknown codec 'auto'") as caught:
        made(downlink_codec="auto")
    assert "or auto" not in str(caught.value)
    with pytest.raises(ValidationError, match="ratio must be above 0") as caught:
        made(codec="topk:ratio=2")
    assert "or auto" not in str(caught.value)
