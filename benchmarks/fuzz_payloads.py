"""Mutated payloads against the driver's reading side: no crash, no hang, no memory beyond the limit.

    python benchmarks/fuzz_payloads.py [--count 1000000] [--seed 0] [--compiled]

Each mutation takes an honest payload of some codec and changes bits, lengths, header, note or arrays;
most get a right checksum again, and those of codecs with zstd are also changed inside the frame and
packed anew, so that every decoder is reached. The driver's own check then refuses the payload with a
reason, or takes it and adds it to a sum, which must stay finite. Anything else is a failure: another
exception, a reading that takes seconds, or an allocation for which the address space (what the
process had at the start and LIMIT more) is too small.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import random
import resource
import signal
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from parslfl import specs
from parslfl.codecs import compiled, wire
from parslfl.codecs.chain import Chain
from parslfl.codecs.names import CODECS
from parslfl.codecs.zstd import Zstd
from parslfl.errors import PayloadError
from parslfl.folding.receiving import open_update
from parslfl.messages import Client, Ref, Update
from parslfl.params import Params, checksum, trained, zeros_like
from parslfl.transport.inline import Inline

#: Bytes that reading a payload may take beyond what the process had; a header may have 16 MiB.
LIMIT = 128 << 20
#: Seconds after which a reading counts as a hang.
PATIENCE = 5
SPECS = (
    "raw", "fp16", "bf16", "zstd", "quantize", "quantize:bits=4,block=16", "quantize:bits=2+zstd",
    "topk:ratio=0.1", "topk:ratio=0.5", "topk:ratio=0.02+quantize:bits=4+zstd", "topk:ratio=0.2+fp16",
    "randomk:ratio=0.1", "randomk:ratio=0.3+bf16+zstd", "topk:ratio=0.05+zstd:level=3",
    "lowrank:ratio=0.2", "lowrank:ratio=0.2+quantize:bits=4,block=64+zstd",
)  # fmt: skip
CLIENT = Client(0, "here")
NASTY: tuple[object, ...] = (
    0, 1, -1, 2, 255, 256, 2**31, 2**48, 2**63, 2**64, 10**300, 0.5, -0.0, 1e308, math.nan, math.inf,
    None, True, "", "5", [], {}, [[]], {"a": 1}, "\x00", "w" * 1000,
)  # fmt: skip


@dataclass(frozen=True)
class Honest:
    """A payload as a client sends it: its codec, arrays, note and bytes."""

    codec: Any
    arrays: Params
    note: dict[str, Any]
    data: bytes


@dataclass
class Tally:
    """What came of the mutations."""

    refused: Counter[str]
    taken: int = 0
    slowest: float = 0.0


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--compiled", action="store_true", help="the loops that numba compiles for large models"
    )
    args = parser.parse_args()
    if args.compiled:
        compiled.FIRST = 0
    began = time.perf_counter()
    limit_memory()
    tally = run(args.count, args.seed)
    print(f"{args.count:,} mutated payloads in {time.perf_counter() - began:.0f} s, seed {args.seed}: "
          f"{sum(tally.refused.values()):,} refused, {tally.taken:,} taken as valid; the slowest took "
          f"{1e3 * tally.slowest:.1f} ms")  # fmt: skip
    for reason, number in tally.refused.most_common(12):
        print(f"{number:10,} {reason}")
    return 0


def limit_memory() -> None:
    """Let this process have LIMIT bytes more than it has."""
    for text in SPECS:  # whatever is loaded or kept on first use is there by then
        receive(honest(text), honest(text).data)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + LIMIT
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def run(count: int, seed: int) -> Tally:
    """Read `count` mutated payloads.

    Raises:
        AssertionError: one of them did what none may do; the message says how to make it again.
    """
    sources, tally = [honest(text) for text in SPECS], Tally(Counter())
    signal.signal(signal.SIGALRM, _hang)
    for number in range(count):
        rng = random.Random(f"{seed}/{number}")  # noqa: S311 - no secret
        source = rng.choice(sources)
        data = mutated(source, rng)
        signal.setitimer(signal.ITIMER_REAL, PATIENCE)
        start = time.perf_counter()
        try:
            reason = receive(source, data)
        except BaseException as error:
            raise AssertionError(f"seed {seed}, number {number}: {type(error).__name__}: {error}") from error
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        tally.slowest = max(tally.slowest, time.perf_counter() - start)
        if reason:
            tally.refused[" ".join(reason.split()[:3])] += 1
        else:
            tally.taken += 1
    return tally


def model() -> Params:
    """Arrays of several shapes and kinds; 441 numbers are trained."""
    rng = np.random.default_rng(0)
    return {
        "w": rng.normal(size=(20, 20)).astype(np.float32),
        "empty": np.zeros((0, 3), np.float32),
        "wide": rng.normal(size=40),
        "one": np.ones((), np.float32),
        "steps": np.array(3),
    }


def honest(text: str) -> Honest:
    """What a client with this codec sends."""
    codec: Any = specs.parse_chain(text, CODECS, "codec", Chain)  # type: ignore[arg-type]
    arrays, note = codec.encode(trained(model()), 1)
    return Honest(codec, arrays, note, b"".join(wire.pack(arrays, note).buffers))


def receive(source: Honest, data: bytes) -> str:
    """Why the driver refuses `data`, or "" if it takes it."""
    digest = format(struct.unpack("<Q", data[8:16])[0], "016x") if len(data) >= 16 else ""
    update = Update(CLIENT, 0, Ref(len(data), digest, data=data), 1, 1, 1, 0.0, 0.0, 0)
    like = model()
    try:
        found, _ = open_update(update, Inline(), source.codec, like)
    except PayloadError as error:
        if str(error).startswith("cannot be decoded"):
            raise AssertionError(str(error)) from error
        return str(error)
    total = zeros_like(trained(like))
    found.add(total, 900.0)
    assert all(np.isfinite(array).all() for array in total.values()), "the sum is not finite"
    return ""


def mutated(source: Honest, rng: random.Random) -> bytes:
    """Other bytes than `source` has, most of them with a right checksum."""
    ways: list[Callable[[Honest, random.Random], bytes]] = [_bytes, _bytes, _header, _note, _contents, _frame]
    data = rng.choice(ways)(source, rng)
    return _signed(data) if rng.random() < 0.9 else data


def _signed(data: bytes) -> bytes:
    """`data` with the checksum that fits it."""
    if len(data) < 16:
        return data
    return data[:8] + struct.pack("<Q", int(checksum([data[16:]]), 16)) + data[16:]


def _bytes(source: Honest, rng: random.Random) -> bytes:
    """Flipped, cut, doubled, lost or added bytes anywhere."""
    data = bytearray(source.data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        at, end = rng.randrange(len(data) + 1), rng.randrange(len(data) + 1)
        if rng.random() < 0.6 and at < len(data):
            data[at] = rng.choice((data[at] ^ (1 << rng.randrange(8)), rng.randrange(256), 0, 255))
        elif rng.random() < 0.5:
            del data[at : at + rng.choice((1, 64, 10_000))]
        else:
            data[at:at] = data[at:end] if rng.random() < 0.5 else rng.randbytes(rng.choice((1, 4, 64)))
    return bytes(data)


def _header(source: Honest, rng: random.Random) -> bytes:
    """A header that declares other arrays than follow."""
    (length,) = struct.unpack("<I", source.data[4:8])
    header = json.loads(source.data[16 : 16 + length])
    for _ in range(rng.choice((1, 2))):
        _spoil(header, rng)
    text = json.dumps(header).encode()
    text += b" " * (-(len(text) + 16) % 64)
    return struct.pack("<4sIQ", b"PFL1", len(text), 0) + text + source.data[16 + length :]


def _note(source: Honest, rng: random.Random) -> bytes:
    """Right arrays, wrong note."""
    note = copy.deepcopy(source.note)
    holder = {"note": note}
    _spoil(holder, rng)
    kept = holder.get("note")
    return b"".join(wire.pack(source.arrays, kept if isinstance(kept, dict) else {}).buffers)


def _contents(source: Honest, rng: random.Random) -> bytes:
    """Arrays of other sizes, kinds or contents, framed as they should be."""
    return b"".join(wire.pack(_altered(source.arrays, rng), source.note).buffers)


def _frame(source: Honest, rng: random.Random) -> bytes:
    """What is inside a zstd frame changed, and packed anew; a bomb; else as `_contents`."""
    stages = getattr(source.codec, "stages", (source.codec,))
    if not isinstance(stages[-1], Zstd):
        return _contents(source, rng)
    import zstandard

    inner = zstandard.ZstdDecompressor().decompress(source.arrays["zstd"].tobytes())
    changed = bytearray(inner)
    for _ in range(rng.choice((1, 4, 40))):
        if changed:
            changed[rng.randrange(len(changed))] = rng.choice((0, 255, rng.randrange(256)))
    packed = zstandard.ZstdCompressor(level=1).compress(bytes(changed))
    if rng.random() < 0.1:
        packed = BOMBS[rng.randrange(len(BOMBS))]
    return b"".join(wire.pack({"zstd": np.frombuffer(packed, np.uint8)}, source.note).buffers)


def _altered(arrays: Params, rng: random.Random) -> Params:
    made = dict(arrays)
    name = rng.choice(list(made))
    array = made[name].copy()
    way = rng.randrange(5)
    if way == 0 and array.nbytes:
        flat = array.reshape(-1).view(np.uint8)
        for _ in range(rng.choice((1, 3, 30))):
            flat[rng.randrange(flat.size)] = rng.choice((0, 127, 128, 255, rng.randrange(256)))
        made[name] = array
    elif way == 1:
        made[name] = np.resize(array, rng.choice((0, 1, array.size + 1, 1000)))
    elif way == 2:
        made[name] = array.astype(rng.choice(("u1", "i8", "f8", "f2", "?")), casting="unsafe")
    elif way == 3:
        del made[name]
    else:
        made[rng.choice(("w", "values", "places", "codes", "steps", "zstd", "floats"))] = array
    return made


def _spoil(tree: Any, rng: random.Random) -> None:
    """Change one place somewhere in a JSON value."""
    while isinstance(tree, dict | list) and tree:
        key = rng.choice(list(tree) if isinstance(tree, dict) else range(len(tree)))
        if not isinstance(tree[key], dict | list) or not tree[key] or rng.random() < 0.15:
            if rng.random() < 0.1:
                del tree[key]
            else:
                tree[key] = copy.deepcopy(rng.choice(NASTY))
            return
        tree = tree[key]


def _bombs() -> tuple[bytes, ...]:
    """Frames that declare a gigabyte, or the right size and hold more."""
    import zstandard

    large = zstandard.ZstdCompressor().compress(bytes(1 << 28))
    nameless = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(1 << 24))
    return large, nameless, large + large


BOMBS = _bombs()


def _hang(_number: int, _frame: object) -> None:
    raise TimeoutError(f"a payload takes longer than {PATIENCE} s")


if __name__ == "__main__":
    np.seterr(all="ignore")
    sys.exit(main())
