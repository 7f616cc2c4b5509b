"""The Python of a Slurm site's workers, tried on this machine where that is harmless."""

from __future__ import annotations

import platform
import shlex
import sys
import time
from pathlib import Path

import psutil
import pytest
from looking import wait_until

from parslfl_executors import checks as file_systems
from parslfl_executors import node_python
from parslfl_executors.checks import Check
from parslfl_executors.node_python import checks, image_files, strangers, tried
from parslfl_executors.slurm import Slurm

SCRIPTS = Path(__file__).parents[2] / "executors/slurm"
WANTED = (("parslfl", "9.9.9"),)


def looked(near: bool = True, packages: tuple[tuple[str, str], ...] = (), **fields: object) -> list[Check]:
    return list(checks(Slurm.model_validate(fields), packages, near))


@pytest.mark.parametrize("name", ["modules.sh", "conda.sh"])
def test_the_scripts_that_are_shipped_only_set_an_environment_up(name: str) -> None:
    assert strangers((SCRIPTS / name).read_text()) == []


@pytest.mark.parametrize("script", [
    "", "# srun nothing", "A=1 B+=:2\nexport PATH=$A:$PATH",
    "if [ -x /x ]; then\n  export X=1\nfi",
    'eval "$(micromamba shell hook --shell bash)" && micromamba activate fl',
    "module load a b 2>/dev/null || true",
    ". ~/fl/bin/activate; ulimit -n 4096 > /dev/null", "spack load python",
])  # fmt: skip
def test_what_sets_an_environment_up(script: str) -> None:
    assert strangers(script) == []


@pytest.mark.parametrize(("script", "word"), [
    ("module load a\ncp -r data /tmp", "cp"), ("export X=$(sbatch job.sh)", "sbatch"),
    ("true && srun hostname", "srun"),
    ("conda create -n x", "conda"), ("if true; then rm -rf x; fi", "rm"), ("nvidia-smi &", "nvidia-smi"),
    ("export X=`squeue`", "squeue"), ("./start_daemon", "./start_daemon"), ("A=1 ray start", "ray"),
])  # fmt: skip
def test_what_may_do_more_is_not_run(script: str, word: str) -> None:
    assert strangers(script)[0] == word
    (said,) = looked(worker_init=script)
    assert said.verdict == "unknown"
    assert f"({word}): not run here; --probe tells" in said.detail


def test_a_python_that_would_start_a_job_is_not_run() -> None:
    (said,) = looked(python="srun --container-image=img python3")
    assert (said.verdict, "(srun)" in said.detail) == ("unknown", True)


def test_the_drivers_own_python_fits_where_the_nodes_see_it(monkeypatch: pytest.MonkeyPatch) -> None:
    (said,) = looked()
    assert said.verdict == "ok"
    assert said.detail.startswith(f"{platform.python_version()}")
    assert said.detail.endswith("as seen from this machine")
    assert str(Path(sys.executable).parent) in said.detail
    (said,) = looked(near=False)
    assert (said.verdict, "only this machine may have" in said.detail) == ("unknown", True)
    monkeypatch.setattr(file_systems, "file_system", lambda _: "nfs4")
    assert looked(near=False)[0].verdict == "ok"


def test_another_version_is_a_fault(tmp_path: Path) -> None:
    fake = tmp_path / "parslfl-9.9.9.dist-info"
    fake.mkdir()
    (fake / "METADATA").write_text("Metadata-Version: 2.1\nName: parslfl\nVersion: 9.9.8\n")
    (said,) = looked(worker_init=f"echo hello; export PYTHONPATH={tmp_path}", packages=WANTED)
    assert said.verdict == "failed"
    assert said.detail.startswith("parslfl 9.9.8 (here 9.9.9), as seen from here at /")
    assert "constraints.txt" in said.cure


def test_a_package_that_is_missing_is_a_fault() -> None:
    (said,) = looked(packages=(("no-such-package", "1"),))
    assert (said.verdict, said.detail.partition(",")[0]) == (
        "failed",
        "no-such-package not installed (here 1)",
    )


def test_what_worker_init_says_is_told() -> None:
    (said,) = looked(worker_init="module_of_nowhere=1\necho module loaded >&2")
    assert said.verdict == "ok"
    assert said.detail.endswith("as seen from this machine; worker_init said: module loaded")


def test_a_command_of_worker_init_that_fails_leaves_python_unknown() -> None:
    (said,) = looked(worker_init="source /no/such/activate\nexport A=1")
    assert said.verdict == "unknown"
    assert said.detail.startswith("a command of worker_init fails here; worker_init said: ")
    assert said.detail.endswith("/no/such/activate: No such file or directory; --probe tells of a node")
    assert looked(worker_init="test -e /no/such/file || export A=1")[0].verdict == "ok"


def test_what_does_not_run_here_may_run_there() -> None:
    (said,) = looked(worker_init="source /no/such/activate", python="/no/such/python3")
    assert said.verdict == "unknown"
    assert "as seen from here, worker_init and `/no/such/python3` do not start Python (" in said.detail
    assert "No such file or directory" in said.detail


def test_what_hangs_is_ended_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_python, "_PATIENCE", 1.0)
    number, began = tmp_path / "pid", time.monotonic()
    said = tried(f"sleep 600 & echo $! > {number}\nsleep 600", "python3", [])
    assert "nothing within 1 s" in str(said)
    assert time.monotonic() - began < 30
    assert wait_until(lambda: _over(int(number.read_text())), 10)


def _over(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == "zombie"


def test_what_worker_init_leaves_behind_is_ended(tmp_path: Path) -> None:
    number = tmp_path / "pid"
    found = tried(f"sleep 600 & echo $! > {number}", shlex.quote(sys.executable), ["parsl"])
    assert not isinstance(found, str)
    assert found.python == platform.python_version()
    assert wait_until(lambda: _over(int(number.read_text())), 10)


def test_images_are_looked_for(tmp_path: Path) -> None:
    there = tmp_path / "fl.sif"
    there.touch()
    assert image_files(f"apptainer exec --nv {there} python3 --container-image={tmp_path}/x.sqsh") == [
        there, tmp_path / "x.sqsh",
    ]  # fmt: skip
    image, _ = looked(python=f"env FL={there} {shlex.quote(sys.executable)}")
    assert (image.verdict, image.detail) == ("ok", f"{there} is there")
    assert looked(near=False, worker_init=f"export FL={there}")[0].verdict == "unknown"
    (image,) = looked(python=f"apptainer exec {tmp_path}/none.sif python3")
    assert (image.verdict, image.detail) == ("failed", f"no such image: {tmp_path}/none.sif")
    assert image.cure.startswith(f"apptainer build {tmp_path}/none.sif")
    assert looked(python="apptainer exec /no/such/folder/none.sif python3")[0].verdict == "unknown"
