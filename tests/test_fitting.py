"""What a site that merges, or trains on ranks, cannot do, and remarks: said before anything starts."""

from __future__ import annotations

import pytest

from parslfl.errors import ConfigError, RunError
from parslfl.experiment import Experiment
from parslfl.fitting import check, remarks, require_room
from parslfl.sites import Federation
from parslfl.strategies.fedavg import FedAvg


def site(**changes: object) -> Federation:
    plain = {"name": "far", "clients": 20, "executor": {"kind": "local"}}
    return Federation.model_validate({"sites": [{**plain, **changes}]})


MERGING = site(merge="site")
RANKS = site(executor={"kind": "mpi", "ranks_per_node": 4})
TOGETHER = site(executor={"kind": "mpi", "ranks_per_node": 4, "split": "batches"})


@pytest.mark.parametrize("federation", [MERGING, RANKS])
@pytest.mark.parametrize("strategy", ["median", "trimmed", "krum", "geomedian"])
def test_a_strategy_that_must_see_every_update_is_refused(federation: Federation, strategy: str) -> None:
    with pytest.raises(
        ConfigError, match=f"strategy: {strategy}.* must see every update, and far would send"
    ):
        check(federation, Experiment(strategy=strategy))


def test_ranks_are_not_told_to_let_the_driver_merge() -> None:
    cures = {"far.merge=driver.*, or choose": MERGING, "an mpi site can do no other: choose": RANKS}
    for cure, federation in cures.items():
        with pytest.raises(ConfigError, match=cure):
            check(federation, Experiment(strategy="median"))


@pytest.mark.parametrize("federation", [MERGING, RANKS])
@pytest.mark.parametrize("strategy", ["fedavg", "fedprox", "fedadam", "fednova", "scaffold", "qfedavg"])
def test_one_that_averages_is_not(federation: Federation, strategy: str) -> None:
    check(federation, Experiment(strategy=strategy))


def test_ranks_train_a_client_together_only_if_it_is_a_torch_model_without_state() -> None:
    check(TOGETHER, Experiment(model="cnn"))
    with pytest.raises(ConfigError, match=r"model: softmax is no torch model.*far\.executor\.split=clients"):
        check(TOGETHER, Experiment(model="softmax"))
    with pytest.raises(ConfigError, match=r"the state of scaffold.* is kept .*far\.executor\.split=clients$"):
        check(TOGETHER, Experiment(strategy="scaffold"))
    said = (
        "error_feedback: what topk:ratio=0.1 leaves out is kept at each client's site, but not by ranks that "
        "train a client together: --set sites.far.executor.split=clients, or --error-feedback false"
    )
    with pytest.raises(ConfigError) as caught:
        check(TOGETHER, Experiment(codec="topk:ratio=0.1"))
    assert str(caught.value) == said
    check(TOGETHER, Experiment(codec="topk:ratio=0.1", error_feedback=False))


@pytest.mark.parametrize(
    ("strategy", "few", "enough"),
    [
        ("trimmed:cut=0.3", "cuts nothing off 3 updates", 4),
        ("krum:hostile=1", "5 updates a round and more, not for 3", 5),
    ],
)
def test_too_few_updates_for_a_strategy_are_remarked_on(strategy: str, few: str, enough: int) -> None:
    _, said = remarks(site(), Experiment(strategy=strategy, per_round=3))
    assert few in said
    assert len(remarks(site(), Experiment(strategy=strategy, per_round=enough))) == 1
    _, said = remarks(site(), Experiment(strategy=strategy, per_round=enough, fastest=3))
    assert few in said


def test_a_codec_at_a_site_that_sums_is_remarked_on() -> None:
    """Its updates stay there, and a sum is float32."""
    assert remarks(MERGING, Experiment()) == []
    (one,) = remarks(MERGING, Experiment(codec="fp16"))
    assert one.startswith("fp16 saves only inside far: what travels from there is a sum")
    both = Federation(sites=(*MERGING.sites, *site(name="ranks", executor=RANKS.sites[0].executor).sites))
    summed, never = remarks(both, Experiment(codec="topk:ratio=0.1"))
    assert "saves only inside far" in summed
    assert never.startswith("topk:ratio=0.1 saves nothing at ranks: updates never leave the ranks' memory")
    (one,) = remarks(both, Experiment(codec="auto"))
    assert one.startswith("auto saves only inside far")


def test_a_caution_that_fails_is_named() -> None:
    class Mine(FedAvg):
        def caution(self, updates: int) -> str:
            return f"{1 / 0}"

    with pytest.raises(RunError, match=r"Mine\.caution failed: ZeroDivisionError"):
        remarks(site(), Experiment(strategy=Mine()))


def test_a_model_rides_in_tasks_up_to_eight_mebibytes() -> None:
    inline, whole = site(transport={"kind": "inline"}), 8 << 20
    both = Federation(sites=(*inline.sites, *site(name="near").sites))
    for federation, size in ((inline, whole), (both, whole), (site(), whole + 1)):
        require_room(federation, size)
    said = (
        "far: the model has 8,388,609 bytes, more than the 8,388,608 that may ride in each task: instead of "
        "transport: {kind: inline}, give the site {kind: file} where it shares a folder with the driver, "
        "else {kind: grpc} or {kind: proxystore} (docs/transports.md)"
    )
    with pytest.raises(RunError) as caught:
        require_room(both, whole + 1)
    assert str(caught.value) == said
