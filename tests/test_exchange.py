"""A site's shared folder: the run's own part of it, and nothing else; and updates that come in results."""

from __future__ import annotations

import gc
import pickle
import time
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from parslfl.channels import File, Inline, ProxyStore
from parslfl.closing import Closing
from parslfl.codecs import wire
from parslfl.codecs.raw import Raw
from parslfl.errors import PayloadError, RunError
from parslfl.exchange import Exchange, open_exchange
from parslfl.folding import checkpoints
from parslfl.folding.checkpoints import Checkpoint
from parslfl.folding.desk import Desk
from parslfl.folding.folding import Folding
from parslfl.folding.merging import Merged, merge
from parslfl.folding.receiving import discard
from parslfl.learning import LocalWork
from parslfl.messages import Assignment, Client, Outcome, Ref, RoundPlan, Update, update_name
from parslfl.params import Params, nbytes
from parslfl.sites import Site
from parslfl.strategies.fedavg import FedAvg
from parslfl.transport.inline import Inline as WorkersEnd
from parslfl_executors.local import Local


def site(folder: Path) -> Site:
    return Site(name="here", clients=1, executor=Local(), transport=File(path=str(folder)))


def test_what_is_in_the_shared_folder_stays(tmp_path: Path) -> None:
    (tmp_path / "shared/run").mkdir(parents=True)
    (tmp_path / "shared/run/thesis.txt").write_text("years of work")
    exchange = open_exchange(tmp_path / "run", (site(tmp_path / "shared"),))
    exchange.close()
    assert (tmp_path / "shared/run/thesis.txt").read_text() == "years of work"
    assert [p.name for p in (tmp_path / "shared").iterdir()] == ["run"]


def test_a_shared_folder_around_the_run_directory_is_no_danger(tmp_path: Path) -> None:
    (tmp_path / "runs/one").mkdir(parents=True)
    (tmp_path / "runs/one/journal.jsonl").write_text("{}")
    (tmp_path / "link").symlink_to(tmp_path / "runs")
    open_exchange(tmp_path / "runs/one", (site(tmp_path / "link"),)).close()
    assert (tmp_path / "runs/one/journal.jsonl").exists()


def test_two_runs_of_one_name_do_not_meet(tmp_path: Path) -> None:
    one, other = (open_exchange(tmp_path / d / "run", (site(tmp_path / "shared"),)) for d in ("a", "b"))
    ref = one.places["here"].put("updates/x", [b"1"], "")
    other.close()
    assert bytes(one.places["here"].get(ref)) == b"1"


def test_what_a_killed_driver_left_is_cleared(tmp_path: Path) -> None:
    first = open_exchange(tmp_path / "run", (site(tmp_path / "shared"),))
    first.places["here"].put("updates/x", [b"1"], "")
    again = open_exchange(tmp_path / "run", (site(tmp_path / "shared"),))
    assert not again.places["here"].has("updates/x")


def test_a_folder_that_parslfl_did_not_make_is_refused(tmp_path: Path) -> None:
    exchange = open_exchange(tmp_path / "run", (site(tmp_path / "shared"),))
    (own,) = (tmp_path / "shared").iterdir()
    exchange.close()
    own.mkdir()
    (own / "precious").touch()
    with pytest.raises(RunError, match="is in the way"):
        open_exchange(tmp_path / "run", (site(tmp_path / "shared"),))
    assert (own / "precious").exists()


def test_a_strategys_state_is_published_as_a_model_is(tmp_path: Path) -> None:
    exchange = open_exchange(tmp_path / "run", (site(tmp_path / "shared"),))
    path = tmp_path / "run" / "models" / "round-0002.state"
    path.parent.mkdir(parents=True)
    digest = checkpoints.write(path, {"c": np.ones(3, np.float32)})
    refs = exchange.publish_state(Checkpoint(2, path.with_suffix(".plm"), "", path, digest))
    for place, ref in refs.items():
        assert wire.unpack(exchange.places[place].get(ref), digest)[0]["c"].tolist() == [1, 1, 1]
    exchange.withdraw(refs)
    with pytest.raises(PayloadError):
        exchange.places["here"].get(refs["here"])
    assert path.exists()


@pytest.mark.parametrize(("kind", "most"), [("file", 0), ("proxystore", 1), ("inline", 1)])
def test_a_model_goes_out_in_one_copy_at_most(tmp_path: Path, kind: str, most: int) -> None:
    """Its file is mapped; what is put into a store, or into tasks, is in memory once."""
    transport = {
        "file": File(path=str(tmp_path / "shared")),
        "proxystore": ProxyStore(connector="file", options={"store_dir": str(tmp_path / "store")}),
        "inline": Inline(),
    }[kind]
    place = Site(name="here", clients=1, executor=Local(), transport=transport)
    exchange = open_exchange(tmp_path / "run", (place,))
    path = tmp_path / "run" / "models" / "round-0001.plm"
    path.parent.mkdir(parents=True)
    model = {"w": np.ones((1024, 1024), np.float32)}
    start = Checkpoint(1, path, checkpoints.write(path, model), Path(), "")
    exchange.withdraw(exchange.publish(start))  # imports are not what is measured
    tracemalloc.start()
    refs = exchange.publish(start)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert wire.unpack(exchange.places["here"].get(refs["here"]), start.model)[0]["w"].shape == (1024, 1024)
    assert peak < most * nbytes(model) + (1 << 18)
    exchange.withdraw(refs)
    exchange.close()


MODEL: Params = {"w": np.zeros((768, 512), np.float32)}


