"""Small whole numbers in few bits: 8, 4 or 2 a number, and any width for the low bits of indices.

Does not know: what the numbers stand for.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


def packed_size(numbers: int, bits: int) -> int:
    """Bytes that `numbers` numbers of `bits` bits take."""
    return -(-numbers * bits // 8)


def pack(codes: Bytes, bits: int) -> Bytes:
    """`codes`, each below 2**bits, several to a byte, the first in the lowest bits. bits: 8, 4 or 2."""
    if bits == 8:
        return codes
    each = 8 // bits
    if codes.size % each:
        codes = np.concatenate([codes, np.zeros(-codes.size % each, np.uint8)])
    groups = codes.view("<u2" if each == 2 else "<u4")
    made = groups.copy()
    for place in range(1, each):
        made |= groups >> (place * (8 - bits))
    return made.astype(np.uint8)


def unpack(packed: Bytes, bits: int, out: Floats) -> None:
    """Write the numbers in `packed`, less the middle code 2**(bits-1) - 1, into `out` as floats."""
    table, each = _floats(bits), 8 // bits
    whole = out.size // each
    np.take(table, packed[:whole], out=out[: whole * each].view(table.dtype), mode="clip")
    if whole < packed.size:
        rest = table[packed[whole:]].view(np.float32)
        out[whole * each :] = rest[: out.size - whole * each]


@lru_cache(maxsize=3)
def _floats(bits: int) -> npt.NDArray[Any]:
    """For each byte, the floats of the codes in it, as one element of a type of their size."""
    each, middle = 8 // bits, 2 ** (bits - 1) - 1
    byte = np.arange(256)[:, None]
    codes = (byte >> (bits * np.arange(each))) & (2**bits - 1)
    wide = {1: np.float32, 2: np.complex64, 4: np.complex128}[each]
    floats: Floats = (codes - middle).astype(np.float32)
    return floats.reshape(-1).view(wide)


def low_size(numbers: int, bits: int) -> int:
    """Bytes that the `bits` lowest bits of so many numbers take."""
    return bits * packed_size(numbers, 1)


def pack_low(numbers: npt.NDArray[np.int64], bits: int) -> Bytes:
    """The `bits` lowest bits of each number: first the lowest of all, eight to a byte, then the next."""
    planes = [
        np.packbits(((numbers >> place) & 1).astype(np.bool_), bitorder="little") for place in range(bits)
    ]
    return np.concatenate([np.empty(0, np.uint8), *planes])


def unpack_low(packed: Bytes, bits: int, start: int, end: int) -> npt.NDArray[np.uint32]:
    """What `pack_low` packed, from number `start`, a multiple of 8, to before `end`; `bits`: 32 at most."""
    made = np.zeros(end - start, np.uint32)
    for place, plane in enumerate(packed.reshape(bits, -1) if bits else ()):
        some = np.unpackbits(plane[start // 8 :], count=made.size, bitorder="little")
        made |= some.astype(np.uint32) << np.uint32(place)
    return made
