"""Updates of several kinds, added together: the same bits as one after the other."""

from __future__ import annotations

import math

import numpy as np
import pytest

from parslfl.codecs.cast import Bf16
from parslfl.codecs.lowrank import LowRank
from parslfl.codecs.pieces import Dense, add_all, opened, private
from parslfl.codecs.quantize import Quantize
from parslfl.codecs.raw import Raw
from parslfl.codecs.sparse import Sparse
from parslfl.codecs.topk import TopK
from parslfl.params import SPAN, Joined, Params, zeros_like
from parslfl.protocols import Codec, Delta

CODECS: list[Codec] = [
    Raw(),
    Raw(),
    Quantize(8),
    Quantize(4, block=64),
    Quantize(8, block=0),
    Bf16(),
    TopK(0.1),
    LowRank(0.1),
]
WEIGHTS = [833.0, 0.3, 7.0, 100.0, 1.7, 3.0, 41.0, 9.0]


def like(dtype: type) -> Params:
    """Arrays around the edges of the pieces in which sums are walked, one with another dtype or none."""
    sizes = {"a": 5, "b": SPAN + 70, "c": 1, "m": (1300, 211)}
    return {"z": np.zeros((), dtype), **{name: np.zeros(n, np.float32) for name, n in sizes.items()}}


def drawn(like: Params, seed: int) -> Params:
    random = np.random.default_rng(seed)
    return {name: random.standard_normal(a.shape).astype(a.dtype) for name, a in like.items()}


def sums(like: Params) -> Params:
    made = Joined.empty_like(like)
    for name, array in drawn(like, 99).items():
        made[name][...] = array
    return made


def bits(params: Params) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in params.items()}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4, 5, 6, 7], [6, 0, 2, 1, 7, 6], [2], [6, 6]])
def test_updates_of_all_kinds_together(order: list[int], dtype: type) -> None:
    model = like(dtype)
    terms: list[tuple[Delta, float]] = []
    for seed, chosen in enumerate(order):
        arrays, note = CODECS[chosen].encode(drawn(model, seed), seed)
        terms.append((opened(CODECS[chosen], arrays, note, model), WEIGHTS[chosen]))
    wanted = sums(model)
    for (_, weight), (seed, chosen) in zip(terms, enumerate(order), strict=True):
        codec = CODECS[chosen]
        decoded = codec.decode(*codec.encode(drawn(model, seed), seed), model)
        for name, array in decoded.items():  # what is sparse or coded is weighted in float32
            kind = array.dtype.type if isinstance(codec, Raw) else np.float32
            wanted[name] += (array.astype(kind) * kind(weight)).astype(array.dtype)
    together, alone = sums(model), sums(model)
    add_all(together, terms)
    for delta, weight in terms:
        delta.add(alone, weight)
    assert bits(together) == bits(wanted)
    assert bits(alone) == bits(wanted)
    zeros, afresh = zeros_like(model), Joined.empty_like(model)
    for array in afresh.values():
        array.fill(np.nan)
    add_all(zeros, terms)
    add_all(afresh, terms, afresh=True)
    assert bits(afresh) == bits(zeros)


@pytest.mark.parametrize("codec", [Quantize(8), Quantize(8, block=0), Quantize(4, block=64), Quantize(2)])
def test_the_norm_of_codes_is_that_of_their_numbers(codec: Quantize) -> None:
    model = like(np.float32)
    arrays, note = codec.encode(drawn(model, 3), 5)
    decoded = codec.decode(arrays, note, model)
    square = sum(float(np.square(array.astype(np.float64)).sum()) for array in decoded.values())
    assert codec.open(arrays, note, model).norm() == pytest.approx(math.sqrt(square), rel=1e-6)


def test_the_norm_of_codes_with_huge_steps_is_no_number_that_passes() -> None:
    model = {"w": np.zeros(300, np.float32)}
    arrays, note = Quantize(8).encode({"w": np.ones(300, np.float32)})
    arrays["steps"] = np.full(2, 3e38, np.float32)
    assert Quantize(8).open(arrays, note, model).norm() > 1e38


def test_memory_of_updates_is_known_but_for_strange_ones() -> None:
    model = like(np.float32)
    assert private(Dense(model)) == 4 * (SPAN + 70 + 7 + 1300 * 211)
    assert private(Sparse(np.arange(3), np.ones(3, np.float32))) == 36
    arrays, note = Quantize(8).encode(model)
    assert private(Quantize(8).open(arrays, note, model)) == arrays["codes"].nbytes + arrays["steps"].nbytes

    class Other:
        def norm(self) -> float:
            return 0.0

        def add(self, total: Params, weight: float) -> None:
            total["a"] += 1

    assert private(Other()) == math.inf
    total = zeros_like(model)
    add_all(total, [(Other(), 1.0), (Other(), 1.0)])
    assert total["a"].tolist() == [2] * 5
