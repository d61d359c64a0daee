"""What a person reads when a configuration is wrong."""

import copy
import pickle

import pytest

from dbconfig import ConfigError, DBConfigError, Location, Problem, ProfileNotFound
from dbconfig.config.document import parse
from dbconfig.errors.catalogue import CATALOGUE, CONFIGURATION
from dbconfig.errors.printable import display_width, printable, quoted
from dbconfig.settings.located_values import Source

TEXT = Source("config/production.yaml", "pool_size: 20\nmax_overflw: 40\n")


def at(line: int, column: int, width: int = 1) -> Location:
    return Location("config/production.yaml", line, column, width=width, text=TEXT)


def test_a_problem_is_told_with_its_place_its_line_a_caret_and_what_to_do():
    problem = Problem(
        "unknown-key",
        "unknown key 'max_overflw'",
        at(2, 1, 11),
        "max_overflw",
        "did you mean 'max_overflow'?",
        ("it was seen before",),
        "not a setting of a database",
    )
    assert str(problem) == (
        "error[unknown-key]: unknown key 'max_overflw'\n"
        "  --> config/production.yaml:2:1  (max_overflw)\n"
        "  |\n"
        "1 | pool_size: 20\n"
        "2 | max_overflw: 40\n"
        "  | ^^^^^^^^^^^ not a setting of a database\n"
        "  |\n"
        "  = note: it was seen before\n"
        "  = help: did you mean 'max_overflow'?"
    )


def test_a_problem_of_no_file_is_told_without_an_excerpt():
    problem = Problem(
        "empty-variable", "it is empty", Location("environment", variable="DBCONFIG_ECHO"), "echo", "unset it"
    )
    assert str(problem) == (
        "error[empty-variable]: it is empty\n  --> DBCONFIG_ECHO, environment  (echo)\n  = help: unset it"
    )
    assert str(Problem("no-config", "there is none")) == "error[no-config]: there is none"


def test_all_problems_stand_in_one_error_sorted_by_position():
    later, earlier, nowhere = (
        Problem("x", "later", at(10, 2)),
        Problem("x", "earlier", at(9, 7)),
        Problem("x", "nowhere"),
    )
    error = ConfigError([later, nowhere, earlier])
    assert error.problems == (nowhere, earlier, later)
    assert str(error) == "\n\n".join(str(problem) for problem in (nowhere, earlier, later))


def test_what_people_already_catch_catches_ours():
    assert issubclass(ConfigError, ValueError)
    assert issubclass(ConfigError, DBConfigError)
    assert issubclass(ProfileNotFound, ConfigError)


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))])
def test_an_error_travels_between_processes_with_its_problems(again):
    error = again(ProfileNotFound([Problem("unknown-profile", "there is none", at(2, 1))]))
    assert type(error) is ProfileNotFound
    assert error.problems[0].slug == "unknown-profile"
    assert str(error.problems[0].location) == "config/production.yaml:2:1"


def test_a_pickled_error_carries_no_text_of_the_file():
    assert b"max_overflw" not in pickle.dumps(ConfigError([Problem("x", "y", at(2, 1))]))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("a\x1b[31mb\n", "a\\x1b[31mb\\n"),
        ("\u202eabc", "\\u202eabc"),
        ("\ud800", "\\ud800"),
        ("x" * 200, "x" * 79 + "…"),
    ],
)
def test_foreign_text_cannot_move_the_cursor_or_flood_a_log(text, shown):
    assert printable(text) == shown
    assert quoted(text) == f"'{shown}'"


def test_a_caret_stands_below_wide_characters_where_a_terminal_shows_them():
    assert display_width("a漢字") == 5


def test_of_a_long_line_the_part_that_is_meant_is_shown():
    pairs = [f"a{number}: 1" for number in range(200)]
    root, _ = parse("x: {" + ", ".join(pairs) + "}\n", "a.yaml")
    *_, line, caret, _ = str(Problem("x", "y", root.entries["x"].node.entries["a100"].key)).splitlines()
    assert line[caret.index("^") :].startswith("a100: 1, ")
    assert len(line) < 170


def test_every_kind_of_problem_has_a_description():
    assert all(entry.meaning.endswith(".") and entry.example and entry.fix for entry in CATALOGUE.values())
    assert list(CONFIGURATION) == sorted(CONFIGURATION)
