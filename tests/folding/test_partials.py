"""Sums of sites, on three-element parameters worked by hand, with hostile ones among them."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from parslfl.codecs import wire
from parslfl.codecs.raw import Raw
from parslfl.errors import PayloadError
from parslfl.folding import checkpoints
from parslfl.folding.desk import Desk
from parslfl.folding.finishing import Finished, finish
from parslfl.folding.folding import Folding
from parslfl.folding.merging import Merged, merge
from parslfl.folding.partials import Partial, agreed, fold_partial, merge_site, nothing, reported
from parslfl.learning import Evidence, LocalWork
from parslfl.messages import (
    Assignment,
    Client,
    Failure,
    MergeTask,
    Outcome,
    RoundPlan,
    Update,
    update_name,
)
from parslfl.params import Params
from parslfl.protocols import Strategy
from parslfl.strategies.fedavg import FedAvg
from parslfl.transport.file import File
from parslfl.transport.inline import Inline

MODEL: Params = {"w": np.array([1.0, 2.0, 3.0], np.float32), "n": np.array([7])}
CLIENTS = [Client(i, "far") for i in range(4)]
HERE = Client(9, "here")


@pytest.fixture
def far(tmp_path: Path) -> File:
    return File(str(tmp_path / "far"))


def update(transport: File, client: Client, *delta: float, samples: int = 1) -> Update:
    packed = wire.pack({"w": np.array(delta, np.float32)})
    ref = transport.put(update_name(4, client), packed.buffers, packed.checksum)
    return Update(client, 4, ref, samples, 1, 1, 2.0, 1.0, 12)


def task(transport: File, strategy: Strategy = FedAvg()) -> MergeTask:  # noqa: B008  frozen
    packed = wire.pack(MODEL)
    start = transport.put("models/4", packed.buffers, packed.checksum)
    codecs, works = dict.fromkeys(CLIENTS, Raw()), dict.fromkeys(CLIENTS, LocalWork())
    return MergeTask(4, "far", strategy, codecs, works, start, transport)


def folding(transport: File, strategy: Strategy = FedAvg()) -> Folding:  # noqa: B008  frozen
    works = dict.fromkeys([*CLIENTS, HERE], LocalWork())
    places = {"far": transport, "here": Inline()}
    return Folding(strategy, {HERE: Raw()}, places, Desk(like=MODEL), 0.0, works, 5)


def finished(job: Folding, tmp_path: Path, *notes: Merged) -> tuple[Finished, Params]:
    cohort = tuple(Assignment(c, LocalWork(), Raw()) for c in CLIENTS)
    plan = RoundPlan(4, cohort, 1, len(CLIENTS))
    done = finish(job, plan, tmp_path / "model", tmp_path / "state", None, *notes)
    return done, checkpoints.read(tmp_path / "model", done.model)


def test_the_sum_of_a_site_is_weighted_by_samples(far: File, tmp_path: Path) -> None:
    """(3 * [1, 0, 0] + 1 * [0, 4, -4]) / 4 is added to [1, 2, 3]."""
    outcomes = [update(far, CLIENTS[0], 1, 0, 0, samples=3), update(far, CLIENTS[1], 0, 4, -4)]
    partial = merge_site(task(far), *outcomes)
    arrays, _ = wire.unpack(far.get(partial.refs[0]), partial.refs[0].checksum)
    assert arrays["w"].tolist() == [3.0, 4.0, -4.0]
    assert partial.merged.weight == 4
    job = folding(far)
    done, new = finished(job, tmp_path, fold_partial(job, 0, None, agreed(partial, "far", 4, outcomes)))
    assert new["w"].tolist() == [1.75, 3.0, 2.0]
    assert new["n"] == 7
    assert [u.client.index for u in done.updates] == [0, 1]
    (record,) = done.partials
    assert (record.site, record.updates) == ("far", 2)
    assert record.bytes_up == partial.refs[0].size
    assert record.in_result == 0
    assert record.bytes_there == sum(outcome.ref.size for outcome in outcomes)
    assert not far.has(partial.refs[0].path)


def test_a_site_s_sum_comes_after_the_updates_of_others(far: File, tmp_path: Path) -> None:
    packed = wire.pack({"w": np.array([2, 2, 2], np.float32)})
    ref = Inline().put("", packed.buffers, packed.checksum)
    job = folding(far)
    note = merge(job, 0, None, Update(HERE, 4, ref, 2, 1, 1, 2.0, 1.0, 12))
    outcomes = [update(far, CLIENTS[0], 6, 6, 6, samples=2)]
    note = fold_partial(job, 0, note, agreed(merge_site(task(far), *outcomes), "far", 4, outcomes))
    done, new = finished(job, tmp_path, note)
    assert new["w"].tolist() == [5.0, 6.0, 7.0]
    assert [u.client for u in done.updates] == [CLIENTS[0], HERE]


def test_a_merge_that_is_tried_again_finds_its_updates_and_gives_the_same_bits(far: File) -> None:
    rng = np.random.default_rng(0)
    outcomes = [update(far, c, *rng.normal(size=3), samples=int(rng.integers(1, 900))) for c in CLIENTS]
    job = task(far)
    assert merge_site(job, *outcomes).refs == merge_site(job, *outcomes).refs


def test_a_bad_update_is_refused_at_the_site_and_disturbs_nothing(far: File, tmp_path: Path) -> None:
    outcomes: list[Outcome] = [
        update(far, CLIENTS[0], 1, 1, 1),
        update(far, CLIENTS[1], np.nan, 0, 0),
        Failure(CLIENTS[2], 4, "lost", "its worker died"),
        update(far, CLIENTS[3], 3, 3, 3),
    ]
    partial = agreed(merge_site(task(far), *outcomes), "far", 4, outcomes)
    job = folding(far)
    done, new = finished(job, tmp_path, fold_partial(job, 0, None, partial))
    assert new["w"].tolist() == [3.0, 4.0, 5.0]
    assert [(f.client.index, f.kind) for f in done.failures] == [(1, "refused"), (2, "lost")]
    assert "NaN or Inf" in done.failures[0].reason


def test_a_site_whose_clients_all_failed_sends_no_sum(far: File) -> None:
    outcomes = [update(far, CLIENTS[0], np.inf, 0, 0)]
    partial = merge_site(task(far), *outcomes)
    assert partial.refs == ()
    note = fold_partial(folding(far), 0, None, agreed(partial, "far", 4, outcomes))
    assert [f.kind for f in note.failures] == ["refused"]
    assert note.partials == ()


@pytest.mark.parametrize(
    ("arrays", "why"),
    [
        ({"w": np.array([np.nan, 0, 0], np.float32)}, "NaN or Inf"),
        ({"w": np.array([1e16, 0, 0], np.float32)}, "has the norm 1e\\+16, more than the 3.5 that"),
        ({"w": np.full(3, 9, np.float32)}, "has the norm 15.6, more than the 3.5 that"),  # two of sqrt(3)
        ({"w": np.zeros(2, np.float32)}, "array 'w' is float32\\[2\\]"),
        ({"w": np.zeros(3, np.float64)}, "array 'w' is float64"),
        ({"v": np.zeros(3, np.float32)}, "holds the arrays"),
    ],
)
def test_a_bad_sum_is_refused_whole(far: File, arrays: Params, why: str) -> None:
    outcomes = [update(far, CLIENTS[0], 1, 1, 1), update(far, CLIENTS[1], 1, 1, 1)]
    partial = merge_site(task(far), *outcomes)
    packed = wire.pack(arrays)
    bad = replace(partial, refs=(far.put(partial.refs[0].path, packed.buffers, packed.checksum),))
    job = folding(far)
    note = fold_partial(job, 0, None, agreed(bad, "far", 4, outcomes))
    assert [(f.client.index, f.kind) for f in note.failures] == [(0, "refused"), (1, "refused")]
    assert re.search(f"the sum of site far: .*{why}", note.failures[0].reason)
    if "NaN" in why or "norm" in why:  # each update was found to be sound before
        assert "the site's merge or its transport is at fault" in note.failures[0].reason
        assert "sites.far.merge=driver" in note.failures[0].reason
    assert job.desk.sums(0, 0)["w"].tolist() == [0, 0, 0]
    assert note.weight == 0


def test_a_damaged_sum_and_one_at_another_place_are_refused(far: File) -> None:
    outcomes = [update(far, CLIENTS[0], 1, 1, 1)]
    partial = agreed(merge_site(task(far), *outcomes), "far", 4, outcomes)
    other = replace(partial, refs=(replace(partial.refs[0], path="models/4"),))
    assert "not its place" in fold_partial(folding(far), 0, None, other).failures[0].reason
    assert far.has("models/4")
    torn = replace(partial, refs=(replace(partial.refs[0], checksum="0" * 16),))
    assert "damaged on the way" in fold_partial(folding(far), 0, None, torn).failures[0].reason


def test_the_driver_keeps_its_own_record_of_what_clients_reported(far: File) -> None:
    """A site cannot change a client's weight: the driver reckons it from the client's own update."""
    outcomes = [update(far, CLIENTS[0], 1, 1, 1, samples=5)]
    partial = merge_site(task(far), *outcomes)
    forged = replace(partial.merged.updates[0], samples=10**9)
    answer = replace(partial, merged=replace(partial.merged, updates=(forged,), weight=1e9))
    note = fold_partial(folding(far), 0, None, agreed(answer, "far", 4, outcomes))
    assert (note.weight, note.updates[0].samples) == (5, 5)


@pytest.mark.parametrize(
    "wrong",
    ["text", "other round", "other site", "missing", "strange", "twice", "no evidence", "of what"],
)
def test_an_answer_to_another_question_is_refused(far: File, wrong: str) -> None:
    outcomes = [update(far, CLIENTS[0], 1, 1, 1), update(far, CLIENTS[1], 1, 1, 1)]
    partial = merge_site(task(far), *outcomes)
    first = partial.merged.updates[0]
    seen = partial.merged.evidence[:1]
    strange = replace(first, client=Client(8, "far"))
    answers: dict[str, object] = {
        "text": "yes",
        "no evidence": replace(partial, merged=replace(partial.merged, evidence=())),
        "of what": replace(partial, merged=replace(partial.merged, updates=(1, 2))),  # type: ignore[arg-type]
        "other round": replace(partial, round=3),
        "other site": replace(partial, site="here"),
        "missing": replace(partial, merged=Merged(1.0, (first,), (), seen)),
        "strange": replace(partial, merged=Merged(2.0, (first, strange), (), 2 * seen)),
        "twice": replace(partial, merged=Merged(2.0, (first, first), (), 2 * seen)),
    }
    with pytest.raises(PayloadError):
        agreed(answers[wrong], "far", 4, outcomes)
    with pytest.raises(PayloadError):
        reported(answers[wrong], "far", 4, CLIENTS[:2])


def test_a_sum_that_is_not_there_costs_every_update_of_the_site(far: File) -> None:
    died = Failure(CLIENTS[1], 4, "error", "RuntimeError: no")
    partial = nothing("far", 4, [update(far, CLIENTS[0], 1, 1, 1), died], "its block is gone")
    assert isinstance(partial, Partial)
    assert partial.merged.failures == (Failure(CLIENTS[0], 4, "lost", "its block is gone"), died)


@dataclass(frozen=True)
class Halving(FedAvg):
    """Wants the mean of the updates as they are, and of their halves."""

    def scales(self, evidence: Evidence) -> tuple[float, ...]:
        return (1.0, 0.5)


def test_a_strategy_of_two_scales_gets_two_sums(far: File) -> None:
    """3 * [1, 0, 0] + 1 * [0, 4, -4], and the half of it; the norms are 1 and sqrt(32)."""
    outcomes = [update(far, CLIENTS[0], 1, 0, 0, samples=3), update(far, CLIENTS[1], 0, 4, -4)]
    partial = agreed(merge_site(task(far, Halving()), *outcomes), "far", 4, outcomes)
    job = folding(far, Halving())
    note = fold_partial(job, 0, None, partial)
    assert job.desk.sums(0, 0)["w"].tolist() == [3, 4, -4]
    assert job.desk.sums(0, 1)["w"].tolist() == [1.5, 2, -2]
    assert [one.norm for one in note.evidence] == pytest.approx([1, 32**0.5])
    job = folding(far, Halving())
    one_of_two = replace(merge_site(task(far), *outcomes), merged=partial.merged)
    assert "brings 1 arrays of sums, not 2" in fold_partial(job, 0, None, one_of_two).failures[0].reason


@pytest.mark.parametrize("norm", [float("nan"), -1.0, 1e16, "1"])
def test_a_site_that_claims_impossible_norms_is_refused(far: File, norm: float) -> None:
    outcomes = [update(far, CLIENTS[0], 1, 1, 1)]
    partial = agreed(merge_site(task(far), *outcomes), "far", 4, outcomes)
    evidence = (replace(partial.merged.evidence[0], norm=norm),)
    bad = replace(partial, merged=replace(partial.merged, evidence=evidence))
    assert "claims an update of the norm" in fold_partial(folding(far), 0, None, bad).failures[0].reason
