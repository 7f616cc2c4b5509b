"""Strategies in real runs on HighThroughputExecutor workers: digits, softmax, two classes a client."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from looking import guarded_by, wait_until
from mischief import Mischief

from parslfl.errors import ConfigError, RunError
from parslfl.experiment import Experiment
from parslfl.folding import checkpoints
from parslfl.keep import ClientStore
from parslfl.orchestrator import rounds
from parslfl.params import Params, trained
from parslfl.reports import RoundReport
from parslfl.rundir import journal
from parslfl.seeding import derive
from parslfl.sites import Federation, Site
from parslfl.strategies.fedavg import FedAvg
from parslfl_executors.local import Local

Make = Callable[..., Experiment]

SKEWED = {"partition": "classes:k=2", "rounds": 3, "epochs": 2, "per_round": 6}


@pytest.fixture(scope="module")
def scaffold(
    federation: Federation, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[RoundReport]]:
    """Three rounds of SCAFFOLD in one go."""
    path = tmp_path_factory.mktemp("scaffold") / "run"
    return path, list(rounds(federation, asked("scaffold"), path))


def asked(strategy: str, **changes: object) -> Experiment:
    plain = {"dataset": "digits", "model": "softmax", "strategy": strategy, **SKEWED}
    return Experiment.model_validate({**plain, **changes})


def models(reports: list[RoundReport]) -> list[str]:
    return [report.model for report in reports]


def test_scaffolds_server_knows_the_mean_of_what_is_at_the_site(
    scaffold: tuple[Path, list[RoundReport]],
) -> None:
    """c = sum_k n_k c_k / n, from files of two sorts: the strategy's checkpoint and the clients' store. n is
    8 times the mean n_k of all updates."""
    path, reports = scaffold
    state = checkpoints.read(path / "models" / "round-0003.state", "")
    accepted = {u.client: r.round for r in reports for u in r.updates}
    sizes = {u.client: u.examples for r in reports for u in r.updates}
    store, every = (
        ClientStore(str(path / "clients")),
        8 * np.mean([u.examples for r in reports for u in r.updates]),
    )
    kept = {client: store.load(client, "scaffold", round) for client, round in accepted.items()}
    assert len(kept) >= 6
    for name, control in trained(state).items():
        total = (
            np.sum([sizes[client] * k[name] for client, k in kept.items() if k is not None], axis=0) / every
        )
        np.testing.assert_allclose(control, total, rtol=1e-3, atol=1e-5)
        assert np.abs(control).max() > 1e-3


def test_scaffold_sends_one_model_up_and_two_down(scaffold: tuple[Path, list[RoundReport]]) -> None:
    path, reports = scaffold
    both = sum((path / "models" / f"round-0003.{kind}").stat().st_size for kind in ("plm", "state"))
    assert reports[-1].bytes_down == 6 * both
    assert all(update.raw_bytes == 650 * 4 for update in reports[-1].updates)


def test_scaffold_resumed_from_before_a_round_whose_states_are_kept_already(
    federation: Federation, scaffold: tuple[Path, list[RoundReport]], tmp_path: Path
) -> None:
    """A driver that dies after its clients kept the round's states, and before its journal has it."""
    path, reports = scaffold
    copy = without_its_last_round(path, tmp_path / "run")
    assert ClientStore(str(copy / "clients")).load(reports[2].updates[0].client, "scaffold", 2) is not None
    again = list(rounds(federation, asked("scaffold"), copy, resume=True))
    assert models(again)[-1] == models(reports)[-1]
    assert journal.reports(copy)[-1].accuracy == reports[-1].accuracy


def test_a_scaffold_that_was_moved_goes_on_and_begins_afresh_where_a_state_is_lost(
    federation: Federation, tmp_path: Path
) -> None:
    """The state of client 3 is lost after two rounds: the third is its last with the old c, for everybody."""
    sites = tuple(site.model_copy(update={"state": str(tmp_path / "kept")}) for site in federation.sites)
    kept = federation.model_copy(update={"sites": sites})
    list(rounds(kept, asked("scaffold", per_round=8, rounds=2), tmp_path / "run"))
    (tmp_path / "run").rename(tmp_path / "moved")
    (folder,) = (tmp_path / "kept").iterdir()
    shutil.rmtree(folder / "client-00003")
    *_, last = rounds(kept, asked("scaffold", per_round=8, rounds=5), tmp_path / "moved", resume=True)
    done = journal.reports(tmp_path / "moved")
    assert [[u.client.index for u in r.updates if u.afresh] for r in done] == [[], [], [3], [], []]
    assert [len(u.notes) for r in done for u in r.updates if u.client.index != 3] == [0] * 35
    state = checkpoints.read(tmp_path / "moved" / "models" / "round-0005.state", "")
    known = {u.client: ClientStore(str(folder)).load(u.client, "scaffold", 4) for u in last.updates}
    sizes = {u.client: u.examples for u in last.updates}
    for name, control in trained(state).items():
        total = np.sum([sizes[client] * (k or {})[name] for client, k in known.items()], axis=0)
        np.testing.assert_allclose(control, total / sum(sizes.values()), rtol=1e-3, atol=1e-5)


