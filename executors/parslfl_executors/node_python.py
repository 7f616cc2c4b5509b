"""The Python that a Slurm site's workers would start, tried on this machine, where that is harmless.

`worker_init` is a user's own text, for a node. It is run here only if every command in it sets an
environment up (modules, conda, export, source): in a shell of its own, for some seconds, and what it started
is ended.

Does not know: Slurm, or whether the nodes have what this machine has.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from parslfl_executors.checks import Check, differing, failed, is_shared, ok, unknown

if TYPE_CHECKING:
    from parslfl_executors.slurm import Slurm

#: Seconds for `worker_init` and a start of Python: modules and conda are slow on a busy file system.
_PATIENCE = 20.0
#: Commands that change nothing but the shell they run in.
_HARMLESS = frozenset({
    ".", ":", "[", "[[", "alias", "cd", "declare", "echo", "export", "false", "hash", "ml", "module", "set",
    "shopt", "source", "test", "true", "type", "ulimit", "umask", "unalias", "unset", "which",
})  # fmt: skip
#: Commands that do so with these words behind them.
_WITH = dict.fromkeys(
    ("conda", "mamba", "micromamba", "spack"),
    frozenset({"activate", "deactivate", "hook", "info", "load", "shell", "shell.bash", "unload"}),
)
_STRUCTURE = frozenset({"if", "then", "else", "elif", "fi", "eval", "!", "{", "}"})
#: What starts work elsewhere, if it stands in `python`.
_LAUNCHERS = frozenset({"srun", "sbatch", "salloc", "mpirun", "mpiexec", "aprun", "ssh"})
_ASSIGNED = re.compile(r"\w+\+?=\S*")
#: Endings of container images that are files.
_IMAGES = (".sif", ".simg", ".sqsh", ".squashfs")
_MARK, _BROKE = "parslfl-python:", "parslfl-worker-init-failed"
_ASK = f"""
import json, platform, sys
from importlib.metadata import PackageNotFoundError, version
def v(name):
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
print({_MARK!r} + json.dumps([platform.python_version(), sys.executable, [(n, v(n)) for n in sys.argv[1:]]]))
"""
_FIT = "install what the driver has there (constraints.txt), or run the driver from the same environment"


@dataclass(frozen=True)
class Found:
    """A Python that ran: its version, its path, the versions of packages, and the complaints before it.

    `broke`: a command of `worker_init` failed.
    """

    python: str
    executable: str
    packages: tuple[tuple[str, str], ...]
    complaint: str = ""
    broke: bool = False


def checks(site: Slurm, packages: Sequence[tuple[str, str]], near: bool) -> Iterator[Check]:
    """Whether container images are there, and Python fits, as seen from here.

    `near`: the nodes are this machine.
    """
    images = image_files(f"{site.worker_init}\n{site.python or ''}\n{site.scheduler_options}")
    found = [_image(path, near) for path in images]
    yield from found
    if any(check.verdict == "failed" for check in found):
        return
    if strange := strangers(site.worker_init, site.python or ""):
        detail = f"worker_init or python may do more than set an environment up ({strange[0]}): not run here"
        yield unknown("Python", f"{detail}; --probe tells whether Python fits")
        return
    yield _python(site, packages, near, images)


def _image(path: Path, near: bool) -> Check:
    if os.path.isfile(path):  # noqa: PTH113  Path.is_file raises in a closed folder
        if near or is_shared(path):
            return ok("image", f"{path} is there")
        return unknown("image", f"{path} is there, on a disk that only this machine may have; --probe tells")
    if os.path.isdir(path.parent):  # noqa: PTH112  the same
        cure = f"apptainer build {path} executors/slurm/container.def, or correct the path"
        return failed("image", f"no such image: {path}", cure)
    return unknown("image", f"{path} is not seen from here; --probe tells whether a node sees it")


def _python(site: Slurm, packages: Sequence[tuple[str, str]], near: bool, images: Sequence[Path]) -> Check:
    from parslfl_executors.pool import interpreter_there

    init = site.worker_init if site.python else interpreter_there(site.worker_init)
    found = tried(init, site.python or "python3", [name for name, _ in packages])
    if isinstance(found, str):
        return unknown("Python", f"as seen from here, {found}; --probe tells whether it works on a node")
    if found.broke:
        told = f"a command of worker_init fails here{found.complaint}; --probe tells of a node"
        return unknown("Python", told)
    if odd := differing(found.python, found.packages, packages):
        detail = f"{', '.join(odd)}, as seen from here at {found.executable}{found.complaint}"
        return failed("Python", detail, _FIT)
    same = ", ".join(f"{name} {said}" for name, said in found.packages)
    detail = f"{found.python}, {same}: as here, at {found.executable}"
    if near or images or is_shared(Path(found.executable).parent):
        return ok("Python", f"{detail}, as seen from this machine{found.complaint}")
    detail = f"{detail}, on a disk that only this machine may have{found.complaint}"
    return unknown("Python", f"{detail}; --probe tells")


def image_files(text: str) -> list[Path]:
    """Absolute paths of container images in shell text or options."""
    words = re.split(r"[\s=:,'\"]+", os.path.expandvars(text))
    found = (Path(word).expanduser() for word in words if word.endswith(_IMAGES))
    return list(dict.fromkeys(path for path in found if path.is_absolute()))


def strangers(script: str, python: str = "") -> list[str]:
    """Commands in `script`, or before `python`, that may do more than set an environment up."""
    text = re.sub(r"\\\n", " ", script)
    text = re.sub(r"(?m)(?:^|\s)#.*$|\d*>>?\s*&?\S+", " ", text)  # comments, and where output goes
    parts = re.split(r"&&|\|\||[\n;|&`]|\$\(", text)
    odd = [word for part in parts if (word := _stranger(part))]
    return odd + [word for word in python.split() if Path(word).name in _LAUNCHERS]


def _stranger(part: str) -> str:
    """The word that a simple command starts with; "" if it only changes its shell."""
    words = part.replace('"', " ").replace(")", " ").split()
    while words and (words[0] in _STRUCTURE or _ASSIGNED.fullmatch(words[0])):
        words = words[1:]
    if not words or words[0] in _HARMLESS or (words[1:2] and words[1] in _WITH.get(words[0], ())):
        return ""
    return words[0]


def tried(script: str, python: str, packages: Sequence[str]) -> Found | str:
    """What `python` is after `script`, as a batch job's shell would find it; or why it does not start."""
    watched = f'trap _broke=1 ERR\n{script}\ntrap - ERR\n[ -z "$_broke" ] || echo {_BROKE}'
    command = f"{watched}\n{python} -c {shlex.quote(_ASK)} {shlex.join(packages)}"
    with tempfile.TemporaryDirectory() as folder:
        code, out, err = _ran(command, Path(folder))
    said = " ".join(err.split())[-200:]
    line = next((line for line in out.splitlines() if line.startswith(_MARK)), "")
    try:
        version, executable, versions = json.loads(line.removeprefix(_MARK))
        versioned = tuple((str(n), str(v)) for n, v in versions)
        complaint, broke = f"; worker_init said: {said}" if said else "", _BROKE in out.splitlines()
        return Found(str(version), str(executable), versioned, complaint, broke)
    except (ValueError, TypeError):
        return f"worker_init and `{python}` do not start Python ({said or f'exit code {code}'})"


def _ran(command: str, folder: Path) -> tuple[int, str, str]:
    """Exit code and output of `command` in a bash of its own; whatever it started is ended with it."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SLURM_")}
    files = folder / "out", folder / "err"  # no pipes: what it left in the background would hold those open
    with (
        files[0].open("wb") as out,
        files[1].open("wb") as err,
        subprocess.Popen(
            ["/bin/bash", "-c", command],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
        ) as process,
    ):
        try:
            code = process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            return 124, "", f"nothing within {_PATIENCE:g} s"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    return code, files[0].read_text(errors="replace"), files[1].read_text(errors="replace")
