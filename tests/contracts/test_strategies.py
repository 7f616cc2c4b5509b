"""What every strategy promises."""

from __future__ import annotations

import numpy as np
import pytest

from parslfl.learning import Cohort, Evidence, LocalWork, Scores, Trained, Visit
from parslfl.params import Params, trained
from parslfl.protocols import ClientSide, NeedsAll, Scaled, Strategy, shares
from parslfl.stack import Stack
from parslfl.strategies.names import STRATEGIES

WORK = LocalWork(epochs=3, lr=0.125, batch_size=7)


@pytest.fixture(params=sorted(STRATEGIES))
def strategy(request: pytest.FixtureRequest) -> Strategy:
    return STRATEGIES[request.param]()


def model() -> Params:
    """Several arrays, one of half precision, one without dimensions, one that is not averaged."""
    return {
        "w": np.array([1.0, -2.0, 0.5], np.float32),
        "h": np.array([[1.0, 2.0]], np.float16),
        "s": np.array(0.5, np.float32),
        "n": np.array([3]),
    }


def filled(value: float) -> Params:
    """The trained ones among these arrays, filled."""
    return {name: np.full(array.shape, value, array.dtype) for name, array in trained(model()).items()}


def evidence(strategy: Strategy, samples: int = 10, steps: int = 2, norm: float = 1.0) -> Evidence:
    return Evidence(samples, steps, strategy.local(WORK), norm, 2.0, 1.0, start_loss=1.5, variance=0.5)


def cohort(strategy: Strategy, mean: Params, norm: float = 1.0) -> Cohort:
    """Two of four clients; the further means are all like `mean`."""
    found = evidence(strategy, norm=norm)
    wanted = len(strategy.scales(found)) if isinstance(strategy, Scaled) else 1
    extra = tuple({name: array.copy() for name, array in mean.items()} for _ in range(wanted - 1))
    return Cohort((found, found), 4, extra)


def step(strategy: Strategy, params: Params, value: float) -> tuple[Params, Params]:
    mean = filled(value)
    state = strategy.start(params)
    return strategy.step(state, params, mean, cohort(strategy, mean, norm=abs(value)))


def test_zero_updates_leave_the_model_where_it_is(strategy: Strategy) -> None:
    _, new = step(strategy, model(), 0.0)
    assert {k: v.tolist() for k, v in new.items()} == {k: v.tolist() for k, v in model().items()}


def test_names_dtypes_and_inputs_stay(strategy: Strategy) -> None:
    params = model()
    _, new = step(strategy, params, 1.0)
    assert [(k, v.dtype, v.shape) for k, v in new.items()] == [
        (k, v.dtype, v.shape) for k, v in params.items()
    ]
    assert params["w"].tolist() == model()["w"].tolist()
    for name in trained(params):
        assert new[name].tolist() != params[name].tolist()
    assert new["n"].tolist() == [3]


def test_the_state_keeps_its_layout_and_holds_numbers_only(strategy: Strategy) -> None:
    """It goes through a checkpoint between any two rounds."""
    before = strategy.start(model())
    after, _ = step(strategy, model(), 1.0)
    assert [(k, v.dtype, v.shape) for k, v in after.items()] == [
        (k, v.dtype, v.shape) for k, v in before.items()
    ]
    assert all(np.issubdtype(array.dtype, np.number) for array in after.values())


def test_a_read_only_state_and_model_will_do(strategy: Strategy) -> None:
    """Both are mapped files."""
    params, mean = model(), filled(1)
    state = strategy.start(params)
    for array in (*params.values(), *state.values()):
        array.flags.writeable = False
    strategy.step(state, params, mean, cohort(strategy, mean))


def test_weights_are_never_negative(strategy: Strategy) -> None:
    assert strategy.weight(evidence(strategy)) > 0
    assert strategy.weight(evidence(strategy, samples=0, steps=0)) == 0


def test_scales_are_finite_and_always_as_many(strategy: Strategy) -> None:
    if isinstance(strategy, Scaled):
        found = [
            strategy.scales(evidence(strategy, steps=steps, norm=norm)) for steps in (0, 1) for norm in (0, 9)
        ]
        assert np.isfinite(found).all()
        assert len({len(scales) for scales in found}) == 1


def test_local_work_keeps_what_the_user_chose(strategy: Strategy) -> None:
    changed = strategy.local(WORK)
    assert (changed.epochs, changed.lr, changed.batch_size) == (3, 0.125, 7)


def test_all_updates_zero_combine_to_zero(strategy: Strategy) -> None:
    if isinstance(strategy, NeedsAll):
        zero, out = filled(0), {name: array.astype(np.float32) for name, array in filled(1).items()}
        alike = cohort(strategy, zero, norm=0.0)
        strategy.combine(Stack((zero, zero)), alike, out)
        assert not any(array.any() for array in out.values())


def test_what_a_client_keeps_has_the_layout_it_began_with(strategy: Strategy) -> None:
    if not isinstance(strategy, ClientSide):
        return
    params = model()
    fresh = strategy.fresh(params)
    shared = strategy.start(params) if shares(strategy) else {}
    guide = strategy.guide(shared, fresh)
    assert set(guide.correction) <= set(params)
    delta = filled(1)
    visit = Visit(
        start=params,
        shared=shared,
        kept=fresh,
        delta=delta,
        steps=2,
        work=strategy.local(WORK),
        train=lambda start, *_: Trained(start, 1, 1, 1, 1.0, 1.0),
        score=lambda _: Scores(0.5, 1.0, 4),
    )
    kept, _ = strategy.keep(visit)
    assert [(k, v.dtype, v.shape) for k, v in kept.items()] == [
        (k, v.dtype, v.shape) for k, v in fresh.items()
    ]
    assert params["w"].tolist() == model()["w"].tolist()
    assert delta["w"].tolist() == [1, 1, 1]
