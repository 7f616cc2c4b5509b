"""A client's part, through the worker's own `train`: what it keeps, rolls back, and says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from parslfl import tasks
from parslfl.codecs import wire
from parslfl.codecs.raw import Raw
from parslfl.data.partition import Iid
from parslfl.data.synthetic import Synthetic
from parslfl.keep import ClientStore
from parslfl.learning import LocalWork
from parslfl.messages import Client, Failure, Ref, Source, TrainTask, Update
from parslfl.models.softmax import Softmax
from parslfl.params import Params
from parslfl.protocols import Strategy
from parslfl.strategies.ditto import Ditto
from parslfl.strategies.fedavg import FedAvg
from parslfl.strategies.qfedavg import QFedAvg
from parslfl.strategies.scaffold import Scaffold
from parslfl.transport.file import File

CLIENT = Client(1, "here")
WORK = LocalWork(epochs=2, batch_size=8, lr=0.01)
SOURCE = Source(Synthetic(samples=60), Iid(), "", 3, 5)


def put(transport: File, name: str, params: Params) -> Ref:
    packed = wire.pack(params)
    return transport.put(name, packed.buffers, packed.checksum)


def task(folder: Path, strategy: Strategy, round: int = 0, accepted: int = -1) -> TrainTask:
    transport = File(str(folder))
    model = Softmax().init(SOURCE.dataset.shape, SOURCE.dataset.classes, 0)
    state = strategy.start(model)
    return TrainTask(
        round=round,
        client=CLIENT,
        model=Softmax(),
        source=SOURCE,
        work=strategy.local(WORK),
        start=put(transport, f"model-{round}", model),
        codec=Raw(),
        transport=transport,
        seed=round,
        store=str(folder / "clients"),
        accepted=accepted,
        strategy=strategy,
        shared=put(transport, f"state-{round}", state) if state else None,
    )


def trained(asked: TrainTask) -> Update:
    outcome = tasks.train(asked)
    assert isinstance(outcome, Update), outcome
    return outcome


def kept(folder: Path, strategy: Strategy, round: int) -> Params | None:
    return ClientStore(str(folder / "clients")).load(CLIENT, type(strategy).__name__.lower(), round)


def delta(folder: Path, update: Update) -> Params:
    return wire.unpack(File(str(folder)).get(update.ref))[0]


def test_scaffold_keeps_the_mean_gradient_of_its_first_round(tmp_path: Path) -> None:
    """From c = c_k = 0: minus the update over K * eta. It travels as FedAvg's does."""
    update = trained(task(tmp_path, Scaffold()))
    control = kept(tmp_path, Scaffold(), 0)
    assert control is not None
    assert update.notes == ()
    for name, array in delta(tmp_path, update).items():
        np.testing.assert_allclose(control[name], -array / (update.steps * 0.01), rtol=1e-5)
    plain = trained(replace(task(tmp_path / "plain", FedAvg()), strategy=None))
    assert delta(tmp_path / "plain", plain).keys() == delta(tmp_path, update).keys()


def test_what_was_kept_steers_the_next_round(tmp_path: Path) -> None:
    trained(task(tmp_path, Scaffold()))
    steered = trained(task(tmp_path, Scaffold(), round=1, accepted=0))
    free = trained(task(tmp_path / "other", Scaffold(), round=1, accepted=-1))
    assert steered.ref.checksum != free.ref.checksum


def test_an_update_that_was_not_accepted_leaves_no_trace(tmp_path: Path) -> None:
    """Rounds 0 and 1 trained, 1 refused: round 2 has the same bits as if 1 had never been."""
    for folder, between in ((tmp_path / "a", True), (tmp_path / "b", False)):
        trained(task(folder, Scaffold()))
        if between:
            trained(task(folder, Scaffold(), round=1, accepted=0))
    refused, never = (trained(task(tmp_path / f, Scaffold(), round=2, accepted=0)) for f in "ab")
    assert refused.ref.checksum == never.ref.checksum


@pytest.mark.parametrize("strategy", [Scaffold(), Ditto()])
def test_a_state_that_is_gone_is_said(tmp_path: Path, strategy: Strategy) -> None:
    name = type(strategy).__name__.lower()
    lost = trained(task(tmp_path, strategy, round=3, accepted=2))
    (note,) = lost.notes
    others = ", and all clients with it from the next round" if isinstance(strategy, Scaffold) else ""
    assert note == f"{name} of round 3 is gone or damaged in {tmp_path}/clients: begun afresh{others}"
    fresh = trained(task(tmp_path / "new", strategy, round=3))
    assert fresh.notes == ()
    assert (lost.afresh, fresh.afresh) == (True, False)
    assert lost.ref.checksum == fresh.ref.checksum
    one, two = kept(tmp_path, strategy, 3), kept(tmp_path / "new", strategy, 3)
    assert one is not None
    assert two is not None
    assert all((one[name] == two[name]).all() for name in one)


def test_ditto_trains_on_what_it_does_not_score(tmp_path: Path) -> None:
    """20 examples a client: a fifth is held out, the same in every round."""
    strategy = Ditto(held_out=0.2)
    update = trained(task(tmp_path, strategy))
    assert update.samples == 16
    assert update.personal is not None
    assert update.personal.samples == 4
    first, again = (tasks._samples(task(tmp_path, strategy, round=r)) for r in (0, 1))
    assert (first[0].x == again[0].x).all()
    assert first[1] is not None
    assert not {x.tobytes() for x in first[0].x} & {x.tobytes() for x in first[1].x}


def test_dittos_global_update_is_fedavgs_on_the_same_examples(tmp_path: Path) -> None:
    mine = trained(task(tmp_path / "a", Ditto(held_out=0)))
    plain = trained(replace(task(tmp_path / "b", FedAvg()), strategy=None))
    assert mine.ref.checksum == plain.ref.checksum
    assert mine.personal is None


def test_the_loss_at_the_global_model_is_measured_when_asked(tmp_path: Path) -> None:
    """A softmax of zeros gives every one of the classes the same chance."""
    update = trained(replace(task(tmp_path, QFedAvg()), strategy=None))
    assert update.start_loss == pytest.approx(np.log(SOURCE.dataset.classes), rel=1e-5)
    assert trained(replace(task(tmp_path, FedAvg()), strategy=None)).start_loss is None


def test_a_place_that_cannot_be_written_costs_that_client(tmp_path: Path) -> None:
    (tmp_path / "clients").write_text("a file is in the way")
    outcome = tasks.train(task(tmp_path, Scaffold()))
    assert isinstance(outcome, Failure)
    assert "cannot keep what clients of here need again" in outcome.reason
    assert not list(tmp_path.glob("updates/*"))
