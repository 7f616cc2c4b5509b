"""Members of a team train as one process does: here they are threads."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pytest
import torch
from linear import Linear

from parslfl.learning import LocalWork, Samples, Stop
from parslfl.models import _torch
from parslfl.models._team import pool


@dataclass
class Meeting:
    """Where `size` threads add their values up."""

    size: int
    values: dict[int, npt.NDArray[np.float32]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.barrier = threading.Barrier(self.size)


@dataclass(frozen=True)
class Member:
    rank: int
    meeting: Meeting

    @property
    def size(self) -> int:
        return self.meeting.size

    def add_up(self, values: npt.NDArray[np.float32]) -> None:
        self.meeting.values[self.rank] = values.copy()
        self.meeting.barrier.wait(20)
        values[:] = sum(self.meeting.values[rank] for rank in range(self.size))
        self.meeting.barrier.wait(20)

    def agree(self, stop: Stop) -> bool:
        return stop()


def samples(count: int) -> Samples:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 255, (count, 1, 4, 4)).astype(np.uint8)
    return Samples(x, rng.integers(0, 3, count), 3)


def test_the_gradient_is_the_mean_over_the_whole_batch() -> None:
    """Two examples here with mean gradient 3 and loss 1, one there with 9 and 4: (2 * 3 + 9) / 3 = 5."""
    meeting = Meeting(2)

    def share(rank: int, gradient: float | None, loss: float, part: float) -> tuple[object, float]:
        weight = torch.nn.Parameter(torch.zeros(2))
        weight.grad = None if gradient is None else torch.full((2,), gradient)
        whole = pool([weight], torch.tensor(loss), part, Member(rank, meeting))
        return weight.grad if weight.grad is None else weight.grad.tolist(), whole.item()

    with ThreadPoolExecutor(2) as threads:
        both = threads.map(share, (0, 1), (3.0, 9.0), (1.0, 4.0), (2 / 3, 1 / 3))
        assert list(both) == [([5.0, 5.0], 2.0)] * 2
        alone = threads.map(share, (0, 1), (3.0, None), (1.0, 0.0), (1.0, 0.0))
        assert list(alone) == [([3.0, 3.0], 1.0)] * 2
        nowhere = threads.map(share, (0, 1), (None, None), (1.0, 3.0), (0.5, 0.5))
        assert list(nowhere) == [(None, 2.0)] * 2  # as in one process: nothing moves it, no decay either


@pytest.mark.parametrize("size", [2, 3])
def test_a_team_trains_as_one_process_does(size: int) -> None:
    """Batches of 8, the last of 1: then some members have no row at all."""
    work = LocalWork(epochs=2, batch_size=8, lr=0.1, momentum=0.9, weight_decay=0.01, proximal=0.1)
    data, model, meeting = samples(17), Linear(), Meeting(size)
    start = model.init((1, 4, 4), 3, 0)

    def train(member: Member | None) -> tuple[dict[str, npt.NDArray[np.float32]], int, float]:
        made = _torch.train(model, start, data, work, 5, lambda: False, None, member)
        return {name: array.copy() for name, array in made.params.items()}, made.steps, made.loss

    alone, steps, loss = train(None)
    with ThreadPoolExecutor(size) as threads:
        together = list(threads.map(train, (Member(rank, meeting) for rank in range(size))))
    for params, made, said in together:
        assert made == steps == 6
        assert said == pytest.approx(loss, rel=1e-5)
        for name, array in params.items():
            np.testing.assert_allclose(array, alone[name], rtol=1e-5, atol=1e-6)
            assert not np.array_equal(array, start[name])
