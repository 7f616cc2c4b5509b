"""Where a federation's clients are: its sites, and the YAML files that describe them.

Does not know: what is trained there; that is the experiment's.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, field_validator, model_validator

import parslfl
from parslfl import document, settings
from parslfl.channels import File, Grpc, Inline, ProxyStore
from parslfl.document import Document, dotted
from parslfl.errors import ConfigError, Problem
from parslfl.messages import Client
from parslfl.settings import by_kind
from parslfl.specs import hint
from parslfl_executors.fields import Count, FieldError, Settings, Whole
from parslfl_executors.kubernetes import Kubernetes
from parslfl_executors.local import Local
from parslfl_executors.mpi import Mpi
from parslfl_executors.slurm import Slurm

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
#: Workers or threads on one machine: more is a slip of the finger.
_MOST = 4096
_SUFFIXES = ("", ".yaml", ".yml")


def _name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise FieldError(f"expected letters, digits, - and _ (not first), got {text!r}")
    if text == "driver":
        raise FieldError("'driver' is the process that runs the rounds: choose another name")
    return text


def _absolute(text: str) -> str:
    if not text.startswith("/"):
        raise FieldError(f"expected a path from / on, as the workers there see it, got {text!r}")
    return text


class Site(Settings):
    """One place with data and workers.

    `clients`: partitions of the data that train there. `data`: the data folder as the workers
    there see it, or None for the experiment's. `retries`: how often a task whose worker died is
    tried again. `state`: a folder there that outlives workers, for what clients keep from round to
    round; by default the `file` transport's. `merge`: where the updates of its clients are added up: by the
    driver, or at the `site`, which then sends one sum a round (needs the `file` transport; an `mpi` site
    always does it, on any: there it is the default, and 'driver' is refused).
    """

    name: Annotated[str, AfterValidator(_name)]
    clients: Count
    data: str | None = None
    executor: Annotated[Local | Slurm | Kubernetes | Mpi, by_kind(Local, Slurm, Kubernetes, Mpi)]
    transport: Annotated[File | Grpc | Inline | ProxyStore, by_kind(File, Grpc, Inline, ProxyStore)] = File()
    retries: Whole = 1
    state: Annotated[str, AfterValidator(_absolute)] | None = None
    merge: Literal["driver", "site"] = "driver"

    def is_here(self) -> bool:
        """Whether its workers, or ranks, are processes of this machine."""
        return self.executor.kind == "local" or (self.executor.kind == "mpi" and self.executor.slurm is None)

    def merges(self) -> bool:
        """Whether one sum a round comes from here in place of its clients' updates."""
        return self.merge == "site"

    @model_validator(mode="before")
    @classmethod
    def _ranks_merge(cls, given: Any) -> Any:
        """Left out, `merge` says of an mpi site what it does."""
        executor = given.get("executor") if isinstance(given, Mapping) else None
        kind = executor.get("kind") if isinstance(executor, Mapping) else getattr(executor, "kind", None)
        return {"merge": "site", **given} if kind == "mpi" else given

    @model_validator(mode="after")
    def _within_reach(self) -> Self:
        if self.merge == "driver" and self.executor.kind == "mpi":
            message = "the ranks of an mpi site always add their updates up: leave it out, or write 'site'"
            raise FieldError(message, "merge")
        if self.merge == "site" and self.transport.kind != "file" and self.executor.kind != "mpi":
            message = (
                f"'site' needs updates that the workers of {self.name} can all read, and the transport "
                f"{self.transport.kind!r} sends them to the driver: use {{kind: file}}, or merge: driver"
            )
            raise FieldError(message, "merge")
        return self

    @model_validator(mode="after")
    def _encrypted(self) -> Self:
        raw = getattr(self.executor, "parsl", {})
        if self.transport.kind == "grpc" and not raw.get("encrypted", True):
            message = "the secrets of the grpc transport travel in tasks: leave encryption on"
            raise FieldError(message, "executor", "parsl", "encrypted")
        return self

    @field_validator("executor")
    @classmethod
    def _sane(cls, executor: Any) -> Any:
        for field in ("workers", "workers_per_node", "workers_per_pod", "ranks_per_node", "threads"):
            number = getattr(executor, field, None)
            if isinstance(number, int) and number > _MOST:
                raise FieldError(f"expected at most {_MOST:,}, got {number}", field)
        return executor


class Federation(Settings):
    """The sites, with names that differ. Made in Python, it raises pydantic's ValidationError."""

    name: str = "federation"
    sites: tuple[Site, ...]

    @field_validator("sites")
    @classmethod
    def _distinct(cls, sites: tuple[Site, ...]) -> tuple[Site, ...]:
        if not sites:
            raise FieldError("expected at least one site, got none")
        for index, message in _repeated([site.name for site in sites]):
            raise FieldError(message, index, "name")
        return sites

    def clients(self) -> tuple[Client, ...]:
        """Every client, counted from 0 in the order of the sites."""
        names = [site.name for site in self.sites for _ in range(site.clients)]
        return tuple(Client(index, name) for index, name in enumerate(names))

    def with_clients(self, count: int) -> Federation:
        """The same sites with `count` clients in all, in the same proportion, at least one each.

        Raises:
            ConfigError: there are fewer clients than sites.
        """
        if count < len(self.sites):
            raise ConfigError(
                [Problem("", "clients", f"{count} for {len(self.sites)} sites: each needs one")]
            )
        shares = _shares([site.clients for site in self.sites], count)
        sites = [site.model_copy(update={"clients": n}) for site, n in zip(self.sites, shares, strict=True)]
        return self.model_copy(update={"sites": tuple(sites)})

    def resolved(self) -> dict[str, Any]:
        """Plain data that makes an equal federation again."""
        return self.model_dump(mode="json")


