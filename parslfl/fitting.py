"""Which experiments a site can merge, or train on several ranks: told before a run begins.

Does not know: how a site does either.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from parslfl.models.torch_model import TorchModel
from parslfl.protocols import Model, NeedsAll, Strategy
from parslfl.sites import Federation


class Asked(Protocol):
    """An experiment, as this module sees it."""

    @property
    def strategy(self) -> Strategy: ...
    @property
    def model(self) -> Model: ...
    def resolved(self) -> dict[str, Any]: ...


def misfits(federation: Federation, asked: Asked, keepers: Sequence[str]) -> dict[str, str]:
    """A sentence for each field of `asked` that some site cannot do; `keepers`: fields that keep state."""
    found: dict[str, str] = {}
    merging = [site.name for site in federation.sites if site.merges()]
    if merging and isinstance(asked.strategy, NeedsAll):
        found["strategy"] = (
            f"{asked.resolved()['strategy']} must see every update, and {merging[0]} would send only "
            f"their sum: let the driver merge (sites.{merging[0]}.merge=driver; an mpi site cannot), or "
            "choose a strategy that averages"
        )
    together = [s.name for s in federation.sites if getattr(s.executor, "split", "") == "batches"]
    cure = f"--set sites.{together[0]}.executor.split=clients" if together else ""
    for field in keepers if together else ():
        found[field] = (
            f"{asked.resolved()[field]!r} keeps state of each client at its site, and ranks that train a "
            f"client together do not: {cure}"
        )
    if together and not isinstance(asked.model, TorchModel):
        found["model"] = (
            f"{asked.resolved()['model']} is no torch model, and only those can be trained by all ranks "
            f"together: {cure}"
        )
    return found
