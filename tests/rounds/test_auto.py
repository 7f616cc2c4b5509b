"""`codec: auto` and `federated_dropout: auto` in whole runs on real workers."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from functools import reduce
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from grpc_bed import Line
from plodding import UNITS, Plodding, units

from parslfl.channels import File, Grpc
from parslfl.experiment import Experiment
from parslfl.folding import checkpoints
from parslfl.messages import Assignment
from parslfl.orchestrator import rounds
from parslfl.planning.history import History
from parslfl.reports import Choice, RoundReport
from parslfl.rundir import journal
from parslfl.seeding import derive
from parslfl.sites import Federation, Site
from parslfl.timesheet import choices
from parslfl_executors.local import Local

WORKERS = Path(__file__).parents[1] / "workers"
Make = Callable[..., Experiment]
#: Bytes/s of the slow site's way to the driver.
RATE = 150_000
#: 655 KB of update: 4.4 s over the slow line, 0.65 s with 8 bits a number.
LARGE = {"dataset": "synthetic:side=128,samples=200", "per_round": 4}


@pytest.fixture
def far(tmp_path: Path) -> Iterator[Federation]:
    """Two clients beside the driver, which add their updates up themselves, and two behind a slow line."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    line = Line(port, [], RATE)
    there = Grpc(address="127.0.0.1", port=int(line.address.rpartition(":")[2]), listen=f"127.0.0.1:{port}")
    executor = Local(workers=1)
    near = Site(name="near", clients=2, executor=executor, transport=File(), merge="site")
    distant = Site(name="far", clients=2, executor=executor, transport=there, state=str(tmp_path / "state"))
    yield Federation(sites=(near, distant))
    line.close()


def planned(experiment: Experiment, sites: Federation, past: list[RoundReport]) -> tuple[Choice, ...]:
    """What the round after those of a journal is planned to be."""
    history = reduce(History.after, past, History())
    return choices(experiment.plan(len(past), sites.clients(), history=history))


def test_the_site_with_the_slow_link_gets_the_stronger_codec_and_its_rounds_are_shorter(
    far: Federation, experiment: Make, tmp_path: Path
) -> None:
    made = experiment(**LARGE, rounds=4, codec="auto")
    running = rounds(far, made, tmp_path / "run")
    reports = [next(running), next(running)]
    running.close()
    reports += list(rounds(far, made, tmp_path / "run", resume=True))
    done = {report.round: report for report in reports}
    first, last = done[0].choices, done[3].choices
    assert {(c.codec, c.why) for c in first} == {("quantize:block=0+zstd:level=0", "link not measured yet")}
    slow = [c for c in last if c.client.site == "far"]
    assert {c.codec.partition(":")[0] for c in slow} == {"lowrank"}
    assert all("of transfer (raw: " in c.why and "link 0." in c.why for c in slow)
    assert {c.codec for c in last if c.client.site == "near"} <= {"raw", "fp16"}
    assert not [f for report in reports for f in report.failures]
    assert not [note for report in reports for u in report.updates for note in u.notes]
    behind = [u for u in done[0].updates if u.client.site == "far"]
    assert all(u.spent.send > 0.9 * u.ref.size / RATE for u in behind)
    assert min(done[1].seconds, done[3].seconds) < sum(u.raw_bytes for u in behind) / RATE
    kept = journal.reports(tmp_path / "run")
    assert kept == [done[round] for round in range(4)]
    assert [planned(made, far, kept[:round]) for round in range(4)] == [report.choices for report in kept]


def averaged(reports: list[RoundReport]) -> npt.NDArray[np.float64]:
    """The model of a run of `Plodding`, whose clients have as many examples each: every number is averaged
    over those who trained it."""
    model = np.zeros(UNITS)
    for report in reports:
        sums, counts = np.zeros(UNITS), np.zeros(UNITS)
        came = {update.client for update in report.updates}
        for choice in (choice for choice in report.choices if choice.client in came):
            at = units(derive(0, "train", report.round, choice.client.index), choice.keep)
            sums[at] += 5 if choice.client.site == "slow" else 1
            counts[at] += 1
        model += np.divide(sums, counts, out=np.zeros(UNITS), where=counts > 0)
    return model


def test_a_slow_client_gets_a_smaller_model_and_does_all_its_steps(experiment: Make, tmp_path: Path) -> None:
    """7 steps of 0.93 s are 6.5 s, with a quarter of the units 0.4 s; clients stop at 0.9 of 6 s."""
    sites = Federation(
        sites=tuple(
            Site(
                name=name,
                clients=clients,
                executor=Local(
                    workers=1,
                    worker_init=f"export PYTHONPATH={WORKERS} SECONDS_A_STEP={seconds}",
                ),
            )
            for name, clients, seconds in (("quick", 3, 0.06), ("slow", 1, 0.93))
        )
    )
    made = experiment(dataset="synthetic", model=Plodding(), federated_dropout="auto", deadline=6, rounds=2)
    reports = list(rounds(sites, made, tmp_path / "run"))
    assert {(c.keep, c.why) for c in reports[0].choices} == {(1.0, "pace not measured yet")}
    assert [report.failures for report in reports] == [(), ()]
    slow = [next(u for u in report.updates if u.client.site == "slow") for report in reports]
    assert slow[0].steps < slow[1].steps == slow[0].planned_steps == slow[1].planned_steps
    (chosen,) = (c for c in reports[1].choices if c.client.site == "slow")
    assert (chosen.keep, slow[1].raw_bytes) == (0.25, 4 * UNITS * 0.25)
    assert reports[1].seconds < reports[0].seconds
    model = checkpoints.read(tmp_path / "run" / "models" / "round-0002.plm", "")["w"]
    np.testing.assert_allclose(model, averaged(reports), rtol=1e-6)
    kept = journal.reports(tmp_path / "run")
    assert [planned(made, sites, kept[:round]) for round in range(2)] == [report.choices for report in kept]


def test_without_auto_nothing_is_chosen_or_told(federation: Federation, experiment: Make) -> None:
    cohort = experiment().plan(0, federation.clients()).cohort
    assert [Assignment(a.client, a.work, a.codec) for a in cohort] == list(cohort)
