"""What every model promises: deterministic, honest about its work, and it learns."""

from __future__ import annotations

import hashlib
import pickle
from dataclasses import replace
from itertools import count
from typing import Any

import numpy as np
import pytest

from parslfl.errors import DataError
from parslfl.learning import Guide, LocalWork, Samples, Trained
from parslfl.models.names import MODELS
from parslfl.params import Params
from parslfl.protocols import Model

SHAPE = (3, 8, 8)
CLASSES = 3
WORK = LocalWork(epochs=2, batch_size=8, lr=0.02, device="cpu")


def stripes(n: int = 12) -> Samples:
    """Class k is bright in the rows k, k + 3, ...: learnable by all; noise keeps examples apart."""
    random = np.random.default_rng(5)
    y = np.arange(n, dtype=np.int64) % CLASSES
    x = random.integers(0, 100, (n, *SHAPE), dtype=np.uint8)
    for example, label in zip(x, y, strict=True):
        example[:, label::CLASSES] += 120
    return Samples(x, y, CLASSES)


def never() -> bool:
    return False


@pytest.fixture(params=sorted(MODELS))
def model(request: pytest.FixtureRequest) -> Model:
    return MODELS[request.param]()


@pytest.fixture
def params(model: Model) -> Params:
    """As a worker maps them: read-only."""
    made = model.init(SHAPE, CLASSES, seed=7)
    for array in made.values():
        array.flags.writeable = False
    return made


def digest(params: Params) -> str:
    """Equal bits, equal digest: comparing these keeps 45 MB of model out of a failure's message."""
    state = hashlib.sha256()
    for name, array in params.items():
        state.update(f"{name} {array.shape} {array.dtype}".encode() + array.tobytes())
    return state.hexdigest()


def copied(trained: Trained) -> Params:
    return {name: array.copy() for name, array in trained.params.items()}


def layout(params: Params) -> list[tuple[str, tuple[int, ...], str]]:
    return [(name, array.shape, array.dtype.str) for name, array in params.items()]


def test_equal_seeds_make_equal_models(model: Model, params: Params) -> None:
    assert digest(model.init(SHAPE, CLASSES, seed=7)) == digest(params)


def test_init_gives_contiguous_float32(params: Params) -> None:
    assert all(array.dtype == np.float32 and array.flags.c_contiguous for array in params.values())


def test_training_keeps_names_shapes_dtypes_and_its_inputs(model: Model, params: Params) -> None:
    samples, before = stripes(), digest(params)
    samples.x.flags.writeable = samples.y.flags.writeable = False
    pixels = samples.x.copy()
    trained = model.train(params, samples, WORK, 1, never)
    assert layout(trained.params) == layout(params)
    assert all(array.flags.c_contiguous for array in trained.params.values())
    assert digest(params) == before != digest(trained.params)
    assert np.array_equal(samples.x, pixels)


def test_the_loss_falls_and_the_model_predicts(model: Model, params: Params) -> None:
    samples = stripes(30)
    trained = model.train(params, samples, replace(WORK, epochs=4), 1, never)
    assert trained.loss < trained.first_loss
    before, after = model.evaluate(params, samples, WORK), model.evaluate(trained.params, samples, WORK)
    assert after.loss < before.loss
    assert after.accuracy > 0.9
    assert after.samples == len(samples)


def test_scores_are_those_of_each_example_averaged(model: Model, params: Params) -> None:
    samples = stripes(6)
    each = [
        model.evaluate(params, replace(samples, x=samples.x[i : i + 1], y=samples.y[i : i + 1]), WORK)
        for i in range(6)
    ]
    scores = model.evaluate(params, samples, WORK)
    assert scores.accuracy == pytest.approx(np.mean([one.accuracy for one in each]))
    assert scores.loss == pytest.approx(np.mean([one.loss for one in each]), rel=1e-5)


def test_no_examples_cannot_be_scored(model: Model, params: Params) -> None:
    none = replace(stripes(), x=np.empty((0, *SHAPE), np.uint8), y=np.empty(0, np.int64))
    with pytest.raises(DataError, match="no example"):
        model.evaluate(params, none, WORK)


def test_no_epochs_change_nothing(model: Model, params: Params) -> None:
    trained = model.train(params, stripes(), replace(WORK, epochs=0), 1, never)
    assert digest(trained.params) == digest(params)
    assert (trained.steps, trained.planned_steps, trained.samples) == (0, 0, 0)
    assert np.isnan([trained.first_loss, trained.loss]).all()


def test_the_last_small_batch_counts(model: Model, params: Params) -> None:
    trained = model.train(params, stripes(9), WORK, 1, never)  # 8 + 1, twice
    assert (trained.steps, trained.planned_steps, trained.samples) == (4, 4, 9)


@pytest.mark.parametrize(("steps", "seen"), [(0, 0), (1, 8), (3, 12)])
def test_stop_is_heard_between_batches(model: Model, params: Params, steps: int, seen: int) -> None:
    asked = count()
    trained = model.train(params, stripes(12), WORK, 1, lambda: next(asked) >= steps)
    assert (trained.steps, trained.planned_steps, trained.samples) == (steps, 4, seen)
    assert (digest(trained.params) == digest(params)) == (steps == 0)


