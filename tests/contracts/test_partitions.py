"""What every partition promises. A new entry in PARTITIONS is tested without a line here."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parslfl.data.names import PARTITIONS
from parslfl.errors import DataError
from parslfl.protocols import Labels, Partition
from parslfl.specs import parse, render

TEN = np.arange(2000) % 10

every_partition = pytest.mark.parametrize(
    "partition", [parse(name, PARTITIONS, "partition") for name in sorted(PARTITIONS)], ids=sorted(PARTITIONS)
)


@st.composite
def cases(draw: st.DrawFn) -> tuple[Labels, int, int]:
    """Labels with at least as many examples of each class as clients, so that all can split them."""
    clients, classes, seed = draw(st.integers(1, 25)), draw(st.integers(2, 8)), draw(st.integers(0, 2**40))
    sizes = draw(st.lists(st.integers(clients, clients + 30), min_size=classes, max_size=classes))
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(classes), sizes))
    return labels, clients, seed


@every_partition
@given(case=cases())
def test_parts_are_disjoint_sorted_and_not_empty(partition: Partition, case: tuple[Labels, int, int]) -> None:
    labels, clients, seed = case
    parts = partition.split(labels, clients, seed)
    assert len(parts) == clients
    for part in parts:
        assert part.dtype == np.int64
        assert len(part) > 0
        assert (np.diff(part) > 0).all()
    together = np.concatenate(parts)
    assert len(np.unique(together)) == len(together)
    assert 0 <= together.min() <= together.max() < len(labels)


@every_partition
@given(case=cases())
def test_many_clients_leave_nothing_out(partition: Partition, case: tuple[Labels, int, int]) -> None:
    labels, clients, seed = case
    if clients >= labels.max() + 1:  # `classes` may leave out classes that nobody holds
        assert sum(map(len, partition.split(labels, clients, seed))) == len(labels)


@every_partition
def test_equal_arguments_give_equal_parts(partition: Partition) -> None:
    kept = TEN.copy()
    first, second = partition.split(TEN, 20, seed=7), partition.split(TEN, 20, seed=7)
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert np.array_equal(TEN, kept)


@every_partition
def test_another_seed_gives_other_parts(partition: Partition) -> None:
    first, second = partition.split(TEN, 20, seed=7), partition.split(TEN, 20, seed=8)
    assert not all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


@every_partition
@pytest.mark.parametrize("clients", [1, 1000])
def test_one_client_and_very_many(partition: Partition, clients: int) -> None:
    parts = partition.split(TEN, clients, seed=0)
    assert len(parts) == clients
    assert min(map(len, parts)) >= 1


@every_partition
def test_more_clients_than_examples_is_a_data_error(partition: Partition) -> None:
    with pytest.raises(DataError, match="10 examples among 11 clients: use at most 10 clients"):
        partition.split(TEN[:10], 11, seed=0)


@every_partition
@pytest.mark.parametrize("clients", [0, -1])
def test_without_clients_there_is_no_split(partition: Partition, clients: int) -> None:
    with pytest.raises(DataError, match="at least 1"):
        partition.split(TEN, clients, seed=0)


@every_partition
def test_the_spec_and_the_pickle_come_back_equal(partition: Partition) -> None:
    assert parse(render(partition, PARTITIONS), PARTITIONS, "partition") == partition
    assert pickle.loads(pickle.dumps(partition)) == partition
