"""What a site that merges, or trains on several ranks, cannot do: said before anything starts."""

from __future__ import annotations

import pytest

from parslfl.errors import ConfigError
from parslfl.experiment import Experiment
from parslfl.fitting import check
from parslfl.sites import Federation


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
