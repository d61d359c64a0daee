"""The environment, and a `.env` beneath it."""

import os
import pickle

import pytest

from dbconfig.errors import ConfigError
from dbconfig.settings.environment_variables import Environment


def test_the_environment_is_above_the_file_and_each_variable_knows_its_place(tmp_path):
    (tmp_path / ".env").write_text("A=file\nB=file\n")
    environment = Environment({"A": "process"}, tmp_path / ".env")
    assert [(environment.get(name).value, str(environment.get(name).location)) for name in "AB"] == [
        ("process", "A, environment"),
        ("file", "B, .env:2"),
    ]
    assert environment.get("C") is None
    assert list(environment) == ["A", "B"]


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("A=b", "b"),
        ('A="b c"', "b c"),
        ("A='b#c'", "b#c"),
        ("export A=b", "b"),
        ("A = b", "b"),
        ("A=b # comment", "b"),
        ("A=b#c", "b#c"),
        ('A="p@ss:w/o%r#d?$x"', "p@ss:w/o%r#d?$x"),
        ("A='postgresql://u:p@h/d?a=b'", "postgresql://u:p@h/d?a=b"),
        ("A=", ""),
        ("\ufeffA=b", "b"),
        ("A=b\r", "b"),
    ],
)
def test_a_line_is_read_as_people_write_it(tmp_path, line, value):
    (tmp_path / ".env").write_text(line + "\n", encoding="utf-8", newline="")
    assert Environment({}, tmp_path / ".env").get("A").value == value


def test_lines_that_are_none_are_told_by_number_and_not_repeated(tmp_path):
    (tmp_path / ".env").write_text("A=1\nhunter\n# fine\n=hunter\n'hunter\n")
    with pytest.raises(ConfigError) as caught:
        Environment({}, tmp_path / ".env")
    assert [(problem.slug, str(problem.location)) for problem in caught.value.problems] == [
        ("dotenv-syntax", ".env:2"),
        ("dotenv-syntax", ".env:4"),
        ("dotenv-syntax", ".env:5"),
    ]
    assert "hunter" not in str(caught.value)


def test_a_file_that_is_no_utf_8_is_refused_without_its_bytes(tmp_path):
    (tmp_path / ".env").write_bytes(b"A=hunter\xe9\n")
    with pytest.raises(ConfigError) as caught:
        Environment({}, tmp_path / ".env")
    assert str(caught.value) == "error[file-unreadable]: .env cannot be read: it is not UTF-8 text\n  --> .env"
    assert caught.value.__context__ is None


def test_a_variable_of_the_process_is_read_when_it_is_asked_for(monkeypatch):
    environment = Environment()
    monkeypatch.setenv("DBTEST_LATE", "x")
    assert environment.get("DBTEST_LATE").value == "x"


def test_nothing_of_an_environment_is_printed_or_pickled(tmp_path):
    (tmp_path / ".env").write_text("A=hunter\n")
    environment = Environment({"B": "hunter"}, tmp_path / ".env")
    assert repr(environment) == "<environment of 1 variables, 1 beneath>"
    assert "hunter" not in repr(environment.get("A"))
    assert b"hunter" not in pickle.dumps(environment)
    assert "A" not in os.environ


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("A=${ABOVE}/${EARLIER}", "above/earlier"),
        ('A="${ABOVE} x"', "above x"),
        ("A='${ABOVE}'", "${ABOVE}"),
        ("A=${BOTH}", "above"),
        ("A=${NONE:-two}${NONE-three}${EMPTY:-four}", "twothreefour"),
        ("A=<${EMPTY-five}>${EARLIER:+six}${NONE:+seven}", "<>six"),
        ("A=$ABOVE", "$ABOVE"),  # python-dotenv leaves it, and in a password it is text
    ],
)
def test_references_in_a_file_are_expanded_as_compose_and_python_dotenv_do(tmp_path, line, value):
    (tmp_path / ".env").write_text(f"EARLIER=earlier\nBOTH=file\n{line}\n")
    found = Environment({"ABOVE": "above", "BOTH": "above", "EMPTY": ""}, tmp_path / ".env").get("A")
    assert (found.value, found.missing, found.unexpanded()) == (value, (), "")


@pytest.mark.parametrize("line", ["A=x${NONE}", "A=${NONE:?set it}", "B=${NONE}\nA=${B}"])
def test_a_reference_to_what_is_not_set_is_told_where_the_variable_is_used(tmp_path, line):
    (tmp_path / ".env").write_text(line + "\n")
    assert Environment({}, tmp_path / ".env").get("A").missing == ("NONE",)


def test_a_file_that_is_too_large_or_none_is_refused_at_once(tmp_path):
    (tmp_path / ".env").write_text("A=1\n" * 100_000)
    with pytest.raises(ConfigError) as caught:
        Environment({}, tmp_path / ".env")
    assert caught.value.problems[0].slug == "too-large"
    (tmp_path / ".env").unlink()
    os.mkfifo(tmp_path / ".env")
    with pytest.raises(ConfigError, match="not a regular file"):
        Environment({}, tmp_path / ".env")
    (tmp_path / ".env").unlink()
    (tmp_path / ".env").mkdir()  # a virtual environment by that name
    assert list(Environment({}, tmp_path / ".env")) == []
