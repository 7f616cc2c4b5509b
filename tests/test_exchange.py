"""A site's shared folder: the run's own part of it, and nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from parslfl.channels import File
from parslfl.codecs import wire
from parslfl.errors import PayloadError, RunError
from parslfl.exchange import open_exchange
from parslfl.folding import checkpoints
from parslfl.folding.checkpoints import Checkpoint
from parslfl.sites import Site
from parslfl_executors.local import Local


def site(folder: Path) -> Site:
    return Site(name="here", clients=1, executor=Local(), transport=File(path=str(folder)))


def test_what_is_in_the_shared_folder_stays(tmp_path: Path) -> None:
    (tmp_path / "shared/run").mkdir(parents=True)
    (tmp_path / "shared/run/thesis.txt").write_text("years of work")
    exchange = open_exchange(tmp_path / "run", (site(tmp_path / "shared"),))
    exchange.close()
    assert (tmp_path / "shared/run/thesis.txt").read_text() == "years of work"
    assert [p.name for p in (tmp_path / "shared").iterdir()] == ["run"]


def test_a_shared_folder_around_the_run_directory_is_no_danger(tmp_path: Path) -> None:
    (tmp_path / "runs/one").mkdir(parents=True)
    (tmp_path / "runs/one/journal.jsonl").write_text("{}")
    (tmp_path / "link").symlink_to(tmp_path / "runs")
    open_exchange(tmp_path / "runs/one", (site(tmp_path / "link"),)).close()
    assert (tmp_path / "runs/one/journal.jsonl").exists()


def test_two_runs_of_one_name_do_not_meet(tmp_path: Path) -> None:
    one, other = (open_exchange(tmp_path / d / "run", (site(tmp_path / "shared"),)) for d in ("a", "b"))
    ref = one.places["here"].put("updates/x", [b"1"], "")
    other.close()
    assert bytes(one.places["here"].get(ref)) == b"1"


def test_what_a_killed_driver_left_is_cleared(tmp_path: Path) -> None:
    first = open_exchange(tmp_path / "run", (site(tmp_path / "shared"),))
    first.places["here"].put("updates/x", [b"1"], "")
    again = open_exchange(tmp_path / "run", (site(tmp_path / "shared"),))
    assert not again.places["here"].has("updates/x")


def test_a_folder_that_parslfl_did_not_make_is_refused(tmp_path: Path) -> None:
    exchange = open_exchange(tmp_path / "run", (site(tmp_path / "shared"),))
    (own,) = (tmp_path / "shared").iterdir()
    exchange.close()
    own.mkdir()
    (own / "precious").touch()
    with pytest.raises(RunError, match="is in the way"):
        open_exchange(tmp_path / "run", (site(tmp_path / "shared"),))
    assert (own / "precious").exists()


def test_a_strategys_state_is_published_as_a_model_is(tmp_path: Path) -> None:
    exchange = open_exchange(tmp_path / "run", (site(tmp_path / "shared"),))
    path = tmp_path / "run" / "models" / "round-0002.state"
    path.parent.mkdir(parents=True)
    digest = checkpoints.write(path, {"c": np.ones(3, np.float32)})
    refs = exchange.publish_state(Checkpoint(2, path.with_suffix(".plm"), "", path, digest))
    for place, ref in refs.items():
        assert wire.unpack(exchange.places[place].get(ref), digest)[0]["c"].tolist() == [1, 1, 1]
    exchange.withdraw(refs)
    with pytest.raises(PayloadError):
        exchange.places["here"].get(refs["here"])
    assert path.exists()
