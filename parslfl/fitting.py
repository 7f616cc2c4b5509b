"""Whether a federation and an experiment fit, and what is good to know where they do: before a run begins.

Does not know: how either is read, or how a site does what it is asked.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from parslfl import specs
from parslfl.codecs.raw import Raw
from parslfl.errors import ConfigError, Problem, RunError, naming
from parslfl.experiment import Experiment
from parslfl.models.torch_model import TorchModel
from parslfl.protocols import ClientSide, NeedsAll, Scaled, caution, needs_all
from parslfl.sites import Federation
from parslfl.transport.inline import LARGEST

#: The other way out, where it is error feedback that cannot be had.
_UNFED = ", or --error-feedback false"
_ALL = (
    "needs all updates of a round at once: they fill the run directory until its end (one model a client), "
    "and cannot be merged at their sites"
)
_RANKS = (
    "saves nothing at {}: updates never leave the ranks' memory and their sum travels as float32, "
    "so there it costs time, and accuracy if it is lossy"
)
_SUMS = "saves only inside {}: what travels from there is a sum of its updates, as float32"


def check(federation: Federation, experiment: Experiment) -> None:
    """Refuse a federation and an experiment that do not fit.

    Raises:
        ConfigError: with every reason.
    """
    found = {
        **_numbers(federation, experiment),
        **_state(federation, experiment),
        **_steering(experiment),
        **_merging(federation, experiment),
        **_together(federation, experiment),
        **_dropout(federation, experiment),
    }
    if found:
        raise ConfigError([Problem("", field, message) for field, message in found.items()])


def require_room(federation: Federation, size: int) -> None:
    """Refuse a model of `size` bytes that would ride in tasks, where it is too large for that.

    Raises:
        RunError: it is; with the sites.
    """
    places = [site.name for site in federation.sites if site.transport.kind == "inline"]
    if places and size > LARGEST:
        raise RunError(
            f"{', '.join(places)}: the model has {size:,} bytes, more than the {LARGEST:,} that may ride in "
            "each task: instead of transport: {kind: inline}, give the site {kind: file} where it shares a "
            "folder with the driver, else {kind: grpc} or {kind: proxystore} (docs/transports.md)"
        )


def remarks(federation: Federation, experiment: Experiment) -> list[str]:
    """What a person should know of strategy and codec before they are run: a sentence each.

    Raises:
        RunError: the strategy's `caution` failed.
    """
    strategy, resolved = experiment.strategy, experiment.resolved()
    said = [_ALL] if needs_all(strategy) else []
    with naming(strategy, "caution"):
        said.append(caution(strategy, experiment.fastest or experiment.per_round))
    found = [f"{resolved['strategy']} {one}" for one in said if one]
    return [*found, *(f"{resolved['codec']} {one}" for one in _idle(federation, experiment))]


def _idle(federation: Federation, experiment: Experiment) -> list[str]:
    """Where the codec does less than one might think, since a site sends one sum."""
    codec = experiment.codec
    summing = [] if isinstance(codec, Raw) else [s for s in federation.sites if s.merges()]
    ranks = [site.name for site in summing if site.executor.kind == "mpi"]
    others = [site.name for site in summing if site.executor.kind != "mpi"]
    found = [_SUMS.format(", ".join(others))] if others else []
    if ranks and not isinstance(codec, str):  # "auto" leaves ranks the mildest
        found.append(_RANKS.format(", ".join(ranks)))
    return found


def _numbers(federation: Federation, experiment: Experiment) -> dict[str, str]:
    """Clients of a round, and where it is evaluated."""
    found: dict[str, str] = {}
    clients = sum(site.clients for site in federation.sites)
    chosen, fastest = experiment.per_round, experiment.fastest
    quorum = experiment.quorum or -(-chosen // 2)
    places = [*(site.name for site in federation.sites), "driver"]
    if chosen > clients:
        found["per_round"] = (
            f"{chosen} clients a round, but the federation has {clients}: choose fewer or give it more"
        )
    if quorum > chosen:
        found["quorum"] = f"{quorum} updates needed, but only {chosen} clients train in a round"
    if fastest is not None and fastest > chosen:
        found["fastest"] = f"{fastest} updates would close a round, but only {chosen} clients train in it"
    elif fastest is not None and fastest < quorum:
        half = "" if experiment.quorum else ", half of per_round: set quorum too"
        found["fastest"] = f"{fastest} updates close a round, but its quorum is {quorum}{half}"
    place = experiment.evaluate_on
    if place is not None and place not in places:
        found["evaluate_on"] = f"no site is called {place!r}{specs.hint(place, places)}"
    return found


def _state(federation: Federation, experiment: Experiment) -> dict[str, str]:
    """What clients keep needs a folder at their site."""
    homeless = [s.name for s in federation.sites if s.state is None and s.transport.kind != "file"]
    fields = experiment.keepers() if homeless else []
    return {field: _homeless(field, experiment.resolved(), homeless[0]) for field in fields}


def _homeless(field: str, experiment: Mapping[str, Any], site: str) -> str:
    """Why `field` cannot be had, for want of a folder at `site`."""
    return (
        f"{_kept(field, experiment)} is kept at each client's site, and {site} has no place for it: "
        f"--set sites.{site}.state=FOLDER (one that outlives its workers)"
        f"{_UNFED if field == 'error_feedback' else ''}"
    )


def _kept(field: str, experiment: Mapping[str, Any]) -> str:
    """What `field` asks to be kept, in words."""
    if field == "error_feedback":
        return f"what {experiment['codec']} leaves out"
    return f"the state of {experiment[field]}"


def _steering(experiment: Experiment) -> dict[str, str]:
    """A strategy that steers training needs a model that can be steered."""
    model, strategy = experiment.model, experiment.strategy
    if not isinstance(strategy, ClientSide) or "guide" in inspect.signature(model.train).parameters:
        return {}
    who = type(strategy).__name__
    return {
        "model": (
            f"{type(model).__name__}.train takes no `guide`, which {who} steers it by: see protocols.Model"
        )
    }


def _merging(federation: Federation, experiment: Experiment) -> dict[str, str]:
    """A site that sends one sum hides its updates."""
    merging = [site for site in federation.sites if site.merges()]
    if not merging or not isinstance(experiment.strategy, NeedsAll):
        return {}
    ranks = [site.name for site in merging if site.executor.kind == "mpi"]
    name = ranks[0] if ranks else merging[0].name
    cure = (
        "an mpi site can do no other:" if ranks else f"let the driver merge (sites.{name}.merge=driver), or"
    )
    return {
        "strategy": (
            f"{experiment.resolved()['strategy']} must see every update, and {name} would send only "
            f"their sum: {cure} choose a strategy that averages"
        )
    }


def _together(federation: Federation, experiment: Experiment) -> dict[str, str]:
    """Ranks that train one client together keep nothing for it, and need a torch model."""
    together = [s.name for s in federation.sites if getattr(s.executor, "split", "") == "batches"]
    if not together:
        return {}
    cure = f"--set sites.{together[0]}.executor.split=clients"
    resolved = experiment.resolved()
    found = {
        field: (
            f"{_kept(field, resolved)} is kept at each client's site, but not by ranks that train a client "
            f"together: {cure}{_UNFED if field == 'error_feedback' else ''}"
        )
        for field in experiment.keepers()
    }
    if not isinstance(experiment.model, TorchModel):
        found["model"] = (
            f"{resolved['model']} is no torch model, and only those can be trained by all ranks together: "
            f"{cure}"
        )
    return found


def _dropout(federation: Federation, experiment: Experiment) -> dict[str, str]:
    """Parts of a model are averaged number by number, by the driver."""
    if not experiment.federated_dropout:
        return {}
    strategy, resolved = experiment.strategy, experiment.resolved()
    merging = [site.name for site in federation.sites if site.merges()]
    if not getattr(experiment.model, "shrinks", False):
        why = f"{resolved['model']} has no hidden units that a client could leave out: choose another model"
    elif isinstance(strategy, NeedsAll | ClientSide | Scaled):
        why = f"{resolved['strategy']} needs updates of the whole model: choose a strategy that averages"
    elif merging:
        why = f"{merging[0]} would send one sum for all its clients: let the driver merge"
    else:
        return {}
    return {"federated_dropout": f"{why}, or leave federated_dropout out"}
