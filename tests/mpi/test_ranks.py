"""A site's MPI job with real ranks, on three weights worked by hand."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from counting import Counting
from linear import Linear
from looking import no_rank_left, wait_until
from noted import Noted

from parslfl.codecs import wire
from parslfl.codecs.cast import Fp16
from parslfl.codecs.raw import Raw
from parslfl.data.partition import Iid
from parslfl.data.synthetic import Synthetic
from parslfl.downlink import advance
from parslfl.folding.partials import Partial
from parslfl.learning import LocalWork
from parslfl.messages import Client, Difference, ModelRef, RanksTask, Source, TrainTask, Update
from parslfl.mpi import job as mpi_job
from parslfl.mpi.job import cause, command, run_site
from parslfl.params import trained
from parslfl.strategies.fedavg import FedAvg
from parslfl.strategies.scaffold import Scaffold
from parslfl.tasks import train
from parslfl.transport import node_cache
from parslfl.transport.file import File

CLIENTS = [Client(i, "far") for i in range(5)]
#: Of 17 examples: 4, 4, 3, 3, 3.
DATA = Synthetic(samples=17)

Make = Callable[..., RanksTask]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """A task for five clients on four ranks."""
    pytest.importorskip("mpi4py")
    workers = str(Path(__file__).parents[1] / "workers")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([workers, os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    far = File(str(tmp_path / "far"))

    def made(ranks: int = 4, model: Counting | None = None, **changes: object) -> RanksTask:
        model = model or Counting()
        packed = wire.pack(model.init((), 2, 0))
        start = far.put("models/4", packed.buffers, packed.checksum)
        source = Source(DATA, Iid(), str(tmp_path), len(CLIENTS), 0)
        trains = tuple(
            TrainTask(4, client, model, source, LocalWork(), start, Raw(), far, seed=client.index)
            for client in CLIENTS
        )
        task = RanksTask(4, "far", trains, FedAvg(), start, far, f"mpiexec -n {ranks}", ranks)
        return replace(task, **changes)  # type: ignore[arg-type]

    return made


def sums(task: RanksTask, partial: Partial) -> dict[str, list[float]]:
    arrays, _ = wire.unpack(task.transport.get(partial.refs[0]), partial.refs[0].checksum)
    return {name: array.tolist() for name, array in arrays.items()}


def test_four_ranks_send_one_sum_of_five_clients(make: Make) -> None:
    """Sizes 4, 4, 3, 3, 3: the squares sum to 59, the sizes to 17."""
    task = make()
    partial = run_site(task)
    assert [u.client for u in partial.merged.updates] == CLIENTS
    assert [u.samples for u in partial.merged.updates] == [4, 4, 3, 3, 3]
    assert partial.merged.weight == 17
    found = sums(task, partial)
    assert found["w"][:2] == [59, 17]
    assert found["w"][2] == pytest.approx(1.7, rel=1e-6)
    assert found["h"] == [17]
    assert "n" not in found
    pids = [update.spent.pid for update in partial.merged.updates]
    assert len(set(pids)) == 4
    assert pids[0] == pids[4]  # rank 0 trains the first and the fifth


def test_the_same_ranks_give_the_same_bits(make: Make) -> None:
    assert run_site(make()).refs == run_site(make()).refs


def test_more_ranks_than_clients(make: Make) -> None:
    task = make(ranks=2)
    partial = run_site(replace(task, trains=task.trains[:1]))
    assert sums(task, partial)["w"][:2] == [16, 4]


def test_a_rank_that_dies_costs_the_sum_and_is_named(make: Make, tmp_path: Path) -> None:
    task = make(model=Counting(mark=str(tmp_path / "mark"), victim=2))
    partial = run_site(task)
    assert [f.client for f in partial.merged.failures] == CLIENTS
    assert {f.kind for f in partial.merged.failures} == {"lost"}
    assert "its MPI job ended with exit code 9" in partial.merged.failures[0].reason
    assert "Killed (signal 9)" in partial.merged.failures[0].reason
    assert wait_until(no_rank_left, 5)
    assert len(run_site(task).merged.updates) == 5


def test_a_model_that_is_not_there_is_the_cause(make: Make) -> None:
    task = make(ranks=2)
    gone = replace(task.start, path="models/5")
    (reason,) = {f.reason for f in run_site(replace(task, start=gone)).merged.failures}
    assert "parslfl rank 0: cannot read" in reason
    assert "models/5" in reason


def test_a_launcher_that_is_not_there_is_a_sentence(make: Make) -> None:
    (reason,) = {f.reason for f in run_site(make(launcher="mpiexec.nowhere -n 4")).merged.failures}
    assert reason.startswith("mpiexec.nowhere cannot be started: No such file or directory. Install")


def test_another_number_of_ranks_than_asked_for_is_refused(make: Make) -> None:
    """They would give other bits, without a word."""
    (reason,) = {f.reason for f in run_site(make(ranks=2, launcher="mpiexec")).merged.failures}
    wanted = "asked for 2 ranks, the launcher started 1: write {ranks} in executor.launcher"
    assert wanted in reason
    assert "\n" not in reason


def test_a_launcher_that_starts_no_rank_is_told(make: Make) -> None:
    (reason,) = {f.reason for f in run_site(make(launcher="true")).merged.failures}
    assert reason == "its MPI job ended without an answer: see that executor.launcher starts the ranks"


def test_a_job_that_does_not_stop_is_ended(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mpi_job, "PATIENCE", 2.0)
    task = make(ranks=2, model=Counting(seconds=60), closes_at=time.time())
    (reason,) = {f.reason for f in run_site(task).merged.failures}
    assert reason == "its MPI job did not stop within 2 s of the round's deadline, and was ended"
    assert wait_until(no_rank_left, 5)


def test_a_launcher_that_never_reads_its_stdin_is_ended_in_time(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The task does not fit into a pipe, and what the launcher leaves behind holds that open."""
    monkeypatch.setattr(mpi_job, "PATIENCE", 1.0)
    task = make(launcher="sh -c 'sleep 8; true'", closes_at=time.time())
    large = replace(task.trains[0], store=200_000 * "x")
    task = replace(task, trains=(large, *task.trains[1:]))
    (reason,) = {f.reason for f in run_site(task).merged.failures}
    assert reason == "its MPI job did not stop within 1 s of the round's deadline, and was ended"
    assert time.time() - (task.closes_at or 0) < 5


