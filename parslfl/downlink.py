"""The global model as compressed differences, each what one round changed: written here, put together there.

The driver writes a round's step with a codec and takes what can be read of that as the step itself. So
the global model is what its readers can make: whole and put together it has the same bits. What a biased
codec left out is added to the next step (Tang et al. 2019, "DoubleSqueeze", algorithm 1, the server's part).

A node keeps the models that its workers started from (`transport.node_cache`). The first worker there that is
sent a newer one fetches the differences since, if together they are smaller than the whole, and checks what
they made against the whole's checksum; what is not right is fetched whole, and said.

Does not know: how bytes travel, or what is done with a model.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from parslfl.codecs import wire
from parslfl.codecs.layout import others
from parslfl.codecs.pieces import opened
from parslfl.errors import PayloadError, RunError
from parslfl.folding import scratch
from parslfl.folding.checkpoints import write
from parslfl.messages import Difference, ModelRef, Ref
from parslfl.params import Params, fold, nbytes, trained, wide
from parslfl.protocols import Buffer, Codec, Transport, at_most, in_hand
from parslfl.transport import node_cache

#: Folder, in the run directory and in transports, of the differences.
DIFFERENCES = "differences"
#: In how many models' memory a codec may write and open a step, for that and the next model to be in memory.
_LITTLE = 0.27
#: How many are on offer: who has missed more rounds fetches the whole.
NEWEST = 8
#: A file beside a node's models: how the newest of them came.
_CAME = "came"
#: Names of arrays that are not trained and have changed: they travel as they are, counted from 0.
_CARRIED = "carried"


@dataclass(frozen=True)
class Outgoing:
    """How a round's step is written: `path` is for the difference, `residual` for what `codec` leaves out."""

    codec: Codec
    seed: int
    path: Path
    residual: Path


@dataclass(frozen=True)
class Taken:
    """The model after a step, and the checksums of its difference and residual ("": there is none)."""

    model: Params
    difference: str = ""
    residual: str = ""


def take(out: Outgoing, old: Params, new: Params, residual: Params) -> Taken:
    """Write the step from `old` to `new`, with what was left out of the steps before it (`residual`).
    `new` is emptied: the memory that only it holds is needed.

    Raises:
        RunError: the codec cannot write it.
    """
    size = nbytes(trained(old))
    much = at_most(out.codec, old) + in_hand(out.codec, old) > _LITTLE * size or nbytes(wide(old)) > size
    folder = out.path.parent if much else None
    step = scratch.empty_like(trained(old), folder)
    for name, array in step.items():
        np.subtract(new[name], old[name], out=array)
    fold(step, residual, 1.0)
    changed = {name: array for name, array in others(new).items() if not np.array_equal(array, old[name])}
    new.clear()
    try:
        arrays, note = out.codec.encode(step, out.seed)
    except PayloadError as error:
        raise RunError(f"the downlink codec cannot write what this round changed: {error}") from None
    arrays = {**arrays, **{f"{_CARRIED}-{place}": array for place, array in enumerate(changed.values())}}
    note = {**note, _CARRIED: list(changed)} if changed else note
    out.path.parent.mkdir(exist_ok=True)
    difference = write(out.path, arrays, note=note)
    biased = getattr(out.codec, "biased", False)
    if not biased:
        del step
    model = scratch.copied(old, folder)
    advance(model, arrays, note, out.codec)
    if not biased:
        return Taken(model, difference)
    own, told = _apart(arrays, note)[:2]
    opened(out.codec, own, told, trained(old)).add(step, -1.0)
    return Taken(model, difference, write(out.residual, step))


def advance(params: Params, arrays: Params, note: Mapping[str, Any], codec: Codec) -> None:
    """Add the difference that came as `arrays` and `note` to `params`, in place.

    The same arithmetic wherever it is done: float32 additions, number by number.

    Raises:
        PayloadError: it is not a difference for a model like `params`.
    """
    own, told, carried = _apart(arrays, note)
    for name, array in carried.items():
        there = params.get(name)
        if there is None or (there.shape, there.dtype) != (array.shape, array.dtype):
            seen = f"{array.dtype}{list(array.shape)}"
            raise PayloadError(f"carries {name[:80]!r} as {seen}, which does not fit the model")
    opened(codec, own, told, trained(params)).add(params, 1.0)
    params.update(carried)


