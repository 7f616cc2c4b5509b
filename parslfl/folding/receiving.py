"""An update as it comes from a worker: found, checked and opened, or refused with a reason.

Does not know: what becomes of it.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

from parslfl.codecs import wire
from parslfl.errors import PayloadError
from parslfl.folding.parts import open_any
from parslfl.messages import Update, update_name
from parslfl.params import Params, squared_norm, trained
from parslfl.protocols import Codec, Delta, Transport

#: Beyond this no honest update lies, and the sum of a million within it is still finite.
MAX_NORM = 1e15


def came(update: Update, transport: Transport) -> int:
    """Bytes of a refused update: what is there, not what it claims."""
    with contextlib.suppress(PayloadError, OSError):
        return len(transport.get(update.ref)) if _in_place(update) else 0
    return 0


def _in_place(update: Update) -> bool:
    """Whether it refers to the only place where it may be."""
    return update.ref.path in {"", update_name(update.round, update.client)}


def discard(update: Update, transport: Transport) -> None:
    """Forget an update's bytes, and nothing else that its reference might name."""
    if _in_place(update):
        with contextlib.suppress(PayloadError, OSError):
            transport.drop(update.ref)


def open_update(update: Update, transport: Transport, codec: Codec, like: Params) -> tuple[Delta, float]:
    """The update as it came and its norm, once it is found whole, of the right shape and of sane size.

    Raises:
        PayloadError: it is not.
    """
    arrays, note = _received(update, transport)
    with _decoding():
        delta = open_any(codec, arrays, note, trained(like))
    return delta, sane(delta.norm())


def read_update(update: Update, transport: Transport, codec: Codec, like: Params) -> tuple[Params, float]:
    """The update as arrays like the trained ones of `like`, and its norm; for who needs more than sums.

    Raises:
        PayloadError: as `open_update`.
    """
    arrays, note = _received(update, transport)
    with _decoding():
        delta = codec.decode(arrays, note, trained(like))
    return delta, sane(math.sqrt(squared_norm(delta)))


def _received(update: Update, transport: Transport) -> tuple[Params, dict[str, Any]]:
    """The arrays and the note of an update that is where it must be."""
    if not _in_place(update):
        raise PayloadError(f"points at {update.ref.path!r}, which is not this update's place")
    return wire.unpack(transport.get(update.ref), update.ref.checksum)


@contextlib.contextmanager
def _decoding() -> Iterator[None]:
    """Whatever a codec cannot make sense of is the payload's fault."""
    try:
        yield
    except PayloadError:
        raise
    except Exception as error:
        raise PayloadError(f"cannot be decoded: {type(error).__name__}: {error}") from error


def sane(
    norm: float, limit: float = MAX_NORM, cause: str = "the client's training diverged; a lower --lr may help"
) -> float:
    """`norm`, once it is found finite and no more than `limit`. `cause`: why it may not be, and the cure.

    Raises:
        PayloadError: it is not.
    """
    if not norm <= limit:
        much = f"has the norm {norm:.3g}, more than the {limit:.3g} that is possible"
        raise PayloadError(f"{much if math.isfinite(norm) else 'holds NaN or Inf'}: {cause}")
    return norm
