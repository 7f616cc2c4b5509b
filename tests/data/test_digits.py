import sys
from pathlib import Path

import numpy as np
import pytest

from parslfl.data import digits
from parslfl.data.digits import MEAN, STD, Digits
from parslfl.errors import DataError

NOWHERE = Path("/nowhere")


def test_every_class_is_split_four_to_one() -> None:
    training, test = np.bincount(Digits().labels(NOWHERE)), np.bincount(Digits().test(NOWHERE).y)
    assert (training + test).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert test.tolist() == [36, 36, 35, 37, 36, 36, 36, 36, 35, 36]


def test_it_holds_every_image_once_with_its_label() -> None:
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    training, test = Digits().train(NOWHERE, np.arange(1438)), Digits().test(NOWHERE)
    x, y = np.concatenate([training.x, test.x]), np.concatenate([training.y, test.y])
    # 0..16 became 0..255 and comes back; sorting the rows makes both sides comparable
    mine = np.column_stack([np.rint(x.reshape(-1, 64) * (16 / 255)), y])
    theirs = np.column_stack([pixels, labels])
    assert np.array_equal(mine[np.lexsort(mine.T)], theirs[np.lexsort(theirs.T)])
    assert (x.min(), x.max()) == (0, 255)
    assert abs((x / 255).mean() - MEAN[0]) < 1e-4
    assert abs((x / 255).std() - STD[0]) < 1e-3


def test_without_scikit_learn_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    digits._parts.cache_clear()
    assert not Digits().available(NOWHERE)
    for read in (Digits().fetch, Digits().labels, Digits().test):
        with pytest.raises(DataError, match="pip install scikit-learn"):
            read(NOWHERE)
