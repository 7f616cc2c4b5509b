"""Each partition's own promise; what all of them promise is in tests/contracts/test_partitions.py."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parslfl.data.names import PARTITIONS
from parslfl.data.partition import Classes, Dirichlet, Iid, Quantity, holdings
from parslfl.errors import ConfigError, DataError
from parslfl.specs import parse

TEN = np.arange(5000) % 10


def test_iid_sizes_differ_by_one() -> None:
    assert [len(part) for part in Iid().split(TEN[:11], 3, seed=0)] == [4, 4, 3]


def test_iid_clients_hold_every_class() -> None:
    assert holdings(TEN, Iid().split(TEN, 5, seed=0), 10).min() > 50


def test_classes_for_sixty_clients_as_in_the_paper() -> None:
    held = holdings(TEN, Classes(k=2).split(TEN, 60, seed=0), 10)
    assert (held > 0).sum(axis=1).tolist() == [2] * 60
    assert (held > 0).sum(axis=0).tolist() == [12] * 10
    assert set(held[held > 0].tolist()) == {41, 42}  # 500 examples among 12 holders
    assert held.sum() == 5000


def test_classes_are_paired_in_many_ways() -> None:
    held = holdings(TEN, Classes(k=2).split(TEN, 60, seed=0), 10) > 0
    assert len({tuple(np.flatnonzero(row)) for row in held}) > 20  # of 45 possible pairs


@given(classes=st.integers(1, 12), clients=st.integers(1, 30), seed=st.integers(0, 2**31), data=st.data())
def test_each_client_holds_k(classes: int, clients: int, seed: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, classes))
    sizes = data.draw(st.lists(st.integers(clients, clients + 20), min_size=classes, max_size=classes))
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(classes), sizes))
    held = holdings(labels, Classes(k).split(labels, clients, seed), classes)
    assert ((held > 0).sum(axis=1) == k).all()
    holders = (held > 0).sum(axis=0)
    assert holders.max() - holders.min() <= 1
    for label in range(classes):
        shares = held[held[:, label] > 0, label]
        assert shares.sum() == (sizes[label] if len(shares) else 0)
        assert not len(shares) or shares.max() - shares.min() <= 1


def test_few_clients_leave_classes_out() -> None:
    held = holdings(TEN, Classes(k=2).split(TEN, 3, seed=0), 10)
    assert (held.sum(axis=0) > 0).sum() == 6
    assert held.sum() == 6 * 500


def test_classes_names_the_class_that_is_too_small() -> None:
    labels = np.array([0] * 50 + [1] * 3)
    with pytest.raises(DataError, match="class 1 has 3 examples for the 4 clients that hold it"):
        Classes(k=2).split(labels, 4, seed=0)


def test_classes_wants_no_more_than_there_are() -> None:
    with pytest.raises(DataError, match="classes:k=11, but the data has only 10 classes"):
        Classes(k=11).split(TEN, 4, seed=0)


def test_dirichlet_alpha_goes_from_uneven_to_even() -> None:
    uneven = holdings(TEN, Dirichlet(0.1).split(TEN, 10, seed=0), 10)
    even = holdings(TEN, Dirichlet(1000.0).split(TEN, 10, seed=0), 10)
    assert (uneven < 5).mean() > 0.4
    assert even.min() > 35
    assert even.max() < 65


def test_dirichlet_proportions_have_the_right_spread() -> None:
    # One of n shares has the variance (n - 1) / (n^2 (n a + 1)): 0.045 for n = 10, a = 0.1.
    labels = np.zeros(1000, np.int64)
    sizes = [[len(part) for part in Dirichlet(0.1).split(labels, 10, seed)] for seed in range(200)]
    assert abs(np.var(np.array(sizes) / 1000) - 0.045) < 0.006


def test_dirichlet_fills_empty_clients_from_the_largest() -> None:
    labels = np.zeros(40, np.int64)
    sizes = [len(part) for part in Dirichlet(0.001).split(labels, 20, seed=3)]
    assert sorted(sizes) == [1] * 19 + [21]


def test_quantity_sizes_differ_but_labels_do_not() -> None:
    held = holdings(TEN, Quantity(0.5).split(TEN, 5, seed=0), 10)
    sizes = held.sum(axis=1)
    assert sizes.max() > 4 * sizes.min()
    largest = held[sizes.argmax()]
    assert largest.min() > 0.7 * largest.mean()


@pytest.mark.parametrize("spec", ["classes:k=0", "dirichlet:alpha=0", "quantity:alpha=-1"])
def test_impossible_fields_are_refused(spec: str) -> None:
    with pytest.raises(ConfigError, match="must be"):
        parse(spec, PARTITIONS, "partition")


def test_holdings_counts_by_hand() -> None:
    labels = np.array([0, 2, 2, 1, 0])
    held = holdings(labels, [np.array([0, 1, 2]), np.array([4])], classes=4)
    assert held.tolist() == [[1, 0, 2, 0], [1, 0, 0, 0]]
    assert held.dtype == np.int64