def state_folder(site: Site, run: Path, name: str) -> str | None:
    """Where clients at `site` keep state, in the run `name` (`RunDir.id`) in directory `run`; None: nowhere.

    It is not removed with the run's other files, since the run may go on.
    """
    shared = site.transport.path if site.transport.kind == "file" else None
    place = site.state or (str(Path(shared).absolute()) if shared else None)
    if place is None:
        return str(run / "clients") if site.transport.kind == "file" else None
    return f"{place}/parslfl-{name}-clients"


def local_folders(federation: Federation, default: Path) -> dict[str, Path]:
    """Data folder of each site that is this machine; `default` for those that name none."""
    local = (site for site in federation.sites if site.is_here())
    return {site.name: Path(site.data) if site.data else default for site in local}


def load_federation(path: str | Path, overrides: Mapping[str, object] | None = None) -> Federation:
    """The federation in the site file that `find_site_file` finds, with `overrides`.

    Keys of `overrides` are dotted, such as `sites[0].executor.workers` or `sites.NAME.clients`;
    values that are text are read as YAML.

    Raises:
        ConfigError: with every problem at once.
    """
    found = document.read(find_site_file(path))
    for key, value in (overrides or {}).items():
        found = found.changed(key, value)
    return settings.build(Federation, _compared(found))


def find_site_file(name: str | Path) -> Path:
    """The site file called `name`: as given, else in a folder of site files; `.yaml` may be left out.

    Raises:
        ConfigError: there is none; the message says which there are.
    """
    folders = [Path.cwd(), *_folders()]
    paths = (Path(folder, f"{name}{suffix}") for folder in folders for suffix in _SUFFIXES)
    # not Path.exists: that one raises on a name too long, or in a folder that is closed
    found = next((p for p in paths if os.path.exists(p) and not os.path.isdir(p)), None)  # noqa: PTH110, PTH112
    if found is None:
        raise ConfigError([Problem(str(name), "", _nowhere(str(name), folders))])
    return found


def site_files() -> dict[str, Path]:
    """The site files that can be named without a folder, by name."""
    files = [path for folder in _folders() for path in sorted(folder.glob("*.y*ml"))]
    return {path.name: path for path in reversed(files)}


def _folders() -> list[Path]:
    """Where site files are kept: the user's, the repository's, those that were installed."""
    package = Path(parslfl.__file__).parent
    return list(dict.fromkeys(home / "site_configs" for home in (Path.cwd(), package.parent, package)))


def _nowhere(name: str, folders: Sequence[Path]) -> str:
    if os.path.isdir(name):  # noqa: PTH112  the same
        inside = sorted(path.name for path in Path(name).glob("*.y*ml"))
        return f"a folder, not a site file{_listing(inside)}"
    known = sorted(site_files())
    near = hint(Path(name).name, [*known, *(Path(k).stem for k in known)])
    looked = ", ".join(str(folder) for folder in folders if folder.is_dir())
    return (
        f"no such site file{near if 'did you mean' in near else ''}"
        f"{'' if Path(name).is_absolute() else f'; looked in {looked}'}{_listing(known)}"
    )


def _listing(names: Sequence[str]) -> str:
    return f"; there is {', '.join(names)}" if names else ""


def _compared(found: Document) -> Document:
    """`found`, with the site names that it repeats noted: also where other problems hide them."""
    sites = found.data.get("sites") if isinstance(found.data, dict) else None
    listed = sites if isinstance(sites, list) else []
    names = [site.get("name") if isinstance(site, dict) else None for site in listed]
    for index, message in _repeated(names):
        steps = ("sites", index, "name")
        found = found.noting(Problem(found.where(steps), dotted(steps), message))
    return found


def _repeated(names: Sequence[object]) -> Iterator[tuple[int, str]]:
    for index, name in enumerate(names):
        if isinstance(name, str) and name in names[:index]:
            yield (
                index,
                f"a second site called {name!r}: names must differ (first is sites[{names.index(name)}])",
            )


def _shares(sizes: Sequence[int], count: int) -> list[int]:
    """`count` in the proportion of `sizes`, by largest remainder, none below 1."""
    total = sum(sizes)
    shares = [count * size // total for size in sizes]
    by_remainder = sorted(range(len(sizes)), key=lambda i: -(count * sizes[i] % total))
    for index in by_remainder[: count - sum(shares)]:
        shares[index] += 1
    while 0 in shares:
        shares[shares.index(max(shares))] -= 1
        shares[shares.index(0)] += 1
    return shares
