"""Blocks' times, worked by hand."""

from __future__ import annotations

from parslfl_executors.ledger import Account, Event, Ledger, bursts


def manager(name: str, block: str, workers: int, tasks: int) -> dict[str, object]:
    return {"manager": name, "block_id": block, "worker_count": workers, "tasks": tasks}


def test_a_block_from_asking_to_its_end() -> None:
    """Asked at 100, started at 103, workers at 105, one of two at work until 109, ended at 111."""
    ledger = Ledger()
    ledger.asked("0", 100)
    assert ledger.account(102) == Account(blocks=0, queued=2)
    ledger.started("0", 103)
    assert ledger.account(104) == Account(1, queued=3, starting=1)
    assert ledger.look([manager("a", "0", 2, 1)], 105)
    assert not ledger.look([manager("a", "0", 2, 0)], 109)
    assert ledger.account(110) == Account(1, queued=3, starting=2, ready=5, idle=4 / 2 + 1)
    assert ledger.ended("0", 111)
    assert not ledger.ended("0", 112)
    assert not ledger.look([manager("a", "0", 2, 0)], 113)  # Parsl still lists it
    assert ledger.account(120) == Account(1, queued=3, starting=2, ready=6, idle=4 / 2 + 2)


def test_blocks_are_summed_and_two_managers_share_a_block() -> None:
    ledger = Ledger()
    ledger.asked("0", 0)
    ledger.asked("1", 0)
    ledger.started("0", None)
    ledger.look([manager("a", "0", 1, 1), manager("b", "0", 3, 0)], 2)
    assert ledger.account(6) == Account(1, queued=6, starting=2, ready=4, idle=4 * 0.75)
    assert (ledger.home("b"), ledger.home("c")) == ("0", "")


def test_a_block_that_never_starts_waits_until_it_is_over() -> None:
    ledger = Ledger()
    ledger.asked("0", 10)
    ledger.ended("0", 15)
    assert ledger.account(30) == Account(queued=5)


def test_a_start_before_the_asking_is_the_schedulers_rounding() -> None:
    ledger = Ledger()
    ledger.asked("0", 10.6)
    ledger.started("0", 10.0)
    ledger.look([manager("a", "0", 1, 1)], 12.6)
    assert ledger.account(12.6) == Account(1, starting=2.0)


def test_a_workers_look_before_the_schedulers_word_counts_as_waiting() -> None:
    ledger = Ledger()
    ledger.asked("0", 0)
    ledger.look([manager("a", "0", 1, 1)], 5)
    before = ledger.account(5)
    ledger.started("0", 2)
    assert before == Account(1, queued=5)
    assert ledger.account(6).since(before) == Account(0, starting=3, ready=1)


def test_what_was_never_asked_for_is_passed_over() -> None:
    ledger = Ledger()
    ledger.started("7", 1)
    assert not ledger.look([manager("a", "7", 1, 0)], 2)
    assert not ledger.ended("7", 3)
    assert ledger.account(4) == Account()


def test_events_are_told_once() -> None:
    ledger = Ledger()
    ledger.tell(Event(1, "lost", "0", task=3))
    assert ledger.take() == (Event(1, "lost", "0", task=3),)
    assert ledger.take() == ()


def test_equal_refusals_are_one_burst() -> None:
    said = [(1.0, "HTTP 500"), (1.5, "HTTP 429"), (4.0, "HTTP 500"), (5.5, "HTTP 500")]
    assert bursts(said) == (
        Event(1.0, "HTTP 500 (3 times within 4.5 s; asked again)"),
        Event(1.5, "HTTP 429 (once; asked again)"),
    )
    assert bursts([]) == ()
