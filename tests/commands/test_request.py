"""Who wins when a workflow, a file, a flag and --set say different things; and what all say wrong."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import pytest
import yaml

from parslfl.commands import training
from parslfl.commands.flags import FLAGS, RESUME_FLAGS, Parser, add
from parslfl.commands.request import Request, asked, remembered, split_settings
from parslfl.data.digits import Digits
from parslfl.errors import ConfigError, RunError
from parslfl.learning import LocalWork
from parslfl.models.softmax import Softmax
from parslfl.sites import local_folders


def words(*given: str) -> Namespace:
    parser = Parser(prog="p")
    add(parser, FLAGS)
    return parser.parse_args(list(given))


@pytest.fixture
def site(tmp_path: Path) -> str:
    """A site file with two sites of 4 and 2 clients."""
    path = tmp_path / "two.yaml"
    local = {"kind": "local"}
    sites = [{"name": "a", "clients": 4, "executor": local}, {"name": "b", "clients": 2, "executor": local}]
    path.write_text(yaml.safe_dump({"sites": sites}))
    return str(path)


def test_defaults_then_file_then_flags_then_set(site: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("per_round: 5\nepochs: 2\nlr: 0.2\nmomentum: 0.2\n")
    defaults = {"site": site, "per_round": 4, "epochs": 1, "lr": 0.1, "momentum": 0.1, "rounds": 7}
    flags = ["--experiment", str(file), "--lr", "0.3", "--momentum", "0.3", "--set", "momentum=0.4"]
    made = asked(words(*flags), defaults).experiment
    assert (made.rounds, made.per_round, made.epochs, made.lr, made.momentum) == (7, 5, 2, 0.3, 0.4)


def test_the_site_may_come_from_the_workflow_or_the_flag(site: str) -> None:
    assert len(asked(words("--per-round", "2"), {"site": site}).federation.clients()) == 6
    assert len(asked(words("--per-round", "2", "--site", "local"), {"site": site}).federation.clients()) == 60


def test_clients_are_spread_over_the_sites(site: str) -> None:
    made = asked(words("--site", site, "--clients", "12", "--per-round", "2"), {}).federation
    assert [place.clients for place in made.sites] == [8, 4]


def test_set_reaches_into_the_sites(site: str) -> None:
    flags = ["--site", site, "--per-round", "2", "--set", "sites.b.clients=9", "--set", "sites[0].data=/x"]
    made = asked(words(*flags), {}).federation
    assert (made.sites[1].clients, made.sites[0].data) == (9, "/x")


def test_a_workflow_may_bring_its_own_objects(site: str) -> None:
    made = asked(words("--per-round", "2"), {"site": site, "model": Softmax(), "dataset": Digits()})
    assert made.experiment.model == Softmax()


def test_the_strategy_has_its_say_and_specs_are_parsed(site: str) -> None:
    made = asked(words("--site", site, "--per-round", "2", "--strategy", "fedprox:mu=0.5"), {}).experiment
    assert made.strategy.local(LocalWork()).proximal == 0.5


def test_all_problems_come_at_once(site: str) -> None:
    flags = ["--site", "nowhere", "--clients", "none", "--rounds", "0", "--model", "cnnn", "--set", "x=1"]
    with pytest.raises(ConfigError) as caught:
        asked(words(*flags), {})
    text = str(caught.value)
    for part in ("nowhere", "--clients none", "--rounds 0", "did you mean 'cnn'?", "--set x=1"):
        assert part in text


def test_what_set_says_wrong_is_told_of_both_sides(site: str) -> None:
    with pytest.raises(ConfigError) as caught:
        asked(words("--site", site, "--set", "per_rounds=3", "--set", "sites.a.client=3"), {})
    text = str(caught.value)
    assert "did you mean 'per_round'?" in text
    assert "did you mean 'clients'?" in text


def test_what_does_not_fit_is_refused(site: str) -> None:
    with pytest.raises(ConfigError, match="20 clients a round, but the federation has 6"):
        asked(words("--site", site), {})


def test_auto_uses_the_digits_only_where_the_data_is_missing(site: str, tmp_path: Path) -> None:
    flags = ["--site", site, "--per-round", "2", "--dataset", "auto", "--data-dir", str(tmp_path)]
    made = asked(words(*flags), {"dataset": "cifar10"})
    assert made.experiment.dataset == Digits()
    assert made.note == f"cifar10 not found in {tmp_path}: using the embedded digits"
    made = asked(words(*flags), {"dataset": "synthetic:side=9"})
    assert made.experiment.resolved()["dataset"] == "synthetic:side=9"
    assert made.note.endswith(": using it")
    assert asked(words(*flags, "--set", "dataset=synthetic"), {}).note == ""


def test_auto_finds_the_real_data(site: str, data_folder: Path) -> None:
    flags = ["--site", site, "--per-round", "2", "--dataset", "auto", "--data-dir", str(data_folder)]
    assert asked(words(*flags), {}).experiment.resolved()["dataset"] == "cifar10"


def test_auto_looks_where_the_driver_evaluates_if_no_site_is_here(tmp_path: Path) -> None:
    flags = ["--site", "hybrid.yaml", "--dataset", "auto", "--data-dir", str(tmp_path)]
    assert asked(words(*flags), {"dataset": "cifar10"}).experiment.dataset == Digits()


def test_folders_are_the_sites_own_or_the_experiments(site: str, tmp_path: Path) -> None:
    flags = ["--site", site, "--per-round", "2", "--data-dir", str(tmp_path), "--set", "sites.b.data=/far"]
    made = asked(words(*flags), {})
    assert local_folders(made.federation, tmp_path) == {"a": tmp_path, "b": Path("/far")}


def written(request: Request, folder: Path) -> Path:
    content = {
        "federation": request.federation.resolved(),
        "experiment": request.experiment.resolved(),
        "versions": {},
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(content))
    return folder


def test_a_run_remembers_what_it_was_asked(site: str, tmp_path: Path) -> None:
    first = asked(words("--site", site, "--per-round", "2", "--deadline", "5m", "--partition", "iid"), {})
    again = remembered(written(first, tmp_path), Namespace())
    assert again == first
    more = remembered(tmp_path, words("--rounds", "30"))
    assert more.experiment == first.experiment.model_copy(update={"rounds": 30})


def test_a_run_with_a_class_of_one_s_own_says_where_it_can_go_on(site: str, tmp_path: Path) -> None:
    written(asked(words("--site", site, "--per-round", "2"), {}), tmp_path)
    file = tmp_path / "run.yaml"
    file.write_text(file.read_text().replace("strategy: fedavg:lr=1.0", "strategy: Mine:beta=1"))
    with pytest.raises(ConfigError, match=r"run\.yaml: strategy: unknown strategy 'Mine'.*; if .* in Python"):
        remembered(tmp_path, Namespace())


def test_a_run_that_cannot_be_remembered_names_its_file(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="nowhere"):
        remembered(tmp_path / "nowhere", Namespace())
    (tmp_path / "run.yaml").write_text("experiment: {model: gone}\nfederation: {}")
    with pytest.raises(ConfigError) as caught:
        remembered(tmp_path, Namespace())
    assert all(str(tmp_path / "run.yaml") in line for line in str(caught.value).splitlines())


def test_a_run_remembers_its_cpu_threads(site: str, tmp_path: Path) -> None:
    first = asked(words("--site", site, "--per-round", "2"), {})
    content = yaml.safe_load((written(first, tmp_path) / "run.yaml").read_text())
    (tmp_path / "run.yaml").write_text(yaml.safe_dump({**content, "resolved": {"a": {"threads": 77}}}))
    sites = remembered(tmp_path, Namespace()).federation.sites
    assert [place.executor.threads for place in sites] == [77, None]


def test_how_a_round_closes_may_be_changed_for_the_rest(site: str, tmp_path: Path) -> None:
    first = asked(words("--site", site, "--per-round", "2"), {})
    parser = Parser(prog="p")
    add(parser, RESUME_FLAGS)
    given = parser.parse_args(["--quorum", "1", "--deadline", "5m", "--fastest", "2"])
    made = remembered(written(first, tmp_path), given).experiment
    assert (made.quorum, made.deadline, made.fastest) == (1, 300, 2)


def test_a_strategy_that_needs_all_updates_says_so_before_the_run(site: str) -> None:
    given = ("--site", site, "--per-round", "2", "--strategy")
    costly, plain = (asked(words(*given, name), {}) for name in ("trimmed:cut=0.1", "fedavg"))
    said = training._title(costly, Path("runs/x")).splitlines()[2]
    assert said == (
        "trimmed:cut=0.1 needs all updates of a round at once: they fill the run directory until its "
        "end (one model a client), and cannot be merged at their sites"
    )
    assert len(training._title(plain, Path("runs/x")).splitlines()) == 2


def test_settings_go_where_they_belong() -> None:
    texts = ["lr=0.1", "sites[0].clients=3", "sites.a.executor.worker_init=x=1", "name=mine", "lr=0.2"]
    assert split_settings(texts) == (
        {"sites[0].clients": "3", "sites.a.executor.worker_init": "x=1"},
        {"lr": "0.2", "name": "mine"},
        [],
    )


def test_settings_that_belong_nowhere_are_refused() -> None:
    *_, problems = split_settings(["lr", "lrr=3", "site.0.clients=3", "name.x=1", "=3"])
    lines = [str(problem) for problem in problems]
    assert lines[:3] == [
        "--set lr: expected KEY=VALUE",
        "--set lrr=3: lrr: unknown field (did you mean 'lr'?)",
        "--set site.0.clients=3: site.0.clients: unknown field (did you mean 'sites'?)",
    ]
    assert len(lines) == 5
