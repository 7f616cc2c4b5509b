"""Only the largest numbers of an update: top-k over the whole model.

Aji & Heafield 2017, "Sparse Communication for Distributed Gradient Descent"; what is left out must
come later for training to converge: Stich et al. 2018, "Sparsified SGD with Memory" (error feedback).

Does not know: what becomes of the numbers that are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from parslfl.codecs import indices
from parslfl.codecs.compiled import compiled
from parslfl.codecs.indices import Marks, Places
from parslfl.codecs.layout import count, fingerprint, flats, require_arrays, require_layout, stand_in
from parslfl.codecs.packing import packed_size
from parslfl.codecs.pieces import Blocks, chosen, fill
from parslfl.codecs.sparse import Floats, Gapped, Sparse
from parslfl.params import BLOCK, Array, Params, size, trained

#: Numbers looked at to guess the threshold; models with fewer are looked at as a whole.
_SAMPLE = 1 << 16
#: Up to one number in so many, their places take less memory than all magnitudes do, and half the time.
_FEW = 5


@dataclass(frozen=True)
class TopK:
    """Sends the `ratio` of all numbers that is largest in magnitude, at least one; of equal ones
    the first. Zeros are never sent."""

    ratio: float = 0.01
    rank: ClassVar[int] = 0
    biased: ClassVar[bool] = True
    brief: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require_ratio(self.ratio)

    def encode(self, delta: Params, seed: int = 0) -> tuple[Params, dict[str, Any]]:
        vectors = flats(delta)
        total = sum(vector.size for vector in vectors)
        most = kept(self.ratio, total)
        found = _few_largest(vectors, most, total) if most <= total // _FEW else None
        if found:
            places, values = found
            data, note = indices.write(places, total)
        else:
            marks, values = _many_largest(vectors, most, total)
            data, note = indices.write_marked(marks)
        return {"values": values, "places": data}, {"layout": fingerprint(delta), **note}

    def decode(self, arrays: Params, note: Mapping[str, Any], like: Params) -> Params:
        return scattered(self.open(arrays, note, like), like)

    def open(self, arrays: Params, note: Mapping[str, Any], like: Params) -> Sparse | Gapped | Blocks:
        require_layout(note, like)
        total = size(trained(like))
        require_arrays(arrays, self._declared(note, total))
        places, values = arrays["places"], arrays["values"]
        if "shift" not in note:
            return chosen(indices.marked(places, note, total).within, values, like, places)
        if loops := compiled(values.size):
            return Gapped(indices.checked(places, note, total, loops), values, loops)
        return Sparse(indices.read(places, note, total), values)

    def declared(self, note: Mapping[str, Any], like: Params) -> Params:
        return self._declared(note, size(trained(like)))

    def hand(self, like: Params) -> int:
        """Eight bytes a place and four to find it: of more places than bytes of bits, these are read."""
        total = size(trained(like))
        return 12 * min(kept(self.ratio, total), packed_size(total, 1))

    def most(self, like: Params) -> Params:
        total = size(trained(like))
        return {
            "values": stand_in("<f4", kept(self.ratio, total)),
            "places": stand_in("u1", packed_size(total, 1)),
        }

    def _declared(self, note: Mapping[str, Any], total: int) -> Params:
        count(note, "kept", kept(self.ratio, total))
        values, places = indices.declared(note, total)
        return {"values": stand_in("<f4", values), "places": stand_in("u1", places)}


def require_ratio(ratio: float) -> None:
    """Check that a codec can send this share of an update.

    Raises:
        ValueError: it cannot.
    """
    if not 0 < ratio <= 1:
        raise ValueError(f"ratio must be above 0 and at most 1, got {ratio}")


def kept(ratio: float, total: int) -> int:
    """How many of `total` numbers are sent."""
    return min(total, max(1, round(ratio * total)))


def scattered(sparse: Sparse | Gapped | Blocks, like: Params) -> Params:
    """`sparse` as arrays like the trained ones of `like`."""
    if isinstance(sparse, Blocks):
        return fill(sparse.read, like, {})
    made = {name: np.zeros(array.shape, array.dtype) for name, array in trained(like).items()}
    sparse.add(made, 1.0)
    return made


def _few_largest(vectors: Sequence[Array], most: int, total: int) -> tuple[Places, Floats] | None:
    """Where the `most` numbers of largest magnitude are, in order, and the numbers; None where too many are
    as large.

    The threshold is guessed from a sample, a little too low; the few that pass it are compared.
    """
    guess = _threshold(vectors, most, total)
    while guess > 0 and (found := _above(vectors, guess, total // (_FEW - 1))):
        places, values = found
        if len(places) >= most:
            chosen = _first_of_largest(np.abs(values), most)
            del found
            places = places[chosen]  # in turn: the driver holds little memory
            return places, values[chosen]
        guess = guess / 4 if guess > 1e-30 else np.float32(0)
    return None


def _threshold(vectors: Sequence[Array], most: int, total: int) -> np.float32:
    """A magnitude that more than `most` numbers are above, very probably; 0 in small models."""
    stride = total // _SAMPLE
    if stride < 4:
        return np.float32(0)
    sample = np.abs(np.concatenate([vector[::stride] for vector in vectors]).astype(np.float32))
    share = most / total * sample.size
    rank = sample.size - int(share + 4 * share**0.5 + 8)
    return np.float32(np.partition(sample, rank)[rank]) if rank > 0 else np.float32(0)


def _above(vectors: Sequence[Array], threshold: np.float32, most: int) -> tuple[Places, Floats] | None:
    """The numbers whose magnitude is above `threshold`; None where these are more than `most`."""
    found, chosen, number, at = [np.empty(0, np.int64)], [np.empty(0, np.float32)], 0, 0
    mask = np.empty(BLOCK, np.bool_)
    for part, high in _parts(vectors):
        over = np.greater(high, threshold, out=mask[: part.size])
        places = np.flatnonzero(over)
        number += places.size
        if number > most:
            return None
        found.append(places + at)
        chosen.append(part[places])
        at += part.size
    places = np.concatenate(found)
    found.clear()
    return places, np.concatenate(chosen)


def _parts(vectors: Sequence[Array]) -> Iterator[tuple[Floats, Floats]]:
    """All numbers, a block at a time, and their magnitudes, which the next block's overwrite."""
    scratch = np.empty(BLOCK, np.float32)
    for vector in vectors:
        for start in range(0, vector.size, BLOCK):
            part = vector[start : start + BLOCK].astype(np.float32, copy=False)
            yield part, np.abs(part, out=scratch[: part.size])