def _apart(arrays: Params, note: Mapping[str, Any]) -> tuple[Params, dict[str, Any], Params]:
    """The codec's own arrays and note, and the arrays beside them, under their names in the model."""
    names = note.get(_CARRIED, [])
    places = [f"{_CARRIED}-{place}" for place in range(len(names))] if isinstance(names, list) else [""]
    if not all(place in arrays for place in places) or not all(isinstance(name, str) for name in names):
        raise PayloadError(f"its note says {_CARRIED} {str(names)[:80]!r}, which did not come")
    own = {name: array for name, array in arrays.items() if name not in places}
    told = {key: value for key, value in note.items() if key != _CARRIED}
    return own, told, {name: arrays[place] for name, place in zip(names, places, strict=True)}


@dataclass(frozen=True)
class Received:
    """A model's bytes as the wire format frames them; `came`: how many had to be fetched for it, once a node;
    `notes`: what went wrong on the way."""

    data: memoryview
    came: int
    notes: tuple[str, ...] = ()


def receive(transport: Transport, ref: Ref) -> Received:
    """The model behind `ref`: as this node has it, or from differences, or whole.

    Raises:
        PayloadError: it cannot be had in any way.
    """
    if not isinstance(ref, ModelRef):
        return Received(transport.get(ref), ref.size)
    try:
        data = node_cache.kept(ref.run, ref, partial(_obtain, transport, ref))
    except PayloadError as error:  # a full or unusable folder is no reason to do without the model
        return Received(transport.get(ref), ref.size, (f"the model was fetched whole: {error}",))
    return Received(data, *_told(ref))


def _obtain(transport: Transport, ref: ModelRef, descriptor: int) -> None:
    """Write the model to the file `descriptor` of the node's folder, which nobody else uses meanwhile."""
    buffers, came, notes = _gathered(transport, ref)
    with os.fdopen(descriptor, "wb", closefd=False) as stream:
        stream.writelines(buffers)
    told = {"model": ref.checksum, "bytes": came, "notes": notes}
    (node_cache.run_folder(ref.run) / _CAME).write_text(json.dumps(told))


def _told(ref: ModelRef) -> tuple[int, tuple[str, ...]]:
    """How the model behind `ref` came to this node, as far as that is still known here."""
    try:
        told = json.loads((node_cache.run_folder(ref.run) / _CAME).read_text())
        if told["model"] == ref.checksum:
            return int(told["bytes"]), tuple(map(str, told["notes"]))
    except (OSError, ValueError, TypeError, KeyError):
        pass
    return ref.size, ()


def _gathered(transport: Transport, ref: ModelRef) -> tuple[Sequence[Buffer], int, list[str]]:
    """The model's bytes, those that had to be fetched for them, and what went wrong on the way."""
    base, since = _nearest(ref)
    came = sum(one.ref.size for one in since)
    notes = list[str]()
    if base is not None:
        try:
            return _put_together(transport, ref, base, since), came, notes
        except Exception as error:  # noqa: BLE001 - whatever a difference holds, the whole is still there
            why = " ".join(str(error).split()) or type(error).__name__
            number = since[-1].round + 1
            notes.append(f"the model of round {number} was fetched whole, for its differences failed: {why}")
    whole = transport.get(ref)
    wire.unpack(whole, ref.checksum)
    return [whole], came + ref.size, notes


def _nearest(ref: ModelRef) -> tuple[memoryview | None, tuple[Difference, ...]]:
    """The newest model that this node has, with the differences since, where these are the smaller way."""
    total = 0
    for first in reversed(range(len(ref.differences))):
        total += ref.differences[first].ref.size
        if total >= ref.size:
            break
        base = node_cache.held(ref.run, ref.differences[first].base)
        if base is not None:
            return base, ref.differences[first:]
    return None, ()


def _put_together(
    transport: Transport, ref: ModelRef, base: memoryview, since: Sequence[Difference]
) -> Sequence[Buffer]:
    """The model behind `ref`, made of `base`, to the bit.

    Raises:
        PayloadError: a difference is damaged, or made something else.
    """
    assert ref.codec is not None  # there are differences
    params = scratch.copied(wire.unpack(base, since[0].base.checksum)[0], None)
    for one in since:
        arrays, note = wire.unpack(transport.get(one.ref), one.ref.checksum)
        advance(params, arrays, note, ref.codec)
    packed = wire.pack(params)
    if (packed.size, packed.checksum) != (ref.size, ref.checksum):
        raise PayloadError(f"made a model with checksum {packed.checksum}, not {ref.checksum}")
    return packed.buffers
