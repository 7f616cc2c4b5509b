"""The commands as their users meet them: words, exit codes, and no traceback unless asked for."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import pytest

from parslfl import cli
from parslfl.commands import actions
from parslfl.errors import DataError

#: A run of a few seconds: no torch, no download.
QUICK = ["--dataset", "digits", "--model", "softmax", "--epochs", "1", "--per-round", "4", "--plain"]


def parslfl(*words: str, cwd: Path, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """The command as a real process."""
    return subprocess.run(
        [sys.executable, "-m", "parslfl", *words], cwd=cwd, capture_output=True, text=True, timeout=timeout
    )


def loaded_by(code: str) -> set[str]:
    """The packages that a fresh interpreter has loaded after `code`."""
    script = f"import sys\n{code}\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    return set(done.stdout.split("\n")[-2].split())


def test_a_help_text_loads_nothing_slow() -> None:
    code = "from parslfl.cli import main\ntry: main(['run', '--help'])\nexcept SystemExit: pass"
    assert not loaded_by(code) & {"torch", "torchvision", "parsl", "sklearn", "rich"}
    assert not loaded_by("import parslfl.cli") & {"numpy", "pydantic", "rich", "yaml"}


def test_no_command_loads_parsl_before_it_trains() -> None:
    assert not loaded_by("import parslfl.commands.actions") & {"torch", "parsl", "matplotlib"}


def test_help_is_grouped_and_quotes_names_and_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.workflow({"rounds": 7}, ["--help"], "A story.")
    text = " ".join(capsys.readouterr().out.split())
    assert stop.value.code == 0
    assert "A story." in text
    for heading in ("what to learn:", "who takes part:", "how a round closes:", "where:", "this run:"):
        assert heading in text
    assert "rounds in all (default: 7)" in text
    assert "fedprox:mu=0.01" in text
    assert "classes:k=2" in text


def test_version(tmp_path: Path) -> None:
    done = parslfl("--version", cwd=tmp_path)
    assert (done.returncode, done.stdout.split()[0]) == (0, "parslfl")


def test_every_mistake_is_told_at_once_without_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("sites:\n  - {name: a, clients: 3, executer: {kind: local}}\n")
    words = ["--site", "mine", "--rounds", "0", "--lr", "fast", "--clients", "x", "--set", "roundz=3"]
    done = parslfl("run", *words, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert all(line.startswith("error: ") for line in lines)
    for part in (
        "mine.yaml:2",
        "did you mean 'executor'?",
        "--rounds 0",
        "--lr fast",
        "--clients x",
        "'rounds'",
    ):
        assert any(part in line for line in lines), part


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "--site", "nowhere"], "nowhere: no such site file"),
        (["run", "--epoch", "3"], "unknown argument --epoch 3 (did you mean '--epochs'?)"),
        (["run", "--experiment", "nowhere.yaml"], "no such experiment file"),
        (["run", "--resume"], "--run-dir DIR"),
        (["run", "--run-dir", ""], "--run-dir: expected a directory, got nothing"),
        (["report", ""], "RUN_DIR: expected a directory, got nothing"),
        (["run", "--clients", "5"], "20 clients a round, but the federation has 5"),
        (["run", "--site"], "expected one argument"),
        (["sites", "nowhere"], "no such site file"),
        (["partition", "--dataset", "digits", "--clients", "0"], "at least 1"),
        (["partition", "--partition", "classes:k=two"], "'two' is not a whole number"),
        ([], "COMMAND"),
        (["dance"], "invalid choice: 'dance'"),
    ],
)
def test_wrong_usage_exits_with_2(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words) == 2
    written = capsys.readouterr()
    assert said in written.err
    assert written.out == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["report", "nowhere"],
            "nowhere holds no run (no run.yaml): name the directory that the run printed",
        ),
        (["resume", "nowhere"], "holds no run (no run.yaml)"),
        (["partition", "--dataset", "digits", "--clients", "9999"], "9999 clients"),
    ],
)
def test_what_cannot_be_done_exits_with_1(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words) == 1
    assert said in capsys.readouterr().err


def failing(error: BaseException) -> Callable[..., int]:
    def command(*args: object, **options: object) -> int:
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (DataError("no data here"), 1, "error: no data here\n"),
        (KeyboardInterrupt(), 130, "stopped\n"),
        (cli.Stopped(signal.SIGTERM), 143, "stopped\n"),
        (BrokenPipeError("a worker's pipe"), 70, "error: BrokenPipeError: a worker's pipe\nthis is a bug"),
        (
            ZeroDivisionError("division\nby zero"),
            70,
            "error: ZeroDivisionError: division by zero\nthis is a bug",
        ),
    ],
)
def test_exceptions_become_a_line_and_a_code(
    error: BaseException,
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(actions.COMMANDS, "sites", failing(error))
    assert cli.main(["sites"]) == code
    assert capsys.readouterr().err.startswith(said)
    assert cli.main(["sites", "--debug"]) == code
    assert "Traceback" in capsys.readouterr().err


def test_notes_of_an_error_are_told_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    error = DataError("gone")
    error.add_note("finished rounds are kept")
    monkeypatch.setitem(actions.COMMANDS, "sites", failing(error))
    cli.main(["sites"])
    assert capsys.readouterr().err == "error: gone\nfinished rounds are kept\n"


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    words = [
        sys.executable,
        "-m",
        "parslfl",
        "partition",
        "--dataset",
        "digits",
        "--counts",
        "--clients",
        "1400",
    ]
    words += ["--partition", "iid"]
    process = subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(30) == 1


@pytest.mark.parametrize(
    ("redirected", "code", "said"),
    [
        (">&-", 0, ""),
        ("2>&- >&-", 0, ""),
        (
            ">/dev/full",
            1,
            (
                "error: no space is left to write standard output or the run directory: "
                "free some, or write elsewhere\n"
            ),
        ),
    ],
)
def test_an_output_that_cannot_be_written_is_no_bug(
    tmp_path: Path, redirected: str, code: int, said: str
) -> None:
    command = f"exec {sys.executable} -m parslfl partition --dataset digits {redirected}"
    done = subprocess.run(
        ["/bin/sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=30
    )
    assert (done.returncode, done.stderr) == (code, said)


def test_what_was_printed_stands_before_the_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def command(args: Namespace) -> int:
        sys.stdout.write("first\n")
        raise DataError("second")

    with (
        (tmp_path / "both").open("w") as error,
        os.fdopen(os.dup(error.fileno()), "w") as output,
        monkeypatch.context() as patch,
    ):
        patch.setattr(sys, "stdout", output)
        patch.setattr(sys, "stderr", error)
        patch.setitem(actions.COMMANDS, "sites", command)
        assert cli.main(["sites"]) == 1
    assert (tmp_path / "both").read_text() == "first\nerror: second\n"


def test_a_run_that_fails_before_it_writes_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(actions, "train", failing(DataError("no data")))
    assert cli.main(["run", *QUICK, "--site", "local"]) == 1
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_directory_that_is_removed_while_it_is_run_is_told(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "parslfl", "run", *QUICK, "--rounds", "100000", "--run-dir", "here"]
    process = subprocess.Popen(
        words, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    while "round 2/" not in process.stdout.readline():
        assert process.poll() is None
    (tmp_path / "here").rename(tmp_path / "there")
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "bug" not in said
    assert "finished rounds are kept" not in said
    assert "Traceback" not in said


def test_sites_are_listed_and_shown(capsys: pytest.CaptureFixture[str], repository: Path) -> None:
    assert (repository / "site_configs" / "local.yaml").exists()
    assert cli.main(["sites"]) == 0
    assert "local.yaml" in capsys.readouterr().out
    assert cli.main(["sites", "local"]) == 0
    assert "60" in capsys.readouterr().out


def test_partition_shows_who_holds_what(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["partition", "--dataset", "digits", "--partition", "classes:k=3", "--clients", "12"]
    assert cli.main(words) == 0
    text = capsys.readouterr().out
    assert "classes a client: least 3, median 3, greatest 3" in text
    assert len([line for line in text.splitlines() if line.startswith("class ")]) == 10
    assert cli.main([*words, "--counts", "--plot", str(tmp_path / "a.png")]) == 0
    assert "1438" in capsys.readouterr().out
    assert (tmp_path / "a.png").exists()


def test_a_dry_run_shows_the_plan_and_starts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["--dry-run", *QUICK, "--clients", "6", "--deadline", "5m", "--fastest", "3"]
    assert cli.workflow({"rounds": 2}, words) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "650 parameters" in text
    assert "round 1 4 clients of 6" in text
    assert "with the fastest 3 updates, after 5 min 0 s at the latest" in text
    assert "digits is there" in text
    assert list(tmp_path.iterdir()) == []


def test_a_run_its_report_and_its_resumption(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    first = parslfl("run", *QUICK, "--rounds", "2", "--run-dir", "here", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    assert [line for line in first.stdout.splitlines() if line.startswith("round 2/2  accuracy")]
    assert "run directory: here" in first.stdout
    assert first.stderr == ""

    assert cli.main(["run", *QUICK, "--run-dir", "here"]) == 1
    said = capsys.readouterr().err
    assert "--resume" in said
    assert "--run-dir" in said
    assert cli.main(["run", *QUICK, "--lr", "0.1", "--run-dir", "here", "--resume"]) == 1
    assert "lr: was 0.05, now 0.1" in capsys.readouterr().err

    before = sorted(path.stat().st_mtime_ns for path in (tmp_path / "here").rglob("*"))
    again = ["run", *QUICK, "--run-dir", "here", "--dry-run"]
    assert cli.main([*again, "--resume", "--lr", "0.1"]) == 1
    assert "lr: was 0.05, now 0.1" in capsys.readouterr().err
    assert cli.main(again) == 1
    assert "already holds a run: continue it with --resume" in capsys.readouterr().err
    assert cli.main([*again, "--resume", "--rounds", "3"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "round 3 4 clients of" in text
    assert "run 3 rounds in here, 2 done" in text
    assert cli.main([*again, "--resume", "--rounds", "2"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "rounds none is left to do: all 2 are done; more with --rounds N" in text
    assert sorted(path.stat().st_mtime_ns for path in (tmp_path / "here").rglob("*")) == before

    more = parslfl("resume", "here", "--rounds", "3", "--quiet", cwd=tmp_path)
    assert more.returncode == 0, more.stderr
    assert more.stdout.startswith("accuracy ")
    assert more.stdout.endswith("after round 3; here\n")

    assert cli.main(["report", "here"]) == 0
    assert "3 rounds took" in capsys.readouterr().out


@pytest.mark.parametrize(("number", "times"), [(signal.SIGINT, 1), (signal.SIGINT, 4), (signal.SIGTERM, 1)])
def test_a_stopped_run_keeps_its_rounds_and_leaves_no_process(
    tmp_path: Path, number: int, times: int
) -> None:
    """Also when an impatient user presses Ctrl-C again and again, down to the process's last moment."""
    words = [sys.executable, "-m", "parslfl", "run", *QUICK, "--rounds", "100000", "--run-dir", "here"]
    process = subprocess.Popen(
        words, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    while "round 2/" not in process.stdout.readline():
        assert process.poll() is None
    for _ in range(times):
        process.send_signal(number)
        time.sleep(0.1)
    while times > 1 and process.poll() is None:
        process.send_signal(number)
        time.sleep(0.01)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert said.startswith("stopped\nfinished rounds are kept in here; resume with: ")
    assert "Traceback" not in said
    assert len((tmp_path / "here" / "metrics.jsonl").read_text().splitlines()) >= 2
    assert in_session(process.pid) == []


def in_session(session: int) -> list[int]:
    """Processes of `session`, once those that are ending had two seconds to do so."""
    found: list[int] = []
    for _ in range(20):
        numbers = (int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal())
        found = [number for number in numbers if _session(number) == session]
        if not found:
            break
        time.sleep(0.1)
    return found


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None


def test_the_workflow_script_is_short_and_runs(repository: Path, tmp_path: Path) -> None:
    script = repository / "workflows" / "cifar_round.py"
    assert len(script.read_text().splitlines()) <= 40
    words = ["--dataset", "auto", "--data-dir", str(tmp_path), "--model", "softmax", "--rounds", "1"]
    done = subprocess.run(
        [sys.executable, str(script), *words, "--run-dir", "here"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"cifar10 not found in {tmp_path}: using the embedded digits\n")
    line = json.loads((tmp_path / "here" / "metrics.jsonl").read_text())
    assert line["updates"] == 20
