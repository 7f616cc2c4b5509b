from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from parslfl import fitting
from parslfl.commands.rehearsal import rehearse
from parslfl.commands.request import Request
from parslfl.data.digits import Digits
from parslfl.data.partition import Iid
from parslfl.errors import RunError
from parslfl.experiment import Experiment
from parslfl.models.softmax import Softmax
from parslfl.sites import Federation, load_federation


def shown(federation: Federation, experiment: Experiment) -> str:
    console = Console(width=400)
    with console.capture() as capture:
        rehearse(Request(federation, experiment), None, console)
    return capture.get()


def test_the_bytes_are_those_of_the_whole_cohort() -> None:
    federation = load_federation("local")
    experiment = Experiment(dataset=Digits(), model=Softmax(), partition=Iid(), per_round=20, quorum=7)
    text = shown(federation, experiment)
    assert "650 parameters, 0.0026 MB" in text
    assert "a round    0.055 MB down to clients, 0.055 MB up from them" in text
    assert "23 to 24 examples a client" in text
    assert "with fewer than 7 updates the run stops" in text


def test_a_site_that_merges_sends_one_sum_and_ranks_read_one_model() -> None:
    """A model of 2,752 bytes on the wire: 20 down and 1 up; 1 down and 1 up."""
    experiment = Experiment(dataset=Digits(), model=Softmax(), partition=Iid(), per_round=20)
    merging = load_federation("local", {"sites[0].merge": "site"})
    assert "a round    0.055 MB down to clients, 0.0028 MB up from them" in shown(merging, experiment)
    text = shown(load_federation("mpi"), experiment)
    assert "a round    0.0028 MB down to clients, 0.0028 MB up from them" in text
    assert "4 ranks x 1 thread" in text
    assert "23 to 24 examples a client" in text


def test_a_strategy_s_state_and_further_sums_are_in_the_bytes() -> None:
    """SCAFFOLD: a state of 2,752 bytes beside each model, and two sums instead of one."""
    experiment = Experiment.model_validate(
        {"dataset": "digits", "model": "softmax", "partition": "iid", "strategy": "scaffold"}
    )
    plain, merging = (load_federation("local", {"sites[0].merge": where}) for where in ("driver", "site"))
    assert "a round    0.11 MB down to clients, 0.055 MB up from them" in shown(plain, experiment)
    assert "a round    0.11 MB down to clients, 0.0055 MB up from them" in shown(merging, experiment)


def test_each_site_counts_what_reaches_the_driver_from_it() -> None:
    """Two sums of 2,752 bytes whatever the codec, and as many updates of the third site as it has clients."""
    site = {"clients": 4, "executor": {"kind": "local", "workers": 1, "threads": 1}}
    ranks = {"clients": 4, "executor": {"kind": "mpi", "ranks_per_node": 2}}
    sites = [{"name": "ranks", **ranks}, {"name": "sums", **site, "merge": "site"}, {"name": "plain", **site}]
    federation = Federation.model_validate({"sites": sites})
    asked = {"dataset": "digits", "model": "softmax", "partition": "iid", "per_round": 12}
    plain = shown(federation, Experiment.model_validate(asked))
    assert "0.017 MB up from them" in plain  # 2 x 2,752 + 4 x 2,752
    few = shown(federation, Experiment.model_validate({**asked, "codec": "fp16"}))
    assert "0.011 MB up from them" in few  # 2 x 2,752 + 4 x 1,472
    assert "mind       fp16 saves nothing at ranks" in few
    assert "mind       fp16 saves only inside sums" in few
    auto = shown(federation, Experiment.model_validate({**asked, "codec": "auto"}))
    first = shown(federation, Experiment.model_validate({**asked, "codec": "quantize:bits=4+zstd"}))
    told = [text.partition("a round")[2].partition("\n")[0].strip() for text in (auto, first)]
    assert told[0] == told[1]


def test_what_goes_down_after_the_first_round_is_said() -> None:
    """A difference of 650 halves is 1,472 bytes with its header, a model 2,752; 20 of each."""
    experiment = Experiment.model_validate(
        {"dataset": "digits", "model": "softmax", "partition": "iid", "downlink_codec": "fp16"}
    )
    federation = load_federation("local")
    text = shown(federation, experiment)
    assert "downlink codec fp16" in text
    assert "a round    0.029 MB down to clients (0.055 MB where they lack the model before), 0.055 MB" in text
    inline = load_federation("local", {"sites[0].transport": {"kind": "inline"}})
    assert "a round    0.055 MB down to clients, 0.055 MB up from them" in shown(inline, experiment)


def test_a_model_too_large_to_ride_in_tasks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "LARGEST", 2751)
    experiment = Experiment(dataset=Digits(), model=Softmax(), partition=Iid())
    inline = load_federation("local", {"sites[0].transport": {"kind": "inline"}})
    with pytest.raises(RunError, match="local: the model has 2,752 bytes, more than the 2,751 that may ride"):
        shown(inline, experiment)


def test_data_that_is_missing_is_said_not_fetched(tmp_path: Path) -> None:
    experiment = Experiment(model=Softmax(), data_dir=str(tmp_path))
    assert f"no cifar10 in {tmp_path}: the run would download it there" in shown(
        load_federation("local"), experiment
    )
    assert list(tmp_path.iterdir()) == []


def test_the_first_cohort_follows_from_the_seed() -> None:
    federation = load_federation("local")
    plans = [Experiment(seed=seed).plan(0, federation.clients()).cohort for seed in (0, 0, 1)]
    assert plans[0] == plans[1] != plans[2]
    assert len(plans[0]) == 20