def without_its_last_round(path: Path, copy: Path) -> Path:
    """A copy of a run whose driver died before its journal had the last round."""
    subprocess.run(["cp", "-a", path, copy], check=True)  # noqa: S607
    lines = (copy / "journal.jsonl").read_text().splitlines(keepends=True)
    last = max(i for i, line in enumerate(lines) if json.loads(line)["event"] == "finished")
    (copy / "journal.jsonl").write_text("".join(lines[:last]))
    return copy


@pytest.mark.parametrize("strategy", ["fedadam", "ditto"])
def test_state_at_the_server_or_the_clients_survives_a_resume(
    federation: Federation, tmp_path: Path, strategy: str
) -> None:
    whole = list(rounds(federation, asked(strategy), tmp_path / "whole"))
    copy = without_its_last_round(tmp_path / "whole", tmp_path / "run")
    (again,) = rounds(federation, asked(strategy), copy, resume=True)
    assert again.model == whole[-1].model
    assert [u.personal for u in again.updates] == [u.personal for u in whole[-1].updates]


def test_scaffold_killed_and_resumed_is_bit_for_bit_the_same(
    federation: Federation, scaffold: tuple[Path, list[RoundReport]], tmp_path: Path
) -> None:
    command = [sys.executable, "-c", DRIVER, str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == scaffold[1][0].model
        os.kill(process.pid, signal.SIGKILL)  # while the second round trains, or is journalled
    assert wait_until(lambda: not guarded_by(process.pid), 20)
    list(rounds(federation, asked("scaffold"), tmp_path / "run", resume=True))
    found = journal.reports(tmp_path / "run")
    assert models(found) == models(scaffold[1])
    assert not [note for report in found for update in report.updates for note in update.notes]


#: The run of `scaffold`, in a process that can be killed.
DRIVER = """
import sys
from parslfl.experiment import Experiment
from parslfl.orchestrator import rounds
from parslfl.sites import Federation, Site
from parslfl_executors.local import Local

sites = (Site(name="here", clients=8, executor=Local(workers=2)),)
asked = Experiment(
    dataset="digits", model="softmax", strategy="scaffold", partition="classes:k=2",
    rounds=3, epochs=2, per_round=6,
)
for report in rounds(Federation(name="test", sites=sites), asked, sys.argv[1]):
    print(report.model, flush=True)
"""


@pytest.mark.parametrize("strategy", ["fedadam", "fednova"])
def test_a_linear_strategy_learns(federation: Federation, tmp_path: Path, strategy: str) -> None:
    reports = list(rounds(federation, asked(strategy), tmp_path / "run"))
    assert [len(report.updates) for report in reports] == [6, 6, 6]
    assert (reports[-1].accuracy or 0) > 0.25


def test_ditto_keeps_a_model_a_client_that_beats_the_global_one(
    federation: Federation, tmp_path: Path
) -> None:
    """Two classes a client: its own model tells them apart, the global one has ten to tell."""
    reports = list(rounds(federation, asked("ditto"), tmp_path / "run"))
    found = [update.personal for update in reports[-1].updates if update.personal]
    assert len(found) == 6
    assert min(p.accuracy for p in found) > 0.8
    assert np.mean([p.global_accuracy for p in found]) < np.mean([p.accuracy for p in found]) - 0.1
    assert journal.reports(tmp_path / "run") == reports


def test_the_median_holds_where_the_mean_would_not(
    federation: Federation, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Two of eight clients turn their updates round, 20 times as long (more: `benchmarks/sweep.py liars`).

    What the median costs is in the log, for whoever gave no listener."""
    liars = tuple(derive(0, "train", round, client) for round in range(3) for client in (2, 5))
    fields = {"model": Mischief("turn", liars, seconds=20), "partition": "iid", "per_round": 8}
    reports = list(rounds(federation, asked("median", **fields), tmp_path / "run"))
    assert (reports[-1].accuracy or 0) > 0.7
    assert [len(report.updates) for report in reports] == [8, 8, 8]
    assert not list((tmp_path / "run").glob("updates*/*"))
    (told,) = (one.getMessage() for one in caplog.records if one.name == "parslfl.reports")
    assert "needs all updates of a round at once" in told


def test_a_model_that_cannot_be_steered_is_refused_before_anything_starts(
    federation: Federation, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="Mischief.train takes no `guide`, which Scaffold steers it by"):
        next(rounds(federation, asked("scaffold", model=Mischief("none", ())), tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@dataclass(frozen=True)
class Clueless(FedAvg):
    def start(self, params: Params) -> Params:
        return dict.fromkeys(params, np.array(np.nan))


def test_a_state_that_no_run_can_begin_with_ends_it_before_a_round(
    federation: Federation, experiment: Make, tmp_path: Path
) -> None:
    with pytest.raises(RunError, match="Clueless.start returned NaN or Inf in .*: begin with finite numbers"):
        next(rounds(federation, experiment(strategy=Clueless()), tmp_path / "run"))
    assert not list((tmp_path / "run" / "models").iterdir())


def test_a_site_without_a_place_for_state_is_refused(tmp_path: Path) -> None:
    site = Site(name="here", clients=8, executor=Local(workers=2), transport={"kind": "inline"})  # type: ignore[arg-type]
    with pytest.raises(
        ConfigError, match="the state of scaffold.* is kept at each client.s site, and here has no"
    ):
        next(rounds(Federation(sites=(site,)), asked("scaffold"), tmp_path / "run"))
