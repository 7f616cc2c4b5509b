"""What every data set promises. A new entry in DATASETS is tested without a line here."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from parslfl.data.names import DATASETS
from parslfl.errors import DataError
from parslfl.protocols import Dataset
from parslfl.specs import parse, render

FOLDER = Path(os.environ.get("PARSLFL_DATA") or Path(__file__).parents[3] / "shared" / "data")


@pytest.fixture(params=sorted(DATASETS))
def named(request: pytest.FixtureRequest) -> Dataset:
    return parse(request.param, DATASETS, "dataset")


@pytest.fixture
def dataset(named: Dataset) -> Dataset:
    if not named.available(FOLDER):
        pytest.skip(f"no files of {named} in {FOLDER}")
    return named


def test_the_spec_and_the_pickle_come_back_equal(named: Dataset) -> None:
    assert parse(render(named, DATASETS), DATASETS, "dataset") == named
    assert pickle.loads(pickle.dumps(named)) == named


def test_labels_are_int64_in_range(dataset: Dataset) -> None:
    labels = dataset.labels(FOLDER)
    assert labels.dtype == np.int64
    assert labels.ndim == 1
    assert np.unique(labels).tolist() == list(range(dataset.classes))


def test_training_examples_are_those_asked_for(dataset: Dataset) -> None:
    labels = dataset.labels(FOLDER)
    rows = np.array([0, 3, len(labels) // 2, len(labels) - 1])
    samples = dataset.train(FOLDER, rows)
    assert samples.x.shape == (4, *dataset.shape)
    assert samples.x.dtype == np.uint8
    assert samples.y.dtype == np.int64
    assert np.array_equal(samples.y, labels[rows])
    for at, row in enumerate(rows):
        assert np.array_equal(dataset.train(FOLDER, np.array([row])).x[0], samples.x[at])


def test_test_examples_are_whole(dataset: Dataset) -> None:
    test = dataset.test(FOLDER)
    assert test.x.shape == (len(test), *dataset.shape)
    assert test.x.dtype == np.uint8
    assert test.y.dtype == np.int64
    assert np.unique(test.y).tolist() == list(range(dataset.classes))


def test_samples_carry_classes_and_one_mean_a_channel(dataset: Dataset) -> None:
    for samples in (dataset.test(FOLDER), dataset.train(FOLDER, np.array([0]))):
        assert samples.classes == dataset.classes
        assert len(samples.mean) == len(samples.std) == dataset.shape[0]


def test_what_is_shared_cannot_be_changed(dataset: Dataset) -> None:
    test = dataset.test(FOLDER)
    assert not test.x.flags.writeable
    assert not test.y.flags.writeable


def test_changing_a_copy_changes_nothing_else(dataset: Dataset) -> None:
    first = dataset.train(FOLDER, np.arange(4))
    first.x[:] = 1
    first.y[:] = 0
    again = dataset.train(FOLDER, np.arange(4))
    assert again.x.max() > 1
    assert np.array_equal(again.y, dataset.labels(FOLDER)[:4])


def test_no_examples_is_an_answer(dataset: Dataset) -> None:
    samples = dataset.train(FOLDER, np.arange(0))
    assert len(samples) == 0
    assert samples.x.shape == (0, *dataset.shape)


def test_rows_that_do_not_exist_are_refused(dataset: Dataset) -> None:
    with pytest.raises(IndexError):
        dataset.train(FOLDER, np.array([len(dataset.labels(FOLDER))]))


def test_fetching_what_is_there_does_nothing(dataset: Dataset) -> None:
    dataset.fetch(FOLDER)


def test_an_empty_folder_is_a_data_error_or_not_needed(named: Dataset, tmp_path: Path) -> None:
    if named.available(tmp_path):
        assert len(named.labels(tmp_path)) > 0
        return
    for read in (named.labels, named.test, lambda folder: named.train(folder, np.arange(2))):
        with pytest.raises(DataError) as error:
            read(tmp_path)
        assert str(tmp_path) in str(error.value)
    assert list(tmp_path.iterdir()) == []
