from __future__ import annotations

import pytest

from parslfl.commands.flags import FIELDS, FLAGS, Flag, Parser, add
from parslfl.errors import ConfigError
from parslfl.experiment import Experiment


def parser() -> Parser:
    made = Parser(prog="p", defaults={"lr": "5%"})
    add(made, FLAGS)
    return made


def test_a_flag_that_is_not_given_says_nothing() -> None:
    given = vars(parser().parse_args([]))
    assert {value for value in given.values() if value is not False} == {None}


def test_values_stay_as_written() -> None:
    args = parser().parse_args(["--lr", "abc", "--rounds", "-3", "--set", "a=1", "--set", "b=2", "--resume"])
    assert (args.lr, args.rounds, args.set, args.resume) == ("abc", "-3", ["a=1", "b=2"], True)


def test_every_field_of_an_experiment_has_a_flag() -> None:
    only_in_files = {"name", "evaluate_on"}
    assert set(FIELDS) == set(Experiment.model_fields) - only_in_files


def test_flags_are_not_guessed_from_their_beginning() -> None:
    with pytest.raises(ConfigError, match=r"unknown argument --round 3 \(did you mean '--rounds'\?\)"):
        parser().parse_args(["--round", "3"])


def test_a_word_too_many_is_refused_without_a_guess() -> None:
    with pytest.raises(ConfigError, match=r"^unknown argument extra; p --help"):
        parser().parse_args(["extra"])


def test_help_takes_a_percent_sign_in_a_default() -> None:
    assert "learning rate (default: 5%)" in parser().format_help()


def test_two_site_files_are_refused() -> None:
    assert parser().parse_args(["--site", "a.yaml"]).site == "a.yaml"
    with pytest.raises(ConfigError, match="--site was given twice: one file lists all sites of a run"):
        parser().parse_args(["--site", "a.yaml", "--site", "b.yaml"])


def test_help_may_be_asked_for_twice() -> None:
    one = parser()
    assert one.format_help() == one.format_help()


def test_every_group_has_its_flags() -> None:
    made = Parser(prog="p")
    add(made, [Flag("--a", "where", "an a", "A"), Flag("--b", "this run", "a b", action="store_true")])
    text = made.format_help()
    assert "where:\n  --a A" in text
    assert "this run:\n  --b" in text
    assert "who takes part" not in text
