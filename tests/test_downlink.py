"""Models as differences, worked by hand, and put together at a node: to the bit, or whole."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from parslfl import downlink
from parslfl.channels import File, Inline, ProxyStore
from parslfl.codecs import wire
from parslfl.codecs.cast import Fp16
from parslfl.codecs.chain import Chain
from parslfl.codecs.quantize import Quantize
from parslfl.codecs.topk import TopK
from parslfl.codecs.zstd import Zstd
from parslfl.downlink import NEWEST, Outgoing, Received, advance, receive, take
from parslfl.errors import PayloadError, RunError
from parslfl.exchange import Exchange, open_exchange
from parslfl.folding import checkpoints
from parslfl.folding.checkpoints import Checkpoint
from parslfl.messages import ModelRef, Ref
from parslfl.params import Params
from parslfl.protocols import Codec
from parslfl.seeding import generator
from parslfl.sites import Site
from parslfl.transport import node_cache
from parslfl_executors.local import Local

SMALL = Chain((TopK(ratio=0.05), Quantize(bits=4), Zstd()))
#: The largest number of each step, exactly.
LARGEST = TopK(ratio=0.34)


@pytest.fixture(autouse=True)
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "node"))
    (tmp_path / "node").mkdir()
    node_cache._joined.cache_clear()
    return tmp_path / "node"


def floats(*values: float) -> Params:
    return {"w": np.array(values, np.float32)}


def outgoing(path: Path, codec: Codec) -> Outgoing:
    return Outgoing(codec, 7, path / "differences" / "round-0001.plm", path / "round-0001.residual")


def test_the_largest_number_goes_and_the_rest_waits(tmp_path: Path) -> None:
    out = outgoing(tmp_path, LARGEST)
    first = take(out, floats(0, 0, 0), floats(4, 1, 2), {})
    assert first.model["w"].tolist() == [4, 0, 0]
    left = checkpoints.read(out.residual, first.residual)
    assert left["w"].tolist() == [0, 1, 2]
    second = take(out, first.model, floats(5, 1.5, 0.25), left)  # the step is 1, 1.5, 0.25
    assert second.model["w"].tolist() == [4, 2.5, 0]
    assert checkpoints.read(out.residual, second.residual)["w"].tolist() == [1, 0, 2.25]


def test_what_averages_out_leaves_nothing_behind(tmp_path: Path) -> None:
    taken = take(outgoing(tmp_path, Fp16()), floats(1, 2), floats(1.5, 2.25), {})
    assert (taken.model["w"].tolist(), taken.residual) == ([1.5, 2.25], "")
    assert not list(tmp_path.glob("*.residual"))


def test_arrays_that_are_not_trained_travel_as_they_are(tmp_path: Path) -> None:
    out = outgoing(tmp_path, LARGEST)
    old = {"seen": np.array(7), **floats(0, 0, 0), "same": np.array([True])}
    new = {"seen": np.array(9), **floats(1, 0, 0), "same": np.array([True])}
    taken = take(out, old, new, {})
    assert (taken.model["seen"], list(taken.model)) == (9, ["seen", "w", "same"])
    arrays, note = wire.unpack(memoryview(out.path.read_bytes()), taken.difference)
    assert note["carried"] == ["seen"]
    assert [array.tolist() for name, array in arrays.items() if name.startswith("carried")] == [9]
    again = {name: array.copy() for name, array in old.items()}
    advance(again, arrays, note, LARGEST)
    assert wire.pack(again).checksum == wire.pack(taken.model).checksum


@pytest.mark.parametrize(
    ("carried", "why"),
    [(["w"], "does not fit"), (["x"], "does not fit"), ([3], "did not come"), ("w", "did not come"),
     (["seen", "seen"], "did not come")],
)  # fmt: skip
def test_what_is_carried_must_be_the_models(tmp_path: Path, carried: object, why: str) -> None:
    out = outgoing(tmp_path, LARGEST)
    old = {"seen": np.array(7), **floats(0, 0, 0)}
    take(out, old, {"seen": np.array(9), **floats(1, 0, 0)}, {})
    arrays, note = wire.unpack(memoryview(out.path.read_bytes()))
    with pytest.raises(PayloadError, match=why):
        advance(old, arrays, {**note, "carried": carried}, LARGEST)


def test_a_step_that_the_codec_cannot_write_is_told(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="the downlink codec cannot write what this round changed"):
        take(outgoing(tmp_path, Fp16()), floats(0), floats(1e30), {})


class Rounds:
    """The driver's side of a few rounds of a model of 20,000 numbers, over a shared folder."""

    def __init__(self, run: Path, codec: Codec = SMALL, **site: Any) -> None:
        (run / "models").mkdir(parents=True)
        self.run, self.codec = run, codec
        sites = (Site(name="here", clients=1, executor=Local(), **site),)
        self.exchange: Exchange = open_exchange(run, sites, codec)
        self.model: Params = {"w": generator(0, "test").normal(size=20_000).astype(np.float32)}
        self.residual: Params = {}
        self.round = 0
        self.refs = self._published("", "")

    def next(self) -> ModelRef:
        self.step()
        return self.ref

    def step(self) -> None:
        self.round += 1
        name = f"round-{self.round:04d}"
        out = Outgoing(self.codec, self.round, self.run / "differences" / f"{name}.plm", self.run / name)
        step = generator(self.round, "test").normal(size=20_000).astype(np.float32)
        taken = take(out, self.model, {"w": self.model["w"] + step}, self.residual)
        self.model = taken.model
        self.residual = checkpoints.read(out.residual, taken.residual) if taken.residual else {}
        self.exchange.withdraw(self.refs)
        self.refs = self._published(taken.residual, taken.difference)

    @property
    def ref(self) -> ModelRef:
        ref = self.refs["here"]
        assert isinstance(ref, ModelRef)
        return ref

    def _published(self, residual: str, difference: str) -> dict[str, Ref]:
        path = self.run / "models" / f"round-{self.round:04d}.plm"
        digest = checkpoints.write(path, self.model)
        at = Checkpoint(self.round, path, digest, path, "", path, residual, difference)
        return self.exchange.publish(at)

    def receive(self, ref: ModelRef | None = None) -> Received:
        ref = ref or self.ref
        found = receive(self.exchange.places["here"], ref)
        assert wire.unpack(found.data, ref.checksum)[0]["w"].tobytes() == self.model["w"].tobytes()
        return found


