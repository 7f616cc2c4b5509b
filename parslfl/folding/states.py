"""The state that a strategy's server has from round to round, checked before it is written: what is wrong in
a checkpoint poisons every round after it.

Does not know: what is in a state, or where it is written.
"""

from __future__ import annotations

import math

import numpy as np

from parslfl.errors import RunError, naming
from parslfl.params import Array, Params, require_like, squared_norm, trained
from parslfl.protocols import Strategy


def started(strategy: Strategy, params: Params) -> Params:
    """The state before round 0, which the strategy's `start` makes for the model `params`.

    Raises:
        RunError: `start` failed, or returned what is no state.
    """
    with naming(strategy, "start"):
        state = strategy.start(params)
    _require(state, {}, f"{type(strategy).__name__}.start", "begin with finite numbers")
    return state


def require_state(state: Params, before: Params, strategy: Strategy) -> None:
    """Check the next `state`, which the strategy's `step` made of the one `before`.

    Raises:
        RunError: it has other names, shapes or dtypes than that, if that had any, or NaN or Inf in it.
    """
    who = f"{type(strategy).__name__}.step, for the next state,"
    _require(state, before, who, "lower the strategy's lr or --lr")


def _require(state: Params, before: Params, who: str, cure: str) -> None:
    try:
        require_like(state, before or state, who)
    except (TypeError, ValueError) as error:
        raise RunError(f"{error}: a state has the same arrays in every round, or is {{}}") from None
    for name, array in state.items():
        if not isinstance(name, str):
            raise RunError(f"{who} returned an array named {name!r}: name it by a text")
        if array.dtype.kind not in "fiub" or array.itemsize > 8:
            raise RunError(
                f"{who} returned {name!r} as {array.dtype}{list(array.shape)}, which no checkpoint holds: "
                "let it have floats or integers of at most 64 bits"
            )
    if wrong := not_finite(state):
        raise RunError(f"{who} returned NaN or Inf in {wrong[0]!r}: {cure}")


def not_finite(params: Params) -> list[str]:
    """Which of the arrays, of any layout, have NaN or Inf in them."""
    return [name for name, array in trained(params).items() if not _finite(array)]


def _finite(array: Array) -> bool:
    """Squares take one pass and no memory; where they are too large, the numbers themselves may not be."""
    norm = squared_norm({"": np.ascontiguousarray(array)})
    return math.isfinite(norm) or bool(np.isfinite(array).all())
