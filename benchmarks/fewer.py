"""A partition of which every client holds only a part: a cut that keeps the split as it is.

In a module of its own, because workers import it by name.

Does not know: which partition it cuts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from parslfl.protocols import Labels, Partition
from parslfl.seeding import generator


@dataclass(frozen=True)
class Fewer:
    """`partition`, with `share` of each client's examples, at least one, drawn at random."""

    partition: Partition
    share: float

    def split(self, labels: Labels, clients: int, seed: int) -> list[npt.NDArray[np.int64]]:
        parts = self.partition.split(labels, clients, seed)
        return [self._some(part, seed, client) for client, part in enumerate(parts)]

    def _some(self, part: npt.NDArray[np.int64], seed: int, client: int) -> npt.NDArray[np.int64]:
        kept = max(1, round(self.share * len(part)))
        return np.sort(generator(seed, "fewer", client).permutation(part)[:kept])