@pytest.mark.parametrize("codec", [SMALL, Quantize(bits=8), TopK(ratio=0.01), Fp16(), Zstd()], ids=repr)
def test_a_node_that_has_the_last_model_fetches_the_difference(tmp_path: Path, codec: Codec) -> None:
    made = Rounds(tmp_path / "run", codec)
    assert made.receive() == Received(made.receive().data, made.ref.size)
    ref = made.next()
    found = made.receive()
    assert (found.came, found.notes) == (min(ref.differences[-1].ref.size, ref.size), ())
    assert made.receive().came == found.came  # another worker of that node says the same
    assert made.exchange.places["here"].get(ref).tobytes() == found.data.tobytes()


def test_a_store_and_a_folder_of_its_own_do_the_same(tmp_path: Path) -> None:
    pytest.importorskip("proxystore")
    store = ProxyStore(connector="file", options={"store_dir": str(tmp_path / "store")})
    for place in (store, File(path=str(tmp_path / "shared"))):
        made = Rounds(tmp_path / type(place).__name__, transport=place)
        made.receive()
        made.next()
        ref = made.next()
        assert made.receive().came == sum(one.ref.size for one in ref.differences) < ref.size / 5
        made.exchange.withdraw(made.refs)
        made.exchange.close()
    assert not [path for path in (tmp_path / "store").iterdir() if path.is_file()]
    assert not list((tmp_path / "shared").iterdir())


def test_inline_a_model_rides_whole_in_the_task(tmp_path: Path) -> None:
    made = Rounds(tmp_path / "run", transport=Inline())
    made.step()
    ref = made.refs["here"]
    assert type(ref) is Ref
    assert len(ref.data) == ref.size


