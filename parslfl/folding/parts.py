"""Updates of a part of the model, on the driver: opened, checked, and added where they belong.

Does not know: how parts are chosen, or what any codec writes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from parslfl import submodel
from parslfl.codecs.pieces import opened
from parslfl.params import Params, wide
from parslfl.protocols import Codec, Delta
from parslfl.submodel import Kept


@dataclass(frozen=True)
class Part:
    """An update of the part `kept` of a model; `like`: shapes and dtypes of its arrays."""

    delta: Delta
    kept: Kept
    like: Params

    def norm(self) -> float:
        return self.delta.norm()

    def add(self, total: Params, weight: float) -> None:
        small = {name: np.zeros(array.shape, array.dtype) for name, array in wide(self.like).items()}
        self.delta.add(small, weight)
        submodel.scatter(total, small, self.kept)


def open_any(codec: Codec, arrays: Params, note: Mapping[str, Any], like: Params) -> Delta:
    """What `codec` decodes, of the whole of a model like `like` or of the part that `note` tells.

    Raises:
        PayloadError: it cannot be an update for such a model.
    """
    if submodel.KEY not in note:
        return opened(codec, arrays, note, like)
    kept = submodel.read(note[submodel.KEY], like)
    small = submodel.shapes(like, kept)
    rest = {key: value for key, value in note.items() if key != submodel.KEY}
    return Part(opened(codec, arrays, rest, small), kept, small)


def kept_of(delta: Delta) -> Kept:
    """Which part of the model `delta` is of; empty for the whole."""
    return delta.kept if isinstance(delta, Part) else {}