def _first_of_largest(magnitudes: Floats, most: int) -> Places:
    """Where the `most` largest are, in order; of those equal to the smallest of them, the first."""
    cut = np.partition(magnitudes, len(magnitudes) - most)[len(magnitudes) - most]
    chosen = magnitudes > cut
    level = np.flatnonzero(magnitudes == cut)
    chosen[level[: most - int(chosen.sum())]] = True
    return np.flatnonzero(chosen)


def _many_largest(vectors: Sequence[Array], most: int, total: int) -> tuple[Marks, Floats]:
    """The same as marks, in memory for the magnitudes of all, and then for the marks and what is sent."""
    cut, room = _smallest_sent(vectors, most, total)
    marks, at, sent = np.empty(total, np.bool_), 0, 0
    values = np.empty(most, np.float32)
    for part, high in _parts(vectors):
        over = np.greater(high, cut, out=marks[at : at + part.size])
        if room:
            level = np.flatnonzero(high == cut)[:room]
            over[level] = True
            room -= level.size
        some = part[over]
        values[sent : sent + some.size] = some
        at, sent = at + part.size, sent + some.size
    values.resize(sent, refcheck=False)  # where zeros are left out, without a copy
    return marks, values


def _smallest_sent(vectors: Sequence[Array], most: int, total: int) -> tuple[np.float32, int]:
    """The smallest magnitude that is sent, and how many of it; 0 and none where all numbers are."""
    if sum(int(np.count_nonzero(vector)) for vector in vectors) <= most:  # equal ones take long to compare
        return np.float32(0), 0
    magnitudes, at = np.empty(total, np.float32), 0
    for _, high in _parts(vectors):
        magnitudes[at : at + high.size] = high
        at += high.size
    magnitudes.partition(total - most)
    cut = magnitudes[total - most]
    return cut, most - int(np.count_nonzero(magnitudes[total - most :] > cut)) if cut > 0 else 0
