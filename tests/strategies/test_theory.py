"""Where theory says that a federated step is a centralised one: one full-batch step, every client.

Logistic regression on 12 examples of 3 clients, equally many each, so that the mean of the clients'
gradients is the gradient of all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from parslfl.learning import Guide, LocalWork, Personal, Samples, Scores, Trained, Visit
from parslfl.models.softmax import Softmax
from parslfl.params import Params, subtract, trained
from parslfl.protocols import ClientSide, Strategy
from parslfl.seeding import derive
from parslfl.strategies.ditto import Ditto
from parslfl.strategies.dynamic import Dynamic
from parslfl.strategies.fedavg import FedAvg
from parslfl.strategies.fednova import FedNova
from parslfl.strategies.fedopt import FedAvgM
from parslfl.strategies.qfedavg import QFedAvg
from parslfl.strategies.robust import Krum, MedianClip, NormClip, TrimmedMean
from parslfl.strategies.scaffold import By, Scaffold

Aggregated = Callable[..., tuple[Params, Params]]

#: Where one client's examples end and the next one's begin: as many for each, or not.
EDGES, UNEQUAL = (0, 4, 8, 12), (0, 2, 5, 12)
WORK = LocalWork(epochs=1, batch_size=12, lr=0.5)
ROUNDS = 3


def never() -> bool:
    return False


def examples() -> Samples:
    """Clients differ much: each has another mean."""
    random = np.random.default_rng(3)
    x = random.normal(size=(12, 4)).astype(np.float32) + np.repeat([[-1], [0], [1]], 4, axis=0)
    return Samples(x.astype(np.float32), np.arange(12) % 3, classes=3)


def part(client: int, edges: Sequence[int] = EDGES) -> Samples:
    whole, mine = examples(), slice(edges[client], edges[client + 1])
    return Samples(whole.x[mine], whole.y[mine], 3)


def centralised(rounds: int, momentum: float = 0.0) -> Params:
    """Full-batch gradient descent on all examples; an epoch is a step."""
    work = LocalWork(epochs=rounds, batch_size=12, lr=0.5, momentum=momentum)
    return Softmax().train(Softmax().init((4,), 3, 0), examples(), work, 0, never).params


class Clients:
    """Three clients that keep what the strategy says, without files."""

    def __init__(self, strategy: Strategy, work: LocalWork, edges: Sequence[int] = EDGES) -> None:
        self.strategy, self.work, self.edges = strategy, strategy.local(work), edges
        self.kept: dict[int, Params] = {}
        self.personal: list[Personal | None] = []

    def round(self, state: Params, params: Params, who: Sequence[int]) -> tuple[list[Params], list[int]]:
        """Deltas and numbers of steps."""
        done = [self._train(client, state, params) for client in who]
        return [delta for delta, _ in done], [steps for _, steps in done]

    def _train(self, client: int, state: Params, params: Params) -> tuple[Params, int]:
        side = self.strategy if isinstance(self.strategy, ClientSide) else None
        kept = self.kept.get(client) or (side.fresh(params) if side else {})
        guide = side.guide(state, kept) if side else Guide()
        samples = part(client, self.edges)
        made = Softmax().train(params, samples, self.work, client, never, guide)
        delta = subtract(made.params, params)
        if side:
            visit = Visit(params, state, kept, delta, made.steps, self.work, self._again(samples), score)
            self.kept[client], personal = side.keep(visit)
            self.personal.append(personal)
        return delta, made.steps

    def _again(self, samples: Samples) -> Callable[[Params, LocalWork, Guide], Trained]:
        return lambda params, work, guide: Softmax().train(params, samples, work, 9, never, guide)


def score(params: Params) -> Scores | None:
    return Softmax().evaluate(params, examples(), WORK)


def federated(
    aggregated: Aggregated, strategy: Strategy, rounds: int = ROUNDS, work: LocalWork = WORK
) -> tuple[Params, Clients]:
    params = Softmax().init((4,), 3, 0)
    state, clients = strategy.start(params), Clients(strategy, work)
    for _ in range(rounds):
        deltas, steps = clients.round(state, params, range(3))
        facts = {"steps": steps, "samples": [4] * 3}
        if clients.work.start_loss:
            facts["start_loss"] = [Softmax().evaluate(params, part(i), WORK).loss for i in range(3)]
        if clients.work.variance:
            facts["variance"] = [0.0] * 3
        state, params = aggregated(strategy, deltas, params=params, state=state, work=work, **facts)
    return params, clients


@pytest.mark.parametrize(
    "strategy",
    [
        FedAvg(),
        FedNova(),
        Scaffold(),
        QFedAvg(q=0),
        Ditto(),
        Dynamic("size"),
        NormClip(norm=1e9),
        TrimmedMean(cut=0),
        Krum(keep=3),
        MedianClip(factor=1e9),
    ],
    ids=repr,
)
def test_one_step_of_all_clients_is_gradient_descent(aggregated: Aggregated, strategy: Strategy) -> None:
    params, _ = federated(aggregated, strategy)
    for name, expected in centralised(ROUNDS).items():
        np.testing.assert_allclose(params[name], expected, rtol=1e-4, atol=1e-6)


def test_server_momentum_is_that_of_gradient_descent(aggregated: Aggregated) -> None:
    params, _ = federated(aggregated, FedAvgM(beta=0.9))
    for name, expected in centralised(ROUNDS, momentum=0.9).items():
        np.testing.assert_allclose(params[name], expected, rtol=1e-4, atol=1e-6)


def test_scaffold_keeps_gradients_of_the_last_round(aggregated: Aggregated) -> None:
    """After a round of one step from x, c_k is client k's gradient at x, and c their mean."""
    start = Softmax().init((4,), 3, 0)
    strategy = Scaffold()
    clients = Clients(strategy, WORK)
    deltas, steps = clients.round(strategy.start(start), start, range(3))
    state, _ = aggregated(
        strategy, deltas, params=start, state=strategy.start(start), work=WORK, steps=steps, samples=[4] * 3
    )
    for client in range(3):
        one_step = subtract(Softmax().train(start, part(client), WORK, 0, never).params, start)
        for name, moved in one_step.items():
            np.testing.assert_allclose(clients.kept[client][name], -moved / 0.5, rtol=1e-4, atol=1e-6)
    for name, control in trained(state).items():
        mean = np.mean([clients.kept[client][name] for client in range(3)], axis=0)
        np.testing.assert_allclose(control, mean, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("by", ["samples", "clients"])
@pytest.mark.parametrize("work", [WORK, LocalWork(epochs=3, batch_size=3, lr=0.1, momentum=0.9)], ids=str)
def test_scaffolds_server_knows_what_all_clients_keep(
    aggregated: Aggregated, work: LocalWork, by: By
) -> None:
    """c = sum_k n_k c_k / n, always: though only some take part, and n is N times the mean of n_k so far."""
    strategy, params = Scaffold(by, lr=0.5), Softmax().init((4,), 3, 0)
    state, clients, weights = strategy.start(params), Clients(strategy, work, UNEQUAL), list[int]()
    size = {"samples": np.diff(UNEQUAL), "clients": np.ones(3, int)}[by]
    for who in ((0, 1), (2,), (1, 2, 0), (0,)):
        state, params = some(aggregated, clients, state, params, who)
        weights += [int(size[k]) for k in who]
        for name, control in trained(state).items():
            every = [n * clients.kept[k][name] for k, n in enumerate(size) if k in clients.kept]
            expected = np.sum(every, axis=0) / (3 * np.mean(weights))
            np.testing.assert_allclose(control, expected, rtol=1e-3, atol=1e-6)


def some(
    aggregated: Aggregated, clients: Clients, state: Params, params: Params, who: Sequence[int]
) -> tuple[Params, Params]:
    """A round of the clients `who`, of three."""
    deltas, steps = clients.round(state, params, who)
    sizes = [len(part(client, clients.edges)) for client in who]
    facts = {"params": params, "state": state, "work": clients.work, "steps": steps, "samples": sizes}
    return aggregated(clients.strategy, deltas, clients=3, **facts)


def test_scaffold_weighs_controls_as_it_weighs_updates(aggregated: Aggregated) -> None:
    """By samples, with all clients in a round: c = sum_k n_k c_k / n, and x moves as FedAvg's."""
    start, sizes = Softmax().init((4,), 3, 0), [5, 1, 2]
    work = LocalWork(epochs=3, batch_size=3, lr=0.1)
    strategy, clients = Scaffold(), Clients(Scaffold(), work)
    deltas, steps = clients.round(strategy.start(start), start, range(3))
    facts = {"params": start, "work": work, "steps": steps, "samples": sizes}
    state, params = aggregated(strategy, deltas, state=strategy.start(start), **facts)
    _, plain = aggregated(FedAvg(), deltas, state={}, **facts)
    for name, control in trained(state).items():
        mean = np.average([clients.kept[client][name] for client in range(3)], axis=0, weights=sizes)
        np.testing.assert_allclose(control, mean, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(params[name], plain[name], rtol=1e-6)


def test_scaffold_drifts_less_than_fedavg(aggregated: Aggregated) -> None:
    """Many local steps on clients that differ: SCAFFOLD ends at the optimum of all examples."""
    work = LocalWork(epochs=20, batch_size=12, lr=0.1, weight_decay=0.1)
    best = Softmax().train(Softmax().init((4,), 3, 0), examples(), replace(work, epochs=2000), 0, never)
    distance = {}
    for strategy in (FedAvg(), Scaffold()):
        params, _ = federated(aggregated, strategy, rounds=40, work=work)
        distance[strategy] = float(sum(np.square(params[n] - best.params[n]).sum() for n in params) ** 0.5)
    assert distance[FedAvg()] > 0.1
    assert distance[Scaffold()] < 0.001


def test_scaffold_ends_there_though_a_client_loses_what_it_kept(aggregated: Aggregated) -> None:
    """Its old c_k would stay in c for good, a third of what steers all: so everybody begins afresh."""
    work = LocalWork(epochs=20, batch_size=12, lr=0.1, weight_decay=0.1)
    params = Softmax().init((4,), 3, 0)
    best = Softmax().train(params, examples(), replace(work, epochs=2000), 0, never).params
    strategy = Scaffold()
    state, clients = strategy.start(params), Clients(strategy, work)
    for round in range(50):
        lost = round == 10
        if lost:
            del clients.kept[0]
        deltas, steps = clients.round(state, params, range(3))
        facts = {"steps": steps, "samples": [4] * 3, "afresh": [lost, False, False]}
        before = params
        state, params = aggregated(strategy, deltas, params=params, state=state, work=work, **facts)
        if lost:
            clients.kept.clear()  # as the driver does: `keep.note_accepted`
            assert not any(array.any() for array in state.values())
            assert any((params[name] != before[name]).any() for name in params)
    assert sum(np.square(params[n] - best[n]).sum() for n in params) ** 0.5 < 0.001


def test_scaffold_ends_there_with_some_clients_a_round_too(aggregated: Aggregated) -> None:
    """Clients of unequal sizes, two of three in a round: c must not lose track of them."""
    work = LocalWork(epochs=5, batch_size=12, lr=0.1, weight_decay=0.1)
    start = Softmax().init((4,), 3, 0)
    best = Softmax().train(start, examples(), replace(work, epochs=2000), 0, never).params
    distance = {}
    for strategy in (FedAvg(), Scaffold()):
        state, params, clients = strategy.start(start), start, Clients(strategy, work, UNEQUAL)
        for round in range(150):
            who = [k for k in range(3) if k != derive(0, "away", round) % 3]
            state, params = some(aggregated, clients, state, params, who)
        distance[strategy] = float(sum(np.square(params[n] - best[n]).sum() for n in params) ** 0.5)
    assert distance[FedAvg()] > 0.1
    assert distance[Scaffold()] < 0.001


def test_ditto_without_pull_is_local_training(aggregated: Aggregated) -> None:
    _, clients = federated(aggregated, Ditto(pull=0), rounds=2)
    params = Softmax().init((4,), 3, 0)
    for _ in range(2):
        params = Softmax().train(params, part(1), WORK, 9, never).params
    for name, array in params.items():
        np.testing.assert_array_equal(clients.kept[1][name], array)


def test_ditto_stays_nearer_to_the_global_model_the_harder_it_is_pulled(aggregated: Aggregated) -> None:
    gaps = []
    for pull in (0.0, 0.5, 1.9):
        start = Softmax().init((4,), 3, 0)
        clients = Clients(Ditto(pull=pull), LocalWork(epochs=30, batch_size=12, lr=0.5))
        clients.round({}, start, [0])
        gaps.append(float(sum(np.square(clients.kept[0][n] - start[n]).sum() for n in start)))
    assert gaps[0] > gaps[1] > gaps[2] > 0


def test_ditto_scores_both_models_on_what_was_held_out(aggregated: Aggregated) -> None:
    _, clients = federated(aggregated, Ditto(), rounds=1)
    found = clients.personal[0]
    assert found is not None
    expected = Softmax().evaluate(clients.kept[0], examples(), WORK).accuracy
    assert (found.accuracy, found.samples) == (expected, 12)
    assert found.global_accuracy == Softmax().evaluate(Softmax().init((4,), 3, 0), examples(), WORK).accuracy
