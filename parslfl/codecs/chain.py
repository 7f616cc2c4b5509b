"""Codecs one after the other: `topk:ratio=0.05+quantize:bits=4+zstd`.

Each works on the arrays that the one before it made. Decoding goes backwards; what each one must
find follows from the model and from the notes of those before it, so every size is known before
anything is allocated.

Does not know: what any codec does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from itertools import accumulate, pairwise
from typing import Any, Protocol

from parslfl.codecs.layout import fingerprint
from parslfl.errors import PayloadError
from parslfl.params import Params, nbytes
from parslfl.protocols import Delta
from parslfl.seeding import derive


class Stage(Protocol):
    """A codec that can be part of a chain.

    `rank`: 0 chooses numbers, 1 shortens numbers, 2 packs bytes. `biased`: what it leaves out does
    not average out. `declared`: stand-ins for the arrays that `encode` made with this note from
    arrays like `like`; PayloadError if the note cannot be of them. `hand` and `most`: as `protocols.Codec`
    says, for arrays like `like`.
    """

    @property
    def rank(self) -> int: ...
    @property
    def biased(self) -> bool: ...
    def encode(self, delta: Params, seed: int = 0) -> tuple[Params, dict[str, Any]]: ...
    def decode(self, arrays: Params, note: Mapping[str, Any], like: Params) -> Params: ...
    def open(self, arrays: Params, note: Mapping[str, Any], like: Params) -> Delta: ...
    def declared(self, note: Mapping[str, Any], like: Params) -> Params: ...
    def hand(self, like: Params) -> int: ...
    def most(self, like: Params) -> Params: ...


@dataclass(frozen=True)
class Chain:
    """`stages` in order: at most one that chooses, one that shortens, one that packs."""

    stages: tuple[Stage, ...]

    def __post_init__(self) -> None:
        ranks = [int(getattr(stage, "rank", -1)) for stage in self.stages]
        if -1 in ranks or any(a >= b for a, b in pairwise(ranks)):
            raise ValueError(
                "codecs are joined in this order, at most one of each kind: "
                "topk, randomk or lowrank, then quantize, fp16 or bf16, then zstd; raw stands alone"
            )

    @property
    def biased(self) -> bool:
        return any(stage.biased for stage in self.stages)

    def encode(self, delta: Params, seed: int = 0) -> tuple[Params, dict[str, Any]]:
        notes: list[dict[str, Any]] = []
        arrays = delta
        for number, stage in enumerate(self.stages):
            arrays, note = stage.encode(arrays, derive(seed, "codec", number))
            notes.append({key: value for key, value in note.items() if key != "layout"})
        return arrays, {"layout": fingerprint(delta), "stages": notes}

    def decode(self, arrays: Params, note: Mapping[str, Any], like: Params) -> Params:
        first, told = self._unwound(arrays, note, like)
        return self.stages[0].decode(first, told, like)

    def open(self, arrays: Params, note: Mapping[str, Any], like: Params) -> Delta:
        first, told = self._unwound(arrays, note, like)
        return self.stages[0].open(first, told, like)

    def hand(self, like: Params) -> int:
        """What the first stage takes, what that is given, and what it is made of: all at once at most."""
        _, *made = accumulate(self.stages[:-1], lambda given, stage: stage.most(given), initial=like)
        return self.stages[0].hand(like) + sum(map(nbytes, made))

    def most(self, like: Params) -> Params:
        return reduce(lambda given, stage: stage.most(given), self.stages, like)

    def _unwound(
        self, arrays: Params, note: Mapping[str, Any], like: Params
    ) -> tuple[Params, Mapping[str, Any]]:
        """What the first stage made, and its note."""
        notes = note.get("stages")
        if not isinstance(notes, list) or [type(n) for n in notes] != [dict] * len(self.stages):
            raise PayloadError(f"its note does not describe {len(self.stages)} codecs")
        steps = list(self._steps(notes, like))
        for stage, told, wanted in reversed(steps[1:]):
            arrays = stage.decode(arrays, told, wanted)
        return arrays, {**steps[0][1], "layout": note.get("layout")}

    def _steps(
        self, notes: list[dict[str, Any]], like: Params
    ) -> Iterator[tuple[Stage, dict[str, Any], Params]]:
        """Each stage with its note, and with what its `encode` was given."""
        for number, (stage, note) in enumerate(zip(self.stages, notes, strict=True)):
            yield stage, {**note, "layout": fingerprint(like)}, like
            if number + 1 < len(self.stages):
                like = stage.declared(note, like)
