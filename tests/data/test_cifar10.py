"""CIFAR-10 on its real files, and on small damaged or absent ones."""

import functools
import hashlib
import http.server
import os
import pickle
import shutil
import socket
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from parslfl.data import download
from parslfl.data.cifar10 import MD5, MEAN, NAME, STD, TEST, TRAINING, Cifar10
from parslfl.errors import DataError
from parslfl.vision import load_torchvision

FOLDER = Path(os.environ.get("PARSLFL_DATA") or Path(__file__).parents[3] / "shared" / "data")
REAL = FOLDER / NAME if (FOLDER / NAME).exists() else FOLDER / "cifar-10" / NAME

needs_files = pytest.mark.skipif(not Cifar10().available(FOLDER), reason=f"no CIFAR-10 in {FOLDER}")


@needs_files
@pytest.mark.parametrize("folder", [FOLDER, REAL.parent, REAL])
def test_all_three_places_are_found(folder: Path) -> None:
    assert Cifar10().available(folder)


@needs_files
def test_classes_are_equally_frequent() -> None:
    labels = Cifar10().labels(FOLDER)
    assert np.bincount(labels).tolist() == [5000] * 10
    assert np.bincount(Cifar10().test(FOLDER).y).tolist() == [1000] * 10


@needs_files
def test_every_image_equals_the_unpickled_one() -> None:
    for number, name in enumerate(TRAINING):
        stored = pickle.loads((REAL / name).read_bytes(), encoding="bytes")
        rows = np.arange(number * 10_000, (number + 1) * 10_000)
        read = Cifar10().train(FOLDER, rows)
        assert np.array_equal(read.x.reshape(10_000, 3072), stored[b"data"])
        assert read.y.tolist() == stored[b"labels"]
    stored = pickle.loads((REAL / TEST).read_bytes(), encoding="bytes")
    assert np.array_equal(Cifar10().test(FOLDER).x.reshape(10_000, 3072), stored[b"data"])


@needs_files
def test_indices_across_files_keep_their_order() -> None:
    rows = np.array([49_999, 0, 10_000, 9_999, 20_000])
    read = Cifar10().train(FOLDER, rows)
    for at, row in enumerate(rows):
        assert np.array_equal(read.x[at], Cifar10().train(FOLDER, rows[at : at + 1]).x[0])
        assert read.y[at] == Cifar10().labels(FOLDER)[row]


@needs_files
def test_mean_and_std_are_those_of_the_training_images() -> None:
    x = Cifar10().train(FOLDER, np.arange(50_000)).x
    for channel in range(3):
        counts = np.bincount(x[:, channel].reshape(-1), minlength=256)
        mean = np.average(np.arange(256) / 255, weights=counts)
        square = np.average((np.arange(256) / 255 - mean) ** 2, weights=counts)
        assert abs(mean - MEAN[channel]) < 1e-4
        assert abs(np.sqrt(square) - STD[channel]) < 1e-4


@needs_files
def test_a_fresh_process_reads_it_without_torch() -> None:
    code = (
        "import sys, numpy as np; from pathlib import Path; from parslfl.data.cifar10 import Cifar10\n"
        f"folder = Path({str(FOLDER)!r})\n"
        "Cifar10().labels(folder); Cifar10().train(folder, np.arange(833))\n"
        "assert not {'torch', 'torchvision', 'sklearn', 'medmnist'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.fixture
def copies(tmp_path: Path) -> Path:
    """A folder with all six file names, and nothing in the files."""
    (tmp_path / NAME).mkdir()
    for name in MD5:
        (tmp_path / NAME / name).touch()
    return tmp_path


@pytest.mark.parametrize("content", [b"", b"not a batch"])
def test_a_damaged_file_is_named_with_both_sums(copies: Path, content: bytes) -> None:
    file = copies / NAME / "data_batch_1"
    file.write_bytes(content)
    with pytest.raises(DataError) as error:
        Cifar10().labels(copies)
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    assert str(error.value).startswith(f"{file} is damaged: its md5 is {found}, not {MD5['data_batch_1']};")
    assert "copy the file again, or remove the folder" in str(error.value)


@needs_files
def test_a_truncated_file_is_refused(copies: Path) -> None:
    (copies / NAME / TEST).write_bytes((REAL / TEST).read_bytes()[:-1])
    with pytest.raises(DataError, match="test_batch is damaged"):
        Cifar10().test(copies)


def test_a_pickle_that_acts_is_never_opened(copies: Path) -> None:
    class Act:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(copies / "acted"),)

    (copies / NAME / TEST).write_bytes(pickle.dumps(Act()))
    with pytest.raises(DataError, match="is damaged"):
        Cifar10().test(copies)
    assert not (copies / "acted").exists()