def test_no_rank_outlives_the_worker_that_started_it(make: Make, tmp_path: Path) -> None:
    """The worker is killed, so it can tell nobody; the mark shows that its ranks train."""
    task = make(ranks=2, model=Counting(seconds=60))
    file = tmp_path / "task"
    import cloudpickle

    file.write_bytes(cloudpickle.dumps(task))
    program = (
        "import cloudpickle, sys; from pathlib import Path; from parslfl.mpi.job import run_site\n"
        "run_site(cloudpickle.loads(Path(sys.argv[1]).read_bytes()))"
    )
    worker = subprocess.Popen([sys.executable, "-c", program, str(file)])
    try:
        assert wait_until(lambda: not no_rank_left(), 20)
        time.sleep(1)
    finally:
        worker.send_signal(signal.SIGKILL)
        worker.wait()
    assert wait_until(no_rank_left, 10)


def test_parsl_s_own_command_is_taken_where_it_made_one(monkeypatch: pytest.MonkeyPatch) -> None:
    program = [sys.executable, "-m", "parslfl.mpi.ranks"]
    monkeypatch.setenv("PARSL_MPI_PREFIX", "srun --ntasks 4 --nodelist node1,node2")
    assert command("$PARSL_MPI_PREFIX") == ["srun", "--ntasks", "4", "--nodelist", "node1,node2", *program]
    assert command("mpirun -np 4") == ["mpirun", "-np", "4", *program]


def test_the_cause_is_a_rank_s_own_word_or_the_launcher_s_last() -> None:
    said = "noise\n===\n=   BAD TERMINATION\nparslfl rank 1: ValueError: no\nparslfl rank 2: late\n=====\n"
    assert cause(said) == "parslfl rank 1: ValueError: no"
    assert cause("====\n=   EXIT CODE: 9\n=   YOU CAN IGNORE THIS\n\n") == "EXIT CODE: 9"
    assert cause("").startswith("it said nothing: see that executor.launcher runs a program there by hand")
    mpich = (
        "\n=====\n=   BAD TERMINATION OF ONE OF YOUR APPLICATION PROCESSES\n=   PID 11113 RUNNING AT node1\n"
        "=   EXIT CODE: 9\n=   CLEANING UP REMAINING PROCESSES\n=   YOU CAN IGNORE THE BELOW CLEANUP\n"
        "=====\nYOUR APPLICATION TERMINATED WITH THE EXIT STRING: Killed (signal 9)\n"
        "This typically refers to a problem with your application.\nPlease see the FAQ page for help\n"
    )
    killed = "YOUR APPLICATION TERMINATED WITH THE EXIT STRING: Killed (signal 9)"
    assert cause(mpich) == f"PID 11113 RUNNING AT node1; EXIT CODE: 9; {killed}"
    long = "parslfl rank 0: FileNotFoundError: " + 60 * "/a/folder"
    assert cause(f"noise\n{long}\n") == long
    assert cause("\n".join(["x" * 3000, "exit code 9"])).endswith("xxx; exit code 9")


