"""A plan with each client's own codec and share of the model."""

from __future__ import annotations

from parslfl.codecs.cast import Fp16
from parslfl.codecs.raw import Raw
from parslfl.learning import LocalWork
from parslfl.messages import Assignment, Client, RoundPlan
from parslfl.planning.history import History, Record
from parslfl.planning.links import Ladder, Rung
from parslfl.planning.tailoring import tailored

FAST, SLOW, ABOARD = Client(0, "near"), Client(1, "far"), Client(2, "mpi")
PLAN = RoundPlan(3, tuple(Assignment(c, LocalWork(epochs=2), Fp16()) for c in (FAST, SLOW, ABOARD)), 1, 3)
LADDER = Ladder([Rung(Raw(), "raw", 1.0), Rung(Fp16(), "fp16", 0.5)], 1)
HISTORY = History(
    {
        FAST: Record("fp16", links=(1e9,), paces={1.0: (0.1,)}, steps=100),
        SLOW: Record("fp16", links=(1e6,), paces={1.0: (0.3,)}, steps=100),
        ABOARD: Record("raw", paces={1.0: (0.1,)}, steps=100),
    },
    {1.0: 1e7},
)


def test_nothing_is_chosen_that_is_not_asked_for() -> None:
    assert tailored(PLAN, HISTORY, None, shrink=False).cohort == PLAN.cohort


def test_codecs_alone_leave_the_work_as_it_is() -> None:
    fast, slow, aboard = tailored(PLAN, HISTORY, LADDER, shrink=False, unsent=["mpi"]).cohort
    assert [a.codec for a in (fast, slow, aboard)] == [Raw(), Fp16(), Raw()]
    assert {a.work for a in (fast, slow, aboard)} == {LocalWork(epochs=2)}
    assert slow.why == "link 1 MB/s, training 30 s: 5 s of transfer (raw: 10 s)"
    assert aboard.why == "its update stays at its site"


def test_shares_alone_leave_the_codec_as_it_is() -> None:
    made = tailored(PLAN, HISTORY, None, shrink=True).cohort
    assert [a.work for a in made] == [LocalWork(epochs=2, keep=keep) for keep in (1.0, 0.5, 1.0)]
    assert {a.codec for a in made} == {Fp16()}
    assert made[1].why == "3 x the median's seconds a step"


def test_both_are_chosen_together_the_codec_for_the_part_that_is_sent() -> None:
    """A quarter of 10 MB over 1 MB/s; three quarters of a second would be a tenth of the training."""
    _, slow, _ = tailored(PLAN, HISTORY, LADDER, shrink=True).cohort
    assert (slow.work.keep, slow.codec) == (0.5, Fp16())
    assert slow.why == (
        "3 x the median's seconds a step; link 1 MB/s, training 7.5 s: 1.2 s of transfer (raw: 2.5 s)"
    )


def test_the_rest_of_the_plan_stays() -> None:
    made = tailored(PLAN, HISTORY, LADDER, shrink=True)
    assert (made.round, made.quorum, made.close_at) == (3, 1, 3)
    assert made == tailored(PLAN, HISTORY, LADDER, shrink=True)
