"""Every example runs as its first lines say, in a folder of its own, and leaves no process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nbformat
import psutil
import pytest
from looking import guarded_by, wait_until
from nbclient import NotebookClient

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize("script", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_script(script: Path, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, str(script)], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    out, err = process.communicate(timeout=100)
    assert process.returncode == 0, err
    assert err == ""
    assert [line.split(":")[0] for line in out.splitlines()] == [f"round {n}" for n in range(1, 6)]
    assert guarded_by(process.pid) == []


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")  # Jupyter's own
def test_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    monkeypatch.setenv("PATH", "/usr/bin:/bin")  # as on a JupyterHub: the environment is not activated
    notebook = nbformat.read(EXAMPLES / "04_notebook.ipynb", as_version=4)
    client = NotebookClient(notebook, timeout=100, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    last = notebook.cells[-1].outputs[-1]["data"]["text/plain"]
    accuracies = [float(text) for text in last.strip("[]").split(",")]
    assert len(accuracies) == 6
    assert accuracies[-1] > accuracies[0]
    assert wait_until(lambda: _orphans() == [], 10)


def _orphans() -> list[int]:
    """Processes that promised to end with a driver which is gone."""
    words = {p.pid: p.info["cmdline"] or [] for p in psutil.process_iter(["cmdline"])}
    guards = {pid: line for pid, line in words.items() if "parslfl_executors.guard" in line}
    return [
        pid
        for pid, line in guards.items()
        if not psutil.pid_exists(int(line[line.index("parslfl_executors.guard") + 1]))
    ]
