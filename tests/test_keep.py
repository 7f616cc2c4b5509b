"""What clients keep at their site: which round's state counts, and what becomes of the others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from parslfl.errors import RunError
from parslfl.keep import ClientStore
from parslfl.messages import Client
from parslfl.params import Params

ANN = Client(3, "here")
LIKE: Params = {"w": np.ones(3, np.float32), "b": np.ones((), np.float64)}


def state(value: float) -> Params:
    return {name: np.full_like(array, value) for name, array in LIKE.items()}


def held(store: ClientStore, accepted: int, name: str = "residual") -> float | None:
    found = store.load(ANN, name, accepted)
    return None if found is None else float(found["w"][0])


@pytest.fixture
def store(tmp_path: Path) -> ClientStore:
    return ClientStore(str(tmp_path / "clients"))


def test_only_the_state_of_the_accepted_round_counts(store: ClientStore) -> None:
    store.save(ANN, "residual", 0, -1, state(1))
    store.save(ANN, "residual", 1, 0, state(2))  # round 1 was refused: the next one starts from round 0
    assert held(store, 0) == 1
    store.save(ANN, "residual", 4, 0, state(3))
    assert [held(store, round) for round in (-1, 0, 1, 4)] == [None, 1, None, 3]


def test_a_round_done_again_after_a_kill_reads_what_it_read_before(store: ClientStore) -> None:
    store.save(ANN, "residual", 0, -1, state(1))
    for _ in range(2):
        assert held(store, 0) == 1
        store.save(ANN, "residual", 1, 0, state(2))
    assert held(store, 1) == 2


def test_a_straggler_does_not_remove_what_a_later_round_saved(store: ClientStore) -> None:
    store.save(ANN, "residual", 0, -1, state(1))
    store.save(ANN, "residual", 2, 0, state(3))
    store.save(ANN, "residual", 1, 0, state(2))
    assert held(store, 2) == 3
    store.save(ANN, "residual", 3, 2, state(4))
    assert [held(store, round) for round in range(4)] == [None, None, 3, 4]


def test_clients_and_names_do_not_mix(store: ClientStore) -> None:
    store.save(ANN, "residual", 0, -1, state(1))
    store.save(ANN, "residual-2", 5, -1, state(2))
    store.save(Client(4, "here"), "residual", 5, -1, state(3))
    assert (held(store, 0), held(store, 5, "residual-2")) == (1, 2)
    store.save(ANN, "residual", 1, -1, state(4))
    assert held(store, 5, "residual-2") == 2


def test_a_client_never_accepted_starts_from_zeros_and_says_nothing(store: ClientStore) -> None:
    store.save(ANN, "residual", 0, -1, state(1))
    found, notes = store.recall(ANN, "residual", -1, LIKE)
    assert notes == ()
    assert {name: (a.tolist(), a.dtype.str) for name, a in found.items()} == {
        "w": ([0, 0, 0], "<f4"),
        "b": (0, "<f8"),
    }


def test_state_that_is_gone_damaged_or_of_another_model_is_zeros_and_is_told(store: ClientStore) -> None:
    store.save(ANN, "residual", 6, -1, state(1))
    assert store.recall(ANN, "residual", 6, LIKE)[1] == ()
    found, (note,) = store.recall(ANN, "residual", 5, LIKE)
    assert float(found["w"].sum()) == 0
    assert note == f"residual of round 6 is gone or damaged in {store.folder}: from zeros"
    found, (note,) = store.recall(ANN, "residual", 6, {"w": np.ones(4, np.float32)})
    assert found["w"].tolist() == [0, 0, 0, 0]
    assert note.startswith("residual of round 7 does not fit: ")
    (path,) = Path(store.folder).rglob("*.plm")
    data = bytearray(path.read_bytes())
    data[-70] ^= 1
    path.write_bytes(data)
    found, (note,) = store.recall(ANN, "residual", 6, LIKE)
    assert float(found["w"].sum()) == 0
    assert "from zeros" in note


def test_a_folder_that_cannot_be_written_is_named_with_the_cure(tmp_path: Path) -> None:
    (tmp_path / "clients").write_text("in the way")
    with pytest.raises(RunError, match=r"cannot keep what clients of here .*clients: .*`state`"):
        ClientStore(str(tmp_path / "clients")).save(ANN, "residual", 0, -1, state(1))


def test_nothing_but_the_states_is_left(store: ClientStore) -> None:
    for round in range(5):
        store.save(ANN, "residual", round, round - 1, state(round))
    names = [path.name for path in Path(store.folder).rglob("*") if path.is_file()]
    assert sorted(names) == ["round-0003.plm", "round-0004.plm"]
