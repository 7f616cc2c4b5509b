"""A random part of an update, of which only the numbers are sent: the places follow from a seed.

Stich et al. 2018, "Sparsified SGD with Memory" (random-k). The places are drawn one from each of k
equal strata instead of all at once: as fair to every place, in order, and in time k.

Does not know: what becomes of the numbers that are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from parslfl.codecs.indices import Places
from parslfl.codecs.layout import count, fingerprint, flats, require_arrays, require_layout, stand_in
from parslfl.codecs.sparse import Floats, Sparse
from parslfl.codecs.topk import kept, require_ratio, scattered
from parslfl.params import Array, Params, size, trained
from parslfl.seeding import words


@dataclass(frozen=True)
class RandomK:
    """Sends the `ratio` of all numbers, at least one. `unbiased` divides each by its chance to be
    sent, so that the mean of many updates is right without error feedback."""

    ratio: float = 0.1
    unbiased: bool = False
    rank: ClassVar[int] = 0

    def __post_init__(self) -> None:
        require_ratio(self.ratio)

    @property
    def biased(self) -> bool:
        return not self.unbiased

    def encode(self, delta: Params, seed: int = 0) -> tuple[Params, dict[str, Any]]:
        vectors = flats(delta)
        places, widths = drawn(seed, kept(self.ratio, sum(v.size for v in vectors)), size(trained(delta)))
        values = _picked(vectors, places)
        if self.unbiased:
            values *= widths.astype(np.float32)
        return {"values": values}, {"layout": fingerprint(delta), "seed": seed}

    def decode(self, arrays: Params, note: Mapping[str, Any], like: Params) -> Params:
        return scattered(self.open(arrays, note, like), like)

    def open(self, arrays: Params, note: Mapping[str, Any], like: Params) -> Sparse:
        require_layout(note, like)
        wanted = self.declared(note, like)
        require_arrays(arrays, wanted)
        places, _ = drawn(count(note, "seed", 2**63 - 1), wanted["values"].size, size(trained(like)))
        return Sparse(places, arrays["values"])

    def declared(self, note: Mapping[str, Any], like: Params) -> Params:
        return {"values": stand_in("<f4", kept(self.ratio, size(trained(like))))}


def drawn(seed: int, most: int, total: int) -> tuple[Places, Places]:
    """One place from each of `most` strata of `total` places, and the widths of the strata.

    Whole numbers only, from raw words: the same on every machine and in every version of numpy.
    """
    edges = np.arange(most + 1, dtype=np.int64)  # in place from here on: the driver holds little memory
    edges *= total
    edges //= max(1, most)
    widths = np.diff(edges)
    raw = words(seed).random_raw(most)
    raw >>= np.uint64(11)  # 53 bits: no width leaves a bias that shows
    places = raw.view(np.int64)
    places %= widths  # at least 1: there are no more places than numbers
    places += edges[:-1]
    return places, widths


def _picked(vectors: list[Array], places: Places) -> Floats:
    edges = np.cumsum([0, *(vector.size for vector in vectors)])
    cuts = np.searchsorted(places, edges)
    parts = [
        vector[places[first:last] - edge].astype(np.float32)
        for vector, edge, first, last in zip(vectors, edges, cuts, cuts[1:], strict=False)
    ]
    return np.concatenate([np.empty(0, np.float32), *parts])
