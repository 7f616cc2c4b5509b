from pathlib import Path

import numpy as np
import pytest

from parslfl.data.names import DATASETS
from parslfl.data.synthetic import Synthetic
from parslfl.errors import ConfigError
from parslfl.specs import parse

NOWHERE = Path("/nowhere")


def test_classes_are_balanced_within_one() -> None:
    assert np.bincount(Synthetic(samples=23, classes=5).labels(NOWHERE)).tolist() == [5, 5, 5, 4, 4]
    assert len(Synthetic(samples=23, classes=5).test(NOWHERE)) == 5


def test_shape_follows_the_fields() -> None:
    test = Synthetic(samples=50, channels=3, side=32).test(NOWHERE)
    assert test.x.shape == (10, 3, 32, 32)
    assert len(test.mean) == len(test.std) == 3


def test_without_noise_a_class_is_one_picture() -> None:
    data = Synthetic(samples=100, noise=0)
    training, test = data.train(NOWHERE, np.arange(100)), data.test(NOWHERE)
    assert len(np.unique(training.x.reshape(100, -1), axis=0)) == 10
    for label in range(10):
        assert (training.x[training.y == label] == test.x[test.y == label][0]).all()


def test_the_nearest_class_mean_is_nearly_always_right() -> None:
    data = Synthetic()
    training, test = data.train(NOWHERE, np.arange(1000)), data.test(NOWHERE)
    means = np.stack([training.x[training.y == label].mean(axis=0) for label in range(10)])
    distances = ((test.x[:, None].astype(float) - means) ** 2).sum(axis=(2, 3, 4))
    assert (distances.argmin(axis=1) == test.y).mean() > 0.95


def test_the_seed_changes_the_data() -> None:
    assert not np.array_equal(Synthetic().test(NOWHERE).x, Synthetic(seed=1).test(NOWHERE).x)


def test_training_and_test_examples_differ() -> None:
    data = Synthetic(samples=500)
    training = data.train(NOWHERE, np.arange(500)).x.reshape(500, -1)
    test = data.test(NOWHERE).x.reshape(100, -1)
    assert len(np.unique(np.concatenate([training, test]), axis=0)) == 600


@pytest.mark.parametrize("wrong", ["samples=0", "classes=0", "channels=0", "side=-1", "noise=-1"])
def test_impossible_fields_are_refused(wrong: str) -> None:
    with pytest.raises(ConfigError, match="must be"):
        parse(f"synthetic:{wrong}", DATASETS, "dataset")
