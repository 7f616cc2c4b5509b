"""The global model as differences in whole runs on real workers: the same bits, and far fewer bytes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from looking import task_seeds, wait_until
from mischief import Mischief

from parslfl.channels import Grpc, Inline
from parslfl.experiment import Experiment
from parslfl.orchestrator import rounds
from parslfl.reports import Event, RoundClosed, RoundReport
from parslfl.rundir import journal
from parslfl.sites import Federation

Make = Callable[..., Experiment]
#: Images of 3 x 32 x 32: a model of 30,730 numbers is large beside a header.
FIELDS: dict[str, Any] = {
    "dataset": "synthetic:samples=200,side=32",
    "downlink_codec": "topk:ratio=0.05+quantize:bits=4+zstd",
    "rounds": 4,
    "seed": 3,
}


def over(federation: Federation, transport: object) -> Federation:
    site = federation.sites[0].model_copy(update={"transport": transport})
    return Federation(name="test", sites=(site,))


@pytest.fixture(scope="module")
def whole(federation: Federation, tmp_path_factory: pytest.TempPathFactory) -> list[RoundReport]:
    """A run whose clients are sent every model whole: inline, it rides in the tasks."""
    plain = {"model": "softmax", "partition": "iid", "per_round": 4, "epochs": 1}
    path = tmp_path_factory.mktemp("whole") / "run"
    return list(rounds(over(federation, Inline()), Experiment.model_validate({**plain, **FIELDS}), path))


def test_over_grpc_a_node_fetches_each_difference_once(
    federation: Federation, experiment: Make, tmp_path: Path, whole: list[RoundReport]
) -> None:
    made = list(rounds(over(federation, Grpc()), experiment(**FIELDS), tmp_path / "run"))
    assert [r.model for r in made] == [r.model for r in whole]
    assert [r.accuracy for r in made] == [r.accuracy for r in whole]
    assert [4 * made[0].bytes_down, made[0].bytes_up] == [whole[0].bytes_down, whole[0].bytes_up]
    for report in made[1:]:
        told = {update.bytes_down for update in report.updates}
        assert told == {report.bytes_down}
        assert report.bytes_down < made[0].bytes_down / 20
    assert [r.bytes_down for r in whole] == [whole[0].bytes_down] * 4
    assert not any(update.notes for report in made for update in report.updates)
    assert journal.reports(tmp_path / "run") == made


def test_a_dead_worker_and_a_damaged_difference_change_no_bit(
    federation: Federation, experiment: Make, tmp_path: Path, whole: list[RoundReport]
) -> None:
    """At two sites, the smaller of which is not in every round; after round 2 a bit flips on the disk."""
    (here,) = federation.sites
    sites = [here.model_copy(update={"clients": 6}), here.model_copy(update={"name": "there", "clients": 2})]
    model = Mischief("die-once", task_seeds(1, *range(6), seed=3), mark=str(tmp_path / "mark"))
    hit = tmp_path / "run" / "differences" / "round-0002.plm"

    def damage(event: Event) -> None:
        if isinstance(event, RoundClosed) and event.report.round == 1:
            data = bytearray(hit.read_bytes())
            data[70] ^= 1
            hit.write_bytes(data)

    wanted = experiment(**{**FIELDS, "model": model})
    made = list(rounds(Federation(sites=tuple(sites)), wanted, tmp_path / "run", watch=damage))
    assert [r.model for r in made] == [r.model for r in whole]
    assert (tmp_path / "mark").exists()
    size = made[0].bytes_down // 4
    assert {update.bytes_down for update in made[0].updates} == {size}
    assert all(update.bytes_down < size / 20 for update in made[1].updates if update.client.site == "here")
    (note,) = {note for update in made[2].updates for note in update.notes}
    assert note.startswith("the model of round 3 was fetched whole, for its differences failed: checksum ")
    assert all(size < u.bytes_down < 1.1 * size for u in made[2].updates if u.client.site == "here")
    assert all(update.bytes_down < size / 20 for update in made[3].updates if update.client.site == "here")
    for report in made:
        assert report.bytes_down == sum(update.bytes_down for update in report.updates)


#: A driver as a user would write it, one of whose clients hangs in round 3 until it is killed.
DRIVER = """
import json, sys
from parslfl.experiment import Experiment
from parslfl.orchestrator import rounds
from parslfl.sites import Federation
from looking import task_seeds
from mischief import Mischief

path, federation, fields = sys.argv[1:]
model = Mischief("hang-once", task_seeds(2, *range(8), seed=3), mark=path + ".mark", seconds=100)
experiment = Experiment.model_validate({**json.loads(fields), "model": model})
for report in rounds(Federation.model_validate_json(federation), experiment, path):
    print(report.round, flush=True)
"""


def test_a_killed_driver_is_resumed_to_the_same_bits(
    federation: Federation, experiment: Make, tmp_path: Path, whole: list[RoundReport]
) -> None:
    """What the codec left out is on the disk, and counts only with its round."""
    run = tmp_path / "run"
    driver = subprocess.Popen(
        [
            sys.executable,
            "-c",
            DRIVER,
            str(run),
            federation.model_dump_json(),
            experiment(**FIELDS).model_dump_json(),
        ],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "workers")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert wait_until(lambda: Path(f"{run}.mark").exists() or driver.poll() is not None, 100)
    finally:
        os.kill(driver.pid, signal.SIGKILL)
    assert "Error" not in driver.communicate(timeout=30)[1]
    assert [report.round for report in journal.reports(run)] == [0, 1]
    assert (run / "models" / "round-0002.residual").exists()
    model = Mischief("hang-once", task_seeds(2, *range(8), seed=3), mark=f"{run}.mark", seconds=100)
    rest = list(rounds(federation, experiment(**{**FIELDS, "model": model}), run, resume=True))
    assert [r.model for r in journal.reports(run)] == [r.model for r in whole]
    assert [(r.failures, [u.notes for u in r.updates]) for r in rest] == [((), [()] * 4)] * len(rest)