def test_half_precision_is_summed_in_single(make: Make) -> None:
    """MPI has no type for it, and it ends at 65,504."""
    task = make(ranks=2)
    arrays, _ = wire.unpack(task.transport.get(run_site(task).refs[0]))
    assert arrays["h"].dtype == np.float32


def test_ranks_that_train_a_client_together_do_as_one_process_does(make: Make) -> None:
    task = make(ranks=3)
    model, work = Linear(), LocalWork(epochs=2, batch_size=3, lr=0.1, momentum=0.9)
    packed = wire.pack(model.init(DATA.shape, DATA.classes, 0))
    start = task.transport.put("models/linear", packed.buffers, packed.checksum)
    trains = tuple(replace(one, model=model, work=work, start=start) for one in task.trains[:2])
    partial = run_site(replace(task, trains=trains, start=start, together=True))
    assert [u.client for u in partial.merged.updates] == CLIENTS[:2]
    assert [u.steps for u in partial.merged.updates] == [4, 4]
    assert len({u.spent.pid for u in partial.merged.updates}) == 1
    alone = [train(one) for one in trains]
    updates = [one for one in alone if isinstance(one, Update)]
    deltas = [wire.unpack(task.transport.get(update.ref))[0] for update in updates]
    for name, found in sums(task, partial).items():
        wanted = sum(4 * delta[name] for delta in deltas)
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)
        assert np.any(wanted)


def test_model_and_shared_state_are_read_once_for_all_ranks(make: Make, tmp_path: Path) -> None:
    task = make(ranks=2)
    noted = Noted(str(tmp_path / "far"), log=str(tmp_path / "log"))
    model, strategy = Linear(), Scaffold()
    params = model.init(DATA.shape, DATA.classes, 0)
    packed, control = wire.pack(params), wire.pack(strategy.start(params))
    start = noted.put("models/linear", packed.buffers, packed.checksum)
    shared = noted.put("models/control", control.buffers, control.checksum)
    changes = {"model": model, "start": start, "strategy": strategy, "shared": shared, "transport": noted}
    trains = tuple(replace(one, store=str(tmp_path / "store"), **changes) for one in task.trains)
    partial = run_site(replace(task, trains=trains, start=start, strategy=strategy, transport=noted))
    assert not partial.merged.failures
    assert len(partial.refs) == 2
    assert (tmp_path / "log").read_text().splitlines() == ["models/linear", "models/control"]


def test_a_rank_that_fails_alone_ends_the_job(make: Make) -> None:
    """In a job whose ranks wait for each other at every step."""
    task = make(ranks=2)
    nowhere = replace(task.trains[0].source, partition=Iid(), clients=99)
    trains = (replace(task.trains[0], model=Linear(), source=nowhere),)
    (reason,) = {f.reason for f in run_site(replace(task, trains=trains, together=True)).merged.failures}
    assert "parslfl rank" in reason
    assert "far/0: " in reason


def test_rank_0_puts_the_model_together_for_all(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "node").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "node"))
    monkeypatch.setattr("tempfile.tempdir", None)
    node_cache._joined.cache_clear()
    plain = make(ranks=2)
    before = plain.start
    model = wire.unpack(plain.transport.get(before))[0]
    arrays, note = Fp16().encode({name: np.ones_like(array) for name, array in trained(model).items()})
    packed = wire.pack(arrays, note)
    ref = plain.transport.put("differences/5", packed.buffers, packed.checksum)
    advance(model := {name: array.copy() for name, array in model.items()}, arrays, note, Fp16())
    first = ModelRef(before.size, before.checksum, before.path, codec=Fp16(), run="run")
    then = replace(
        first, checksum=wire.pack(model).checksum, path="models/5", differences=(Difference(5, before, ref),)
    )
    partials = []
    for start in (first, then):  # the whole of the second model lies nowhere
        trains = tuple(replace(one, start=start) for one in plain.trains)
        partials.append(run_site(replace(plain, start=start, trains=trains)))
    assert [p.merged.failures for p in partials] == [(), ()]
    told = [(u.bytes_down, u.raw_down, u.notes) for p in partials for u in p.merged.updates]
    assert told == [(before.size, before.size, ())] * 5 + [(ref.size, before.size, ())] * 5
