"""The small network's size, and the images it takes."""

from __future__ import annotations

import pytest
import torch

from parslfl.models.cnn import Cnn
from parslfl.params import size


def test_the_main_job_s_size() -> None:
    assert size(Cnn().init((3, 32, 32), 10, seed=0)) == 172_810


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (1, 8, 8), (4, 9, 31), (3, 64, 64)])
def test_any_image_from_8_by_8(shape: tuple[int, ...]) -> None:
    with torch.inference_mode():
        assert Cnn().build(shape, 7)(torch.zeros(2, *shape)).shape == (2, 7)


@pytest.mark.parametrize("shape", [(3, 7, 32), (80,)])
def test_other_examples_are_refused_with_their_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="at least 8 x 8"):
        Cnn().build(shape, 10)


@pytest.mark.parametrize("fields", [{"width": 12}, {"width": 0}, {"groups": 0}, {"hidden": -1}])
def test_impossible_sizes_are_refused(fields: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="groups must divide width"):
        Cnn(**fields)
