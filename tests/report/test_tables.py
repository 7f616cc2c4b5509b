from __future__ import annotations

from dataclasses import replace

from rich.console import Console

from parslfl.learning import Personal
from parslfl.messages import Client, Failure
from parslfl.report import tables
from parslfl.report.progress import Own, Row
from parslfl.reports import Incident, SiteTimes


def row(round: int, accuracy: float | None = None, failures: tuple[Failure, ...] = ()) -> Row:
    return Row(round, 19, failures, 1.25, 5_000_000, 4_700_000, 61.0, accuracy, accuracy and 2.0)


def shown(rows: list[Row], last: int | None = None) -> str:
    console = Console(width=80, force_terminal=False)
    with console.capture() as capture:
        tables.show(rows, console, last)
    return capture.get()


def test_a_run_as_a_table_with_totals() -> None:
    text = shown([row(0, 0.1), row(1, 0.4), row(2, 0.3)])
    assert "40.0 %   2.000   1.250        19        0    5.0   4.7   1 min 1 s" in text
    assert "3 rounds took 3 min 3 s" in text
    assert "accuracy 30.0 % after round 3, best 40.0 % after round 2" in text
    assert "57 updates, 0 failures" in text
    assert "15.0 MB down to clients, 14.1 MB up from them" in text
    assert "…" not in text


def test_failures_are_told_once_a_cause() -> None:
    lost = tuple(
        Failure(Client(index, "here"), 1, "lost", "its worker died\nat length") for index in range(9)
    )
    text = shown([row(0), row(1, failures=lost)])
    assert text.count("its worker died") == 1
    assert "here/0 (2)" in text
    assert "at length" not in text
    assert "and 3 more" in " ".join(text.split())


def test_notes_are_told_once_with_the_clients_they_are_of() -> None:
    noted = tuple((Client(index, "here"), "residual of round 1 is gone: from zeros") for index in range(8))
    text = " ".join(shown([row(0), replace(row(1), notes=noted)]).split())
    assert text.count("residual of round 1 is gone: from zeros") == 1
    assert "here/0 (2), here/1 (2)" in text
    assert "and 2 more:" in text


def test_what_a_strategy_did_not_hold_is_told_once_with_the_rounds() -> None:
    said = "cuts nothing off 4 updates: their plain mean"
    text = " ".join(shown([row(0), *(replace(row(number), caution=said) for number in (1, 4))]).split())
    assert f"the strategy {said} (in rounds 2, 5)" in text


def test_clients_own_models_are_told_of_the_last_round_that_has_them() -> None:
    found = [Personal(1.0, 0.5, 10), Personal(0.75, 0.25, 10)]
    text = " ".join(
        shown([replace(row(0), own=Own.of(found[:1])), replace(row(1), own=Own.of(found))]).split()
    )
    assert (
        "own models of 2 clients in round 2: accuracy 87.5 % on average, 75.0 % at worst; "
        "the global one there 37.5 % and 25.0 %"
    ) in text
    assert "in round 1:" not in text
    assert Own.of([]) is None


def test_what_compression_saved_is_told() -> None:
    text = " ".join(shown([replace(row(0), raw_up=470_000_000)]).split())
    assert "4.7 MB up from them, 100.0 times fewer than their 470 MB" in text
    assert "times fewer" not in shown([replace(row(0), raw_up=4_700_000)])


def test_what_differences_saved_is_told() -> None:
    text = " ".join(shown([replace(row(0), raw_down=500_000_000, raw_up=470_000_000)]).split())
    assert (
        "5.0 MB down to clients, 100.0 times fewer than the whole models' 500 MB, "
        "4.7 MB up from them, 100.0 times fewer than their 470 MB"
    ) in text


def test_only_the_last_rounds() -> None:
    text = shown([row(number) for number in range(30)], last=20)
    assert "the last 20 of 30 rounds" in text
    assert "30 rounds took" in text
    assert "\n    10 " not in text
    assert "\n    11 " in text


def test_sites_are_summed_over_rounds() -> None:
    first = replace(row(0), sites=(SiteTimes("hpc", 2, 1.0, 4.0, 10.0, 2.0, 0.5, 9.0), SiteTimes("cloud")))
    second = replace(row(1), sites=(SiteTimes("hpc", 1, 0.5, 2.0, 30.0, 8.0, 0.5, 80.0),))
    words = " ".join(shown([first, second]).split())
    assert "hpc 3 1.5 s 6.0 s 1.0 s 1 min 29 s 10 s (25%)" in words
    assert "cloud 0 0.0 s 0.0 s 0.0 s 0.0 s -" in words


def test_incidents_are_told_with_whose_training_was_done_again() -> None:
    hit = tuple(Client(index, "hpc") for index in range(8))
    told = (Incident("hpc", 1.0, "job 7: scancel", hit), Incident("cloud", 2.0, "HTTP [500]"))
    words = " ".join(shown([row(0), replace(row(1), incidents=told)]).split())
    assert "2 hpc job 7: scancel hpc/0, hpc/1," in words
    assert "and 2 more" in words
    assert "2 cloud HTTP [500] -" in words


def test_no_round_yet() -> None:
    assert shown([]).strip() == "no round has finished"