def test_an_incomplete_folder_is_not_available(copies: Path) -> None:
    (copies / NAME / "data_batch_3").unlink()
    (copies / NAME / "data_batch_1").unlink()
    assert not Cifar10().available(copies)
    with pytest.raises(DataError, match=f"found no data_batch_1 in {copies / NAME}: copy it there"):
        Cifar10().labels(copies)
    with pytest.raises(DataError, match="incomplete: remove it"):
        Cifar10().fetch(copies)


def test_a_worker_without_data_does_not_download(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    for read in (Cifar10().labels, Cifar10().test, lambda at: Cifar10().train(at, np.arange(3))):
        with pytest.raises(DataError, match=f"found no {NAME} in {folder} or {folder / 'cifar-10'}: copy"):
            read(folder)
    assert not folder.exists()


@pytest.fixture
def publisher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """torchvision downloads from this folder, over a real socket, a small archive in the set's layout."""
    load_torchvision()
    from torchvision.datasets import CIFAR10

    site = tmp_path / "publisher"
    (site / NAME).mkdir(parents=True)
    for name in MD5:
        (site / NAME / name).write_text(name)
    with tarfile.open(site / CIFAR10.filename, "w:gz") as archive:
        archive.add(site / NAME, NAME)
    shutil.rmtree(site / NAME)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setattr(CIFAR10, "url", f"http://127.0.0.1:{server.server_port}/{CIFAR10.filename}")
        digest = hashlib.md5((site / CIFAR10.filename).read_bytes(), usedforsecurity=False).hexdigest()
        monkeypatch.setattr(CIFAR10, "tgz_md5", digest)
        yield site / CIFAR10.filename
        server.shutdown()
        thread.join()


def test_a_download_appears_whole_and_leaves_no_archive(publisher: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    Cifar10().fetch(folder)
    assert Cifar10().available(folder)
    assert [path.name for path in folder.iterdir()] == [NAME]
    publisher.unlink()
    Cifar10().fetch(folder)  # it is there: asks nobody


def test_two_drivers_at_once_share_one_download(publisher: Path, tmp_path: Path) -> None:
    folder, errors = tmp_path / "data", []

    def fetch() -> None:
        try:
            Cifar10().fetch(folder)
        except DataError as error:
            errors.append(error)

    threads = [threading.Thread(target=fetch) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert [path.name for path in folder.iterdir()] == [NAME]


def test_a_damaged_archive_is_refused(publisher: Path, tmp_path: Path) -> None:
    publisher.write_bytes(publisher.read_bytes()[:-10])
    with pytest.raises(DataError, match="cannot download it .File not found or corrupted"):
        Cifar10().fetch(tmp_path / "data")
    assert list((tmp_path / "data").iterdir()) == []


def test_an_unreachable_download_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load_torchvision()
    from torchvision.datasets import CIFAR10

    # Nothing listens on port 9 here; with a network, the real address would be reached.
    monkeypatch.setattr(CIFAR10, "url", "http://127.0.0.1:9/cifar-10-python.tar.gz")
    with pytest.raises(DataError) as error:
        Cifar10().fetch(tmp_path / "data")
    said = str(error.value)
    assert said.startswith(f"found no {NAME} in {tmp_path / 'data'} and cannot download it (")
    assert "Connection refused" in said
    for cure in ("copy it there", "--data-dir", "PARSLFL_DATA", "--dataset digits"):
        assert cure in said


def test_a_server_that_stays_silent_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load_torchvision()
    from torchvision.datasets import CIFAR10

    monkeypatch.setattr(download, "SILENCE", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:  # takes the call and never answers
        url = f"http://127.0.0.1:{server.getsockname()[1]}/cifar-10-python.tar.gz"
        monkeypatch.setattr(CIFAR10, "url", url)
        with pytest.raises(DataError, match="cannot download it .*timed out.*: copy it there"):
            Cifar10().fetch(tmp_path)