def test_who_skipped_rounds_fetches_all_differences_since(tmp_path: Path) -> None:
    made = Rounds(tmp_path / "run")
    made.receive()
    for _ in range(3):
        ref = made.next()
    assert made.receive().came == sum(one.ref.size for one in ref.differences) < ref.size / 5
    assert [one.round for one in ref.differences] == [1, 2, 3]


def test_the_last_few_differences_are_out(tmp_path: Path) -> None:
    made = Rounds(tmp_path / "run")
    made.receive()
    for _ in range(NEWEST + 1):
        ref = made.next()
    names = [f"round-{number:04d}.plm" for number in range(2, NEWEST + 2)]
    assert [Path(one.ref.path).name for one in ref.differences] == names
    assert sorted(path.name for path in (tmp_path / "run" / "differences").iterdir()) == names
    assert made.receive().came == ref.size  # it had the first model only
    made.exchange.close()
    assert not list((tmp_path / "run" / "differences").iterdir())
    assert not node_cache.run_folder(ref.run).exists()


def test_differences_that_are_together_larger_are_not_fetched(tmp_path: Path) -> None:
    made = Rounds(tmp_path / "run", Fp16())
    made.receive()
    made.next()
    assert made.next().size < sum(one.ref.size for one in made.ref.differences)
    assert (made.receive().came, made.receive().notes) == (made.ref.size, ())


@pytest.mark.parametrize("how", ["bit", "cut", "gone", "other", "nonsense"])
def test_a_damaged_difference_costs_the_whole_model_and_is_told(tmp_path: Path, how: str) -> None:
    made = Rounds(tmp_path / "run")
    made.receive()
    ref = made.next()
    path = tmp_path / "run" / ref.differences[-1].ref.path
    data = bytearray(path.read_bytes())
    if how == "gone":
        path.unlink()
    elif how == "other":  # whole in itself, and announced as such: of another step
        packed = wire.pack(*SMALL.encode({"w": np.ones(20_000, np.float32)}))
        path.write_bytes(b"".join(packed.buffers))
        one = ref.differences[-1]
        ref = replace(ref, differences=(replace(one, ref=replace(one.ref, size=packed.size, checksum="")),))
    elif how == "nonsense":
        packed = wire.pack({"zstd": np.arange(50, dtype=np.uint8)}, {"stages": [{}, {}, {}]})
        path.write_bytes(b"".join(packed.buffers))
        one = ref.differences[-1]
        ref = replace(ref, differences=(replace(one, ref=replace(one.ref, size=packed.size, checksum="")),))
    else:
        data[-1 - (data[-1] == 0) * 63] ^= 1
        path.write_bytes(data if how == "bit" else data[:-64])
    found = made.receive(ref)
    assert found.came == ref.size + ref.differences[-1].ref.size
    (note,) = found.notes
    assert note.startswith("the model of round 2 was fetched whole, for its differences failed: ")
    made.next()
    assert made.receive().notes == ()  # the next round goes on from the whole


def test_a_base_that_was_damaged_on_the_node_is_not_used(tmp_path: Path, node: Path) -> None:
    made = Rounds(tmp_path / "run")
    made.receive()
    (kept,) = node_cache.run_folder(made.ref.run).glob("*.*")
    kept.write_bytes(kept.read_bytes()[:-1] + b"X")
    ref = made.next()
    assert (made.receive().came, made.receive().notes) == (ref.size, ())


def test_a_node_that_can_keep_nothing_gets_the_whole_and_says_so(tmp_path: Path, node: Path) -> None:
    node.rmdir()
    node.write_text("a file")
    made = Rounds(tmp_path / "run")
    found = made.receive()
    assert found.came == made.ref.size
    assert "the model was fetched whole: cannot keep models in" in found.notes[0]


def test_differences_at_rest_take_less_room_than_one_model(tmp_path: Path) -> None:
    made = Rounds(tmp_path / "run")
    for _ in range(NEWEST):
        made.next()
    assert sum(one.ref.size for one in made.ref.differences) < made.ref.size
    assert downlink.DIFFERENCES in made.ref.differences[0].ref.path
