"""Writing past the caches, which compiled loops cannot ask for. Numbers that are written once and not read
soon need not be fetched from main memory first: that takes as long as to write them.

Does not know: what the numbers are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

#: float32 numbers that are written at once.
WIDTH = 8


def divider(numba: Any) -> Callable[..., None]:
    """What numba's loops may call as `divide(into, first, second, at, divisor)`: it does `WIDTH` times
    `into[i] = (first[i] + second[i]) / divisor`, from i = `at` on, and sets both terms to 0, where all are
    contiguous float32 arrays and `into[at]` lies at a multiple of `WIDTH` numbers.

    Raises:
        Exception: it cannot be made with this numba, and its loops would fail.
    """
    from llvmlite import ir
    from numba.extending import intrinsic

    eight, index = ir.VectorType(ir.FloatType(), WIDTH), ir.IntType(32)
    all_first = ir.Constant(ir.VectorType(index, WIDTH), [0] * WIDTH)

    def divide(_: Any, into: Any, first: Any, second: Any, at: Any, divisor: Any) -> Any:
        def written(context: Any, build: Any, signature: Any, values: Any) -> Any:
            arrays = zip(signature.args[:3], values[:3], strict=True)
            starts = (context.make_array(kind)(context, build, value).data for kind, value in arrays)
            target, *terms = (
                build.bitcast(build.gep(start, [values[3]]), eight.as_pointer()) for start in starts
            )
            divisors = build.insert_element(ir.Constant(eight, ir.Undefined), values[4], index(0))
            divisors = build.shuffle_vector(divisors, divisors, all_first)
            total = build.fadd(*(build.load(term, align=4) for term in terms))
            store = build.store(build.fdiv(total, divisors), target, align=4 * WIDTH)
            store.set_metadata("nontemporal", build.module.add_metadata([index(1)]))
            for term in terms:
                build.store(ir.Constant(eight, [0.0] * WIDTH), term, align=4)
            return context.get_dummy_value()

        return numba.types.void(into, first, second, at, divisor), written

    found: Callable[..., None] = intrinsic(divide)
    _try(numba.njit(lambda into, first, second: found(into, first, second, 0, np.float32(4))))
    return found


def _try(loop: Callable[..., None]) -> None:
    memory = np.zeros(2 * WIDTH, np.float32)
    start = -(memory.ctypes.data // 4) % WIDTH
    made, terms = memory[start : start + WIDTH], np.arange(2 * WIDTH, dtype=np.float32).reshape(2, WIDTH)
    wanted = [number / 2 + WIDTH / 4 for number in range(WIDTH)]
    loop(made, *terms)
    if made.tolist() != wanted or terms.any():
        raise RuntimeError(f"numba writes {made.tolist()} where it was to write {wanted}")