class Rides:
    """A round of `count` clients whose updates, of 1.5 MB, ride in results; `futures` is what Parsl holds."""

    def __init__(self, run: Path, count: int, close_at: int | None = None) -> None:
        place = Site(name="here", clients=count, executor=Local(), transport=Inline())
        self.run, self.exchange = run, open_exchange(run, (place,))
        clients = [Client(index, "here") for index in range(count)]
        cohort = tuple(Assignment(client, LocalWork(), Raw()) for client in clients)
        plan = RoundPlan(0, cohort, 1, close_at or count)
        place_of = self.exchange.places
        self.closing = Closing(
            plan,
            lambda _: None,
            lambda update: discard(update, place_of[update.client.site]),
            lambda: None,
            keep=self.exchange.keep,
        )
        self.futures: dict[Client, Future[Outcome]] = {client: Future() for client in clients}
        self.closing.watch(self.futures)

    def arrive(self, client: Client, **ref: object) -> None:
        """The update of `client` comes out of its task's result; `ref`: what its worker says of it else."""
        packed = wire.pack({"w": np.full_like(MODEL["w"], client.index)})
        sent = self.exchange.there("here").put(update_name(0, client), packed.buffers, packed.checksum)
        update = Update(client, 0, replace(sent, **ref), 1, 1, 1, 1.0, 1.0, 1)  # type: ignore[arg-type]
        self.futures[client].set_result(pickle.loads(pickle.dumps(update)))

    def merged(self) -> tuple[Merged, Params]:
        """All that settled, once it is added up."""
        given = self.closing.plan.cohort
        codecs, works = {a.client: a.codec for a in given}, {a.client: a.work for a in given}
        desk = Desk(like=MODEL)
        folding = Folding(FedAvg(), codecs, self.exchange.places, desk, time.monotonic(), works, len(given))
        note = merge(folding, 0, None, *(self.closing.settled[a.client].result(0) for a in given))
        return note, desk.sums(0, 0)

    @property
    def files(self) -> list[str]:
        return sorted(path.name for path in (self.run / "updates").iterdir())


@pytest.fixture
def uncollected() -> Iterator[None]:
    """Python's cycle collector does not run; memory is counted."""
    gc.collect()
    gc.disable()
    tracemalloc.start()
    yield
    tracemalloc.stop()
    gc.enable()


@pytest.mark.usefixtures("uncollected")
def test_updates_that_wait_in_results_take_no_memory(tmp_path: Path) -> None:
    """All of a round's are in before the first is merged: 40 of them take what 10 take."""
    peaks, rides = [], []
    for count in (10, 40):
        rides.append(Rides(tmp_path / f"{count}", count))
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        for client in rides[-1].futures:
            rides[-1].arrive(client)
        assert len(rides[-1].files) == count
        note, sums = rides[-1].merged()
        assert (len(note.updates), float(sums["w"][0, 0])) == (count, sum(range(count)))
        peaks.append(tracemalloc.get_traced_memory()[1] - before)
        assert rides[-1].files == []
        del sums
    assert peaks[1] - peaks[0] < nbytes(MODEL) / 4
    assert peaks[1] < 5 * nbytes(MODEL)  # of which the test itself has three, to make an update and send it


def test_what_is_late_leaves_no_file(tmp_path: Path) -> None:
    ride = Rides(tmp_path, 4, close_at=2)
    for client in ride.futures:
        ride.arrive(client)
    assert ride.files == [f"round-0000-client-0000{index}" for index in (0, 1)]
    note, _ = ride.merged()
    assert ([u.client.index for u in note.updates], ride.files) == ([0, 1], [])
    assert [failure.kind for failure in note.failures] == ["late"] * 2
    assert not any(one.ref.data for one in _came(ride))


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"size": 3}, "an inline payload has 1572928 bytes, announced 3"),
        ({"checksum": "0" * 16}, "checksum"),
        (
            {"path": "updates/round-0000-client-00001"},
            "points at 'updates/round-0000-client-00001', which is not",
        ),
        (
            {"path": "updates/round-0000-client-00000", "data": b""},
            "an inline payload has 0 bytes, announced",
        ),
    ],
)
def test_what_a_worker_says_of_its_update_is_checked(
    tmp_path: Path, said: dict[str, object], why: str
) -> None:
    ride = Rides(tmp_path, 2)
    first, second = ride.futures
    ride.arrive(second)
    ride.arrive(first, **said)
    note, _ = ride.merged()
    (failure,) = note.failures
    assert (failure.client, failure.kind, note.updates[0].client) == (first, "refused", second)
    assert why in failure.reason
    assert ride.files == []
    assert not any(one.ref.data for one in _came(ride))


def _came(ride: Rides) -> list[Update]:
    found = [future.result(0) for future in ride.futures.values()]
    return [outcome for outcome in found if isinstance(outcome, Update)]


def test_what_came_is_counted_though_it_could_not_be_stored(tmp_path: Path) -> None:
    (tmp_path / "updates").touch()
    ride = Rides(tmp_path, 1)
    (client,) = ride.futures
    ride.arrive(client)
    (failure,) = ride.merged()[0].failures
    assert failure.bytes_up == 1572928
    assert failure.reason.startswith(f"the driver cannot store updates in {tmp_path}: File exists")
    assert not any(one.ref.data for one in _came(ride))


def test_workers_get_their_own_end_and_others_updates_are_left_alone(tmp_path: Path) -> None:
    exchange: Exchange = Rides(tmp_path, 1).exchange
    assert exchange.there("here") == WorkersEnd()
    update = Update(Client(0, "driver"), 0, Ref(1, "", data=b"x" * 100_000), 1, 1, 1, 1.0, 1.0, 1)
    assert exchange.keep(update) is update
