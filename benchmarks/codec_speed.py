"""How fast the codecs are, and how few bytes they make: MB/s of raw update in and out, one core.

    python benchmarks/codec_speed.py [--seed 0] [--turns 5] [--steps 8] [--numpy]

The update is what some steps of SGD on real images make of ResNet-18 (11.2 M parameters): CIFAR-10
where it is found (PARSLFL_DATA), else made-up images. Everything runs in turn in one process; the
best of the turns is printed, because other work on the machine only ever adds to a time. Beside it: a
memory copy, a checksum and zstd alone on the same bytes. "in" is encoding and framing, "out" is
unframing and decoding to arrays, "fold" is checking and adding to a running sum as the driver does,
with how many times faster than with raw updates; some of its loops are compiled where numba is installed,
but not with --numpy. "error feedback" is what it adds to "in": reading
the residual, adding it, and saving what is left.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from parslfl import specs
from parslfl.codecs import compiled, wire
from parslfl.codecs.chain import Chain
from parslfl.codecs.names import CODECS
from parslfl.codecs.pieces import opened
from parslfl.codecs.topk import TopK
from parslfl.data.cifar10 import Cifar10
from parslfl.data.synthetic import Synthetic
from parslfl.folding.desk import Desk
from parslfl.keep import ClientStore
from parslfl.learning import LocalWork, Samples
from parslfl.messages import Client
from parslfl.models.resnet import ResNet18
from parslfl.params import Params, checksum, fold, nbytes, size, squared_norm, subtract, trained

#: What the README and the issue speak of: recommended last.
SPECS = (
    "raw", "fp16", "bf16", "zstd", "zstd:level=1", "quantize:bits=8", "quantize:bits=8,block=0+zstd",
    "quantize:bits=4+zstd", "quantize:bits=2,block=64+zstd", "randomk:ratio=0.01", "topk:ratio=0.01",
    "topk:ratio=0.01+quantize:bits=8+zstd", "topk:ratio=0.05+quantize:bits=4+zstd",
    "lowrank:ratio=0.15+quantize:bits=4,block=64+zstd",
)  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--steps", type=int, default=8, help="steps of SGD, 32 images each")
    parser.add_argument("--codec", action="append", help="only this spec; may be repeated")
    parser.add_argument("--numpy", action="store_true", help="as if numba were not installed")
    args = parser.parse_args()
    compiled.FIRST = sys.maxsize if args.numpy else 0
    delta = update(args.seed, args.steps)
    print(f"{size(delta):,} parameters in {len(delta)} arrays, {nbytes(delta) / 1e6:.1f} MB; norm "
          f"{math.sqrt(squared_norm(delta)):.3g}; load of the machine {os.getloadavg()[0]:.1f}")  # fmt: skip
    jobs = list(cases(delta, args.seed, args.codec or SPECS))
    times = turns([(name, action) for name, action, _ in jobs], args.turns)
    mega = nbytes(delta) / 1e6
    for name, _, ratio in jobs:
        seconds = times[name]
        times_better = times.get("raw fold", 0) / seconds if name.endswith(" fold") else ratio
        less = f"{times_better:8.1f} x" if times_better else ""
        print(f"{name:60} {1e3 * seconds:8.2f} ms {mega / seconds:9,.0f} MB/s {less}")
    return 0


def update(seed: int, steps: int) -> Params:
    """The difference that `steps` steps of training make."""
    folder = Path(os.environ.get("PARSLFL_DATA", "data"))
    real, count = Cifar10(), 32 * steps
    if real.available(folder):
        samples = real.train(folder, np.arange(count))
    else:
        print("CIFAR-10 is not there: made-up images")
        samples = Synthetic(samples=count, channels=3, side=32).train(folder, np.arange(count))
    return _trained(samples, seed)


def _trained(samples: Samples, seed: int) -> Params:
    model = ResNet18()
    start = model.init((3, 32, 32), 10, seed)
    made = model.train(start, samples, LocalWork(epochs=1, threads=1), seed, lambda: False)
    return {name: array.copy() for name, array in subtract(made.params, start).items()}


def cases(
    delta: Params, seed: int, texts: tuple[str, ...] | list[str]
) -> Iterator[tuple[str, Callable[[], object], float]]:
    """What is timed: name, action, and how many times fewer bytes it makes."""
    import zstandard

    joined = np.concatenate([array.reshape(-1) for array in delta.values()])
    other = np.empty_like(joined)
    yield "memory copy", lambda: np.copyto(other, joined), 0
    yield "checksum", lambda: checksum([joined.data.cast("B")]), 0
    alone = zstandard.ZstdCompressor(level=3)
    frame = alone.compress(joined.data)
    yield "zstd level 3 alone, in", lambda: alone.compress(joined.data), joined.nbytes / len(frame)
    yield "zstd level 3 alone, out", lambda: zstandard.ZstdDecompressor().decompress(frame), 0
    desk = Desk(like=delta)
    desk.clear(0)
    total = desk.sums(0, 0)
    for text in texts:
        yield from _codec(text, delta, total, seed)
    yield "error feedback", _feedback(delta, seed), 0


def _feedback(delta: Params, seed: int) -> Callable[[], object]:
    folder = tempfile.TemporaryDirectory()
    store, codec, client = ClientStore(folder.name), TopK(0.01), Client(0, "here")
    sum_of = {name: array.copy() for name, array in delta.items()}
    arrays, note = codec.encode(delta, seed)
    store.save(client, "residual", 0, -1, delta)

    def once() -> tempfile.TemporaryDirectory[str]:
        left, _ = store.recall(client, "residual", 0, delta)
        fold(sum_of, left, 1.0)
        opened(codec, arrays, note, delta).add(sum_of, -1.0)
        store.save(client, "residual", 1, 0, sum_of)
        return folder

    return once


def _codec(
    text: str, delta: Params, total: Params, seed: int
) -> Iterator[tuple[str, Callable[[], object], float]]:
    codec: Any = specs.parse_chain(text, CODECS, "codec", Chain)  # type: ignore[arg-type]
    packed = wire.pack(*codec.encode(delta, seed))
    data = memoryview(b"".join(packed.buffers))
    like = trained(delta)

    def folded() -> None:
        made = opened(codec, *wire.unpack(data, packed.checksum), like)
        if not math.isfinite(made.norm()):
            raise SystemExit(f"{text} made what is not finite")
        made.add(total, 1.5)

    def out() -> Params:
        decoded: Params = codec.decode(*wire.unpack(data, packed.checksum), like)
        return decoded

    yield f"{text} in", lambda: wire.pack(*codec.encode(delta, seed)), nbytes(delta) / packed.size
    yield f"{text} out", out, 0
    yield f"{text} fold", folded, 0


def turns(jobs: list[tuple[str, Callable[[], object]]], count: int) -> dict[str, float]:
    """Best seconds of each job, all of them once a turn; the first turn is not counted."""
    times: dict[str, list[float]] = {name: [] for name, _ in jobs}
    for turn in range(count + 1):
        for name, action in jobs:
            start = time.perf_counter()
            action()
            if turn:
                times[name].append(time.perf_counter() - start)
    return {name: min(found) for name, found in times.items()}


if __name__ == "__main__":
    sys.exit(main())