def test_equal_inputs_give_equal_bits_whatever_ran_between(model: Model, params: Params) -> None:
    work = replace(WORK, momentum=0.9, weight_decay=0.01, proximal=0.1)
    first = digest(model.train(params, stripes(), work, 3, never).params)
    other = model.init(SHAPE, CLASSES, seed=8)
    model.train(other, stripes(11), replace(WORK, lr=0.1, momentum=0.5), 4, never)
    model.evaluate(other, stripes(), WORK)
    assert digest(model.train(params, stripes(), work, 3, never).params) == first
    assert digest(model.train(params, stripes(), work, 4, never).params) != first


def test_evaluation_leaves_trained_arrays_alone(model: Model, params: Params) -> None:
    trained = model.train(params, stripes(), WORK, 1, never)
    before = digest(trained.params)
    model.evaluate(params, stripes(), WORK)
    assert digest(trained.params) == before


def test_training_goes_on_from_its_own_result(model: Model, params: Params) -> None:
    """Its result may be memory that the next training reuses; FedProx must still see the start."""
    work = replace(WORK, proximal=0.5)
    trained = model.train(params, stripes(), work, 1, never)
    expected = digest(model.train(copied(trained), stripes(), work, 2, never).params)
    again = model.train(params, stripes(), work, 1, never)
    assert digest(model.train(again.params, stripes(), work, 2, never).params) == expected


def test_fedprox_without_mu_is_fedavg_and_with_mu_stays_nearer(model: Model, params: Params) -> None:
    def moved(proximal: float) -> float:
        made = model.train(params, stripes(), replace(WORK, proximal=proximal), 1, never).params
        return float(sum(np.square(made[name] - params[name]).sum() for name in params))

    plain = digest(model.train(params, stripes(), WORK, 1, never).params)
    assert digest(model.train(params, stripes(), replace(WORK, proximal=0.0), 1, never).params) == plain
    assert moved(0.0) > moved(5.0) > 0


def test_the_first_step_of_fedprox_is_that_of_fedavg(model: Model, params: Params) -> None:
    """At w = w_global the proximal term has no gradient, to the last bit."""
    work = replace(WORK, epochs=1, batch_size=12)
    plain = digest(model.train(params, stripes(), work, 1, never).params)
    assert digest(model.train(params, stripes(), replace(work, proximal=3.0), 1, never).params) == plain


#: One step on all examples.
ONE = replace(WORK, epochs=1, batch_size=12)


def like(params: Params, value: float) -> Params:
    return {name: np.full_like(array, value) for name, array in params.items()}


def test_a_guide_that_says_nothing_changes_no_bit(model: Model, params: Params) -> None:
    plain = digest(model.train(params, stripes(), WORK, 1, never).params)
    for guide in (Guide(), Guide(correction=like(params, 0.0))):
        assert digest(guided(model, params, WORK, guide)) == plain
    prox = replace(WORK, proximal=0.5)
    assert digest(guided(model, params, prox, Guide(anchor=params))) == digest(
        model.train(params, stripes(), prox, 1, never).params
    )


def test_a_correction_is_added_to_the_gradient(model: Model, params: Params) -> None:
    """One step with correction 1 ends lr lower than without, wherever something is learnt."""
    plain = copied(model.train(params, stripes(), ONE, 1, never))
    corrected = guided(model, params, ONE, Guide(correction=like(params, 1.0)))
    moved = [name for name in plain if not np.array_equal(plain[name], corrected[name])]
    assert moved
    for name in moved:
        np.testing.assert_allclose(corrected[name], plain[name] - ONE.lr, rtol=1e-4, atol=1e-6)


def test_the_proximal_term_pulls_to_the_anchor(model: Model, params: Params) -> None:
    """One step from w with anchor w - 1 ends lr * mu * 1 lower."""
    plain = copied(model.train(params, stripes(), ONE, 1, never))
    anchor = {name: array - np.float32(1) for name, array in params.items()}
    pulled = guided(model, params, replace(ONE, proximal=0.5), Guide(anchor=anchor))
    moved = [name for name in plain if not np.array_equal(plain[name], pulled[name])]
    assert moved
    for name in moved:
        np.testing.assert_allclose(pulled[name], plain[name] - ONE.lr * 0.5, rtol=1e-4, atol=1e-6)


def test_the_gradients_variance_is_measured_when_asked_and_changes_no_bit(
    model: Model, params: Params
) -> None:
    plain = model.train(params, stripes(), WORK, 1, never)
    assert plain.variance is None
    bits = digest(plain.params)
    measured = model.train(params, stripes(), replace(WORK, variance=True), 1, never)
    assert digest(measured.params) == bits
    assert measured.variance is not None
    assert measured.variance > 0
    alone = model.train(params, stripes(), replace(ONE, variance=True), 1, never)
    assert alone.variance == pytest.approx(0, abs=1e-4)  # one gradient is its own mean


def guided(model: Model, params: Params, work: LocalWork, guide: Guide) -> Params:
    steered: Any = model
    return copied(steered.train(params, stripes(), work, 1, never, guide))


def test_a_diverged_loss_is_an_error_with_a_cure(model: Model, params: Params) -> None:
    with pytest.raises(FloatingPointError, match=r"loss became \S+ at step \d+: lower --lr"):
        model.train(params, stripes(), replace(WORK, epochs=50, lr=1e38), 1, never)


def test_the_object_itself_is_small(model: Model, params: Params) -> None:
    model.train(params, stripes(8), WORK, 1, never)
    assert len(pickle.dumps(model)) < 200
    assert pickle.loads(pickle.dumps(model)) == model
    assert hash(model) == hash(MODELS[_name(model)]())


def _name(model: Model) -> str:
    return next(name for name, kind in MODELS.items() if type(model) is kind)
