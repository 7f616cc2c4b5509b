"""How training examples are divided among clients, from even to very uneven.

Pure functions of (labels, clients, seed): every worker computes the whole split and keeps its own
part, so no list of indices ever travels. Machines of one run need the same numpy, whose random
streams may change between releases.

Does not know: images, folders, sites.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from parslfl.errors import DataError
from parslfl.protocols import Labels
from parslfl.seeding import generator

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Iid:
    """Every client holds equally many examples (within one), drawn at random."""

    def split(self, labels: Labels, clients: int, seed: int) -> list[Indices]:
        _check(labels, clients)
        order = generator(seed, "iid").permutation(len(labels))
        return [np.sort(part) for part in np.array_split(order, clients)]


@dataclass(frozen=True)
class Classes:
    """Every client holds exactly `k` classes; every class has equally many holders (within one).

    The holders of a class share its examples equally (within one). With fewer than
    classes / k clients some classes have no holder, and their examples are left out.

    Source: the pathological split of B. McMahan et al., Communication-Efficient Learning of Deep
    Networks from Decentralized Data, AISTATS 2017, section 3, with the classes counted, not shards.
    """

    k: int = 2

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"k is {self.k}, must be at least 1")

    def split(self, labels: Labels, clients: int, seed: int) -> list[Indices]:
        _check(labels, clients)
        kinds = np.unique(labels)
        if self.k > len(kinds):
            raise DataError(
                f"classes:k={self.k}, but the data has only {len(kinds)} classes: use a smaller k"
            )
        random = generator(seed, "classes")
        holds = self._deal(len(kinds), clients, random)
        owner = np.full(len(labels), -1)
        for column in np.flatnonzero(holds.any(axis=0)):
            kind, holders = kinds[column], np.flatnonzero(holds[:, column])
            members = random.permutation(np.flatnonzero(labels == kind))
            if len(holders) > len(members):
                raise DataError(
                    f"class {kind} has {len(members)} examples for the {len(holders)} clients that hold it: "
                    "use fewer clients, a smaller k or a larger data set"
                )
            owner[members] = np.resize(holders, len(members))  # one example each in turn
        return _parts(owner, clients)

    def _deal(self, kinds: int, clients: int, random: np.random.Generator) -> npt.NDArray[np.bool_]:
        """(clients, kinds) who holds what: each client takes the `k` least held classes, ties at random."""
        holds = np.zeros((clients, kinds), bool)
        holders = np.zeros(kinds, int)
        for client in range(clients):
            chosen = np.lexsort((random.random(kinds), holders))[: self.k]
            holds[client, chosen] = True
            holders[chosen] += 1
        return holds


@dataclass(frozen=True)
class Dirichlet:
    """Each class is divided among the clients in proportions drawn from Dirichlet(`alpha`).

    Small `alpha`: few clients hold most of a class; large: all hold alike. A client that drew
    nothing gets one example of the client that then has the most, so that none is empty.

    Source: M. Yurochkin et al., Bayesian Nonparametric Federated Learning of Neural Networks, ICML
    2019, section 4 (and Q. Li et al., NIID-Bench, ICDE 2022, who redraw until no client is too
    small; the loan made here always ends). T.-M. H. Hsu et al., arXiv:1909.06335, 2019, draw the
    classes' proportions per client instead.
    """

    alpha: float = 0.1

    def __post_init__(self) -> None:
        _check_alpha(self.alpha)

    def split(self, labels: Labels, clients: int, seed: int) -> list[Indices]:
        _check(labels, clients)
        random = generator(seed, "dirichlet")
        owner = np.empty(len(labels), np.int64)
        for kind in np.unique(labels):
            members = random.permutation(np.flatnonzero(labels == kind))
            owner[members] = np.repeat(np.arange(clients), _counts(len(members), clients, self.alpha, random))
        _fill_empty(owner, clients)
        return _parts(owner, clients)


@dataclass(frozen=True)
class Quantity:
    """Clients hold all classes alike but differ in size: proportions drawn from Dirichlet(`alpha`).

    One example is set aside for every client first, so that none is empty.

    Source: Q. Li et al., Federated Learning on Non-IID Data Silos, ICDE 2022, "quantity skew".
    """

    alpha: float = 0.5

    def __post_init__(self) -> None:
        _check_alpha(self.alpha)

    def split(self, labels: Labels, clients: int, seed: int) -> list[Indices]:
        _check(labels, clients)
        random = generator(seed, "quantity")
        sizes = 1 + _counts(len(labels) - clients, clients, self.alpha, random)
        order = random.permutation(len(labels))
        return [np.sort(part) for part in np.split(order, np.cumsum(sizes)[:-1])]


def holdings(labels: Labels, parts: Sequence[Indices], classes: int) -> npt.NDArray[np.int64]:
    """How many examples of each class each client holds: int64 (clients, classes)."""
    return np.array([np.bincount(labels[part], minlength=classes) for part in parts], np.int64)


def _check(labels: Labels, clients: int) -> None:
    if clients < 1:
        raise DataError(f"cannot divide the data among {clients} clients: there must be at least 1")
    if clients > len(labels):
        raise DataError(
            f"cannot divide {len(labels)} examples among {clients} clients: "
            f"use at most {len(labels)} clients or a larger data set"
        )


def _check_alpha(alpha: float) -> None:
    if not 0 < alpha < np.inf:
        raise ValueError(f"alpha is {alpha}, must be more than 0")


def _counts(total: int, clients: int, alpha: float, random: np.random.Generator) -> npt.NDArray[np.int64]:
    """`total` in whole parts, in proportions from Dirichlet(alpha): int64 (clients,)."""
    ends = np.rint(total * np.cumsum(random.dirichlet(np.full(clients, alpha)))).astype(np.int64)
    ends[-1] = total  # the proportions add up to 1 but for rounding
    return np.diff(ends, prepend=0)


def _fill_empty(owner: Indices, clients: int) -> None:
    sizes = np.bincount(owner, minlength=clients)
    for client in np.flatnonzero(sizes == 0):
        giver = int(np.argmax(sizes))
        owner[np.flatnonzero(owner == giver)[-1]] = client
        sizes[giver] -= 1
        sizes[client] = 1


def _parts(owner: Indices, clients: int) -> list[Indices]:
    """The sorted indices that each client owns; -1 means that nobody does."""
    order = np.argsort(owner, kind="stable")
    ends = np.cumsum(np.bincount(owner + 1, minlength=clients + 1))
    return np.split(order, ends[:-1])[1:]
