"""The codecs that `--codec auto` chooses from, from the mildest to the strongest.

Does not know: who chooses, or how.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from parslfl import specs
from parslfl.codecs.chain import Chain
from parslfl.codecs.names import CODECS
from parslfl.protocols import Codec

#: Spec, and about how many bytes it leaves of each byte of an update: a little more than of ResNet-18 after 8
#: steps on CIFAR-10 (`benchmarks/codec_speed.py`); of lowrank, than its fields say. A run soon has its own.
_RUNGS: tuple[tuple[str, float], ...] = (
    ("raw", 1.0),
    ("fp16", 0.5),
    ("quantize:bits=8,block=0+zstd", 0.16),
    ("quantize:bits=4+zstd", 0.09),
    ("lowrank:ratio=0.15+quantize:bits=4,block=64+zstd", 0.025),
    ("lowrank:ratio=0.05+quantize:bits=4,block=64+zstd", 0.008),
)
#: Which of them a client begins with, before anything is known of it: its error is hardly seen.
FIRST = 2


def rungs(biased: bool) -> list[tuple[Codec, str, float]]:
    """Each codec with its spec and the bytes that it leaves of each byte; not `biased`: only those whose
    error averages out."""
    join: Callable[[tuple[Any, ...]], Any] = Chain
    codecs = [(specs.parse_chain(text, CODECS, "codec", join), share) for text, share in _RUNGS]
    usable = [(codec, share) for codec, share in codecs if biased or not getattr(codec, "biased", False)]
    return [(codec, specs.render(codec, CODECS), share) for codec, share in usable]
