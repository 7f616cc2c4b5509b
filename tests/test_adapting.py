"""What "auto" means in an experiment: read, written, refused, and planned from."""

from __future__ import annotations

from typing import Any

import pytest

from parslfl.codecs.raw import Raw
from parslfl.commands.flags import FLAGS
from parslfl.errors import ConfigError
from parslfl.experiment import Experiment, load_experiment
from parslfl.fitting import check
from parslfl.messages import Client
from parslfl.planning.history import History, Late, Record
from parslfl.sites import Federation, Site
from parslfl_executors.local import Local
from parslfl_executors.mpi import Mpi

ROSTER = [Client(i, "here") for i in range(4)]
HERE = Site(name="here", clients=4, executor=Local())
RANKS = Site(name="here", clients=4, executor=Mpi(ranks_per_node=2))


def made(**changes: Any) -> Experiment:
    return Experiment.model_validate({"per_round": 4, **changes})


def test_it_is_written_as_it_is_read() -> None:
    both = load_experiment(None, {"--codec": "auto", "--federated-dropout": "auto"})
    assert (both.resolved()["codec"], both.resolved()["federated_dropout"]) == ("auto", "auto")
    assert Experiment.model_validate(both.resolved()) == both
    assert both.adapts()
    assert not made(codec="topk", federated_dropout=0.5).adapts()
    assert {flag.name for flag in FLAGS if "auto:" in flag.help} >= {"--codec", "--federated-dropout"}


@pytest.mark.parametrize("value", ["automatic", "half", -0.1, 1, 1.5, True, "nan", ".nan"])
def test_a_share_that_is_none_is_refused(value: object) -> None:
    with pytest.raises(ConfigError, match=r"expected auto, or a number of at least 0 and less than 1, got"):
        load_experiment(None, {"--federated-dropout": value})


def test_error_feedback_is_on_and_the_first_round_is_of_8_bits_and_whole_models() -> None:
    experiment = made(codec="auto", federated_dropout="auto")
    assert experiment.keepers() == ["error_feedback"]
    cohort = experiment.plan(0, ROSTER).cohort
    assert {(a.work.keep, getattr(a.codec, "stages", ())[0].bits) for a in cohort} == {(1.0, 8)}
    assert {a.why for a in cohort} == {"pace not measured yet; link not measured yet"}


def slow(**changes: Any) -> History:
    """A link on which nothing but the strongest codec is short enough."""
    record = Record(links=(10.0,), paces={1.0: (0.1,)}, steps=10, **changes)
    return History(dict.fromkeys(ROSTER, record), {1.0: 4e6})


def test_without_error_feedback_no_codec_is_chosen_whose_error_does_not_average_out() -> None:
    strongest = made(codec="auto").plan(1, ROSTER, history=slow()).cohort[0].codec
    assert [type(stage).__name__ for stage in getattr(strongest, "stages", ())] == [
        "LowRank",
        "Quantize",
        "Zstd",
    ]
    plain = made(codec="auto", error_feedback=False)
    assert plain.keepers() == []
    mildest = plain.plan(1, ROSTER, history=slow()).cohort[0].codec
    assert getattr(mildest, "stages", ())[0].bits == 4


def test_updates_that_stay_at_their_site_are_left_as_they_are() -> None:
    cohort = made(codec="auto").plan(1, ROSTER, history=slow(), unsent=["here"]).cohort
    assert {(a.codec, a.why) for a in cohort} == {(Raw(), "its update stays at its site")}


def test_the_deadline_of_the_plan_says_who_was_late() -> None:
    late = slow(late=(Late(1.0, 60.0),))
    for deadline, keep in ((66, 0.75), (67, 1.0), (None, 1.0)):
        experiment = made(federated_dropout="auto", deadline=deadline)
        assert {a.work.keep for a in experiment.plan(1, ROSTER, history=late).cohort} == {keep}


def test_where_nothing_can_be_kept_at_a_site_the_cure_is_told() -> None:
    cloud = Site.model_validate(
        {"name": "cloud", "clients": 4, "executor": {"kind": "local"}, "transport": {"kind": "grpc"}}
    )
    with pytest.raises(
        ConfigError, match=r"what auto leaves out .* cloud has no place .*--error-feedback false"
    ):
        check(Federation(sites=(cloud,)), made(codec="auto"))
    check(Federation(sites=(cloud,)), made(codec="auto", error_feedback=False))
    check(Federation(sites=(HERE,)), made(codec="auto"))


@pytest.mark.parametrize(
    ("changes", "site", "words"),
    [
        ({"model": "softmax"}, HERE, "softmax has no hidden units"),
        ({"strategy": "median"}, HERE, "median.* needs updates of the whole model"),
        ({"strategy": "scaffold"}, HERE, "scaffold.* needs updates of the whole model"),
        ({}, HERE.model_copy(update={"merge": "site"}), "here would send one sum"),
        ({}, RANKS, "here would send one sum"),
    ],
)
def test_what_cannot_be_cut_is_refused(changes: dict[str, str], site: Site, words: str) -> None:
    with pytest.raises(ConfigError, match=f"federated_dropout: {words}"):
        check(Federation(sites=(site,)), made(federated_dropout="auto", **changes))
