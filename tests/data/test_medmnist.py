"""MedMNIST on its real files where they are, and on small made ones in their layout."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from parslfl.data.medmnist import SETS, MedMnist
from parslfl.data.names import DATASETS
from parslfl.errors import ConfigError, DataError
from parslfl.params import Array
from parslfl.specs import parse

FOLDER = Path(os.environ.get("PARSLFL_DATA") or Path(__file__).parents[3] / "shared" / "data")

needs_files = pytest.mark.skipif(not MedMnist().available(FOLDER), reason=f"no pneumoniamnist in {FOLDER}")


def write(folder: Path, name: str = "retinamnist", **changed: Array) -> Path:
    """A whole file of that set: pixel value = its row, modulo 251; label = its row, modulo classes."""
    classes, channels, training, test = SETS[name]
    content: dict[str, Array] = {}
    for part, count in (("train", training), ("test", test)):
        shape = (count, 28, 28) if channels == 1 else (count, 28, 28, channels)
        images = np.zeros(shape, np.uint8)
        images += (np.arange(count) % 251).astype(np.uint8).reshape(-1, *[1] * (len(shape) - 1))
        content[f"{part}_images"] = images
        content[f"{part}_labels"] = (np.arange(count) % classes).astype(np.uint8).reshape(-1, 1)
    folder.mkdir(exist_ok=True)
    np.savez(folder / f"{name}.npz", allow_pickle=True, **{**content, **changed})
    return folder / f"{name}.npz"


def test_the_table_agrees_with_the_package() -> None:
    info = pytest.importorskip("medmnist").INFO
    of_one_label = {
        name: (len(one["label"]), one["n_channels"], one["n_samples"]["train"], one["n_samples"]["test"])
        for name, one in info.items()
        if not name.endswith("3d") and not one["task"].startswith("multi-label")
    }
    assert of_one_label == SETS


@needs_files
def test_pneumonia_has_its_published_counts() -> None:
    assert np.bincount(MedMnist().labels(FOLDER)).tolist() == [1214, 3494]
    assert np.bincount(MedMnist().test(FOLDER).y).tolist() == [234, 390]


@needs_files
def test_a_fresh_process_reads_it_without_torch() -> None:
    code = (
        "import sys; from pathlib import Path; from parslfl.data.medmnist import MedMnist\n"
        f"MedMnist().test(Path({str(FOLDER)!r}))\n"
        "assert not {'torch', 'torchvision', 'medmnist'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("below", ["", "medmnist"])
def test_both_places_are_found(tmp_path: Path, below: str) -> None:
    write(tmp_path / below)
    assert MedMnist("retinamnist").available(tmp_path)
    assert len(MedMnist("retinamnist").labels(tmp_path)) == 1080


def test_color_channels_come_first(tmp_path: Path) -> None:
    images = np.zeros((400, 28, 28, 3), np.uint8)
    images[:, 5, 7, 2] = 9
    write(tmp_path, test_images=images)
    test = MedMnist("retinamnist").test(tmp_path)
    assert test.x.shape == (400, 3, 28, 28)
    assert (test.x[:, 2, 5, 7] == 9).all()
    assert test.x.sum() == 400 * 9
    assert len(test.mean) == len(test.std) == 3


def test_training_rows_are_those_asked_for(tmp_path: Path) -> None:
    write(tmp_path, "breastmnist")
    read = MedMnist("breastmnist").train(tmp_path, np.array([0, 250, 251, 545]))
    assert read.x[:, 0, 0, 0].tolist() == [0, 250, 0, 43]
    assert read.y.tolist() == [0, 0, 1, 1]


def test_a_wrong_name_is_refused_before_anything_runs() -> None:
    with pytest.raises(ConfigError, match="did you mean 'pneumoniamnist'"):
        parse("medmnist:name=pneumonia-mnist", DATASETS, "dataset")
    with pytest.raises(ValueError, match="unknown set 'chestmnist'"):
        MedMnist("chestmnist")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"train_images": np.zeros((7, 28, 28, 3), np.uint8)}, "train_images has the shape .7, 28, 28, 3."),
        ({"train_images": np.zeros((1080, 28, 28, 3))}, "train_images holds float64, not uint8"),
        ({"train_labels": np.full((1080, 1), 5)}, "train_labels are 5 to 5, not 0 to 4"),
        ({"train_labels": np.array([object()])}, "is damaged"),
    ],
)
def test_wrong_content_is_named(tmp_path: Path, changed: dict[str, Array], said: str) -> None:
    file = write(tmp_path, "retinamnist", **changed)
    with pytest.raises(DataError, match=said) as error:
        MedMnist("retinamnist").train(tmp_path, np.arange(3))
    assert str(error.value).startswith(f"{file} is damaged: ")


def test_a_single_array_is_damaged(tmp_path: Path) -> None:
    with (tmp_path / "retinamnist.npz").open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(DataError, match="is damaged"):
        MedMnist("retinamnist").labels(tmp_path)


@pytest.mark.parametrize("keep", [0, 100, 20_000])
def test_a_truncated_file_is_damaged(tmp_path: Path, keep: int) -> None:
    file = write(tmp_path)
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(DataError, match="is damaged"):
        MedMnist("retinamnist").labels(tmp_path)


def test_a_worker_without_data_does_not_download(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    with pytest.raises(DataError, match=f"found no octmnist.npz in {folder} or {folder / 'medmnist'}: copy"):
        MedMnist("octmnist").labels(folder)
    assert not folder.exists()


def test_an_unreachable_download_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = pytest.importorskip("medmnist").INFO
    monkeypatch.setitem(info["octmnist"], "url", "http://127.0.0.1:9/octmnist.npz")
    with pytest.raises(DataError, match="found no octmnist.npz in .* cannot download it .*refused.*digits"):
        MedMnist("octmnist").fetch(tmp_path)
    assert list((tmp_path / "medmnist").iterdir()) == []
