"""SQL texts read as their statements: comments, quoted values, and what a server executes in a comment."""

from __future__ import annotations

from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbconfig.engine.statement_parts import first_word_at, parts
from dbconfig.engine.transaction_statements import begins_with_an_end, commits_implicitly, ends_transaction
from dbconfig.engine.writing_statements import Effect, effect


@pytest.mark.parametrize(
    ("system", "text", "expected"),
    [
        ("postgresql", "SELECT 1; COMMIT", ["SELECT 1", "COMMIT"]),
        ("postgresql", "SELECT ';' ; ;", ["SELECT ';'"]),
        ("postgresql", "SELECT 'a long; text'", ["SELECT ''"]),
        ("postgresql", "SELECT $x$ a; b $x$; END", ["SELECT ''", "END"]),
        ("postgresql", "DO $$ BEGIN COMMIT; END $$", ["DO  BEGIN COMMIT; END"]),
        ("postgresql", "DO 'BEGIN COMMIT; END'", ["DO 'BEGIN COMMIT; END'"]),
        ("postgresql", "DOUBLE 'a long; text'", ["DOUBLE ''"]),
        ("postgresql", "/* a */ DO $$ long; code $$", ["DO  long; code"]),
        ("postgresql", "/* /* ; */ ; */ SELECT 1 -- ; x", ["SELECT 1"]),
        ("postgresql", r"SELECT E'\'; long' , 'b\'; COMMIT", ["SELECT '' , 'b\\'", "COMMIT"]),
        ("postgresql", 'SELECT "a;b""; c"', ['SELECT "a;b""; c"']),
        ("postgresql", "/* never closed; COMMIT", []),
        ("mysql", "SELECT 1 # ; x\n; COMMIT", ["SELECT 1", "COMMIT"]),
        ("mysql", "/*!50000 COMMIT */", ["COMMIT"]),
        ("mysql", "/*M! COMMIT */", ["COMMIT"]),
        ("mysql", "SELECT 5--3; COMMIT", ["SELECT 5--3", "COMMIT"]),
        ("mysql", r"SELECT 'it\'s; long', `a``;b`", ["SELECT '', `a``;b`"]),
        ("sqlite", "SELECT [a;b], `c;d`, 'a long; text' -- ;", ["SELECT [a;b], `c;d`, ''"]),
        ("sqlite", "SELECT 1 /* ;", ["SELECT 1"]),
        ("oracle", "SELECT 1; COMMIT", ["SELECT 1", "COMMIT"]),
    ],
)
def test_a_text_is_read_as_its_statements(system: str, text: str, expected: list[str]) -> None:
    assert list(parts(text, system)) == expected


@pytest.mark.parametrize(
    ("system", "text"),
    [
        ("postgresql", "COMMIT"),
        ("postgresql", " ;-- why\n/* a */ commit"),
        ("postgresql", "SELECT 1; ABORT"),
        ("postgresql", "SELECT 'a;'; -- b\nROLLBACK"),
        ("mysql", "/*!50000 COMMIT */"),
        ("mysql", "/*!COMMIT*/"),
        ("mysql", "# why\nCOMMIT"),
        ("mysql", "SELECT 1; /*! ROLLBACK */"),
        ("mysql", "SET autocommit = 1"),
    ],
)
def test_an_end_of_the_transaction_is_found(system: str, text: str) -> None:
    assert ends_transaction(text, system)
    assert begins_with_an_end(text, system) == (not text.startswith("SELECT"))


@pytest.mark.parametrize(
    ("system", "text"),
    [
        ("postgresql", "ROLLBACK TO SAVEPOINT a"),
        ("postgresql", "SELECT ';COMMIT'"),
        ("postgresql", "SELECT 1 /* ; COMMIT */"),
        ("postgresql", "SELECT 1 /* /* a */ ; COMMIT */"),
        ("postgresql", "-- ; COMMIT"),
        ("mysql", "SELECT 1 # ; COMMIT"),
        ("mysql", "CREATE PROCEDURE p() BEGIN COMMIT; END"),
        ("mysql", "BEGIN NOT ATOMIC SELECT 1; COMMIT; END"),
        ("sqlite", "SELECT [a; COMMIT]"),
    ],
)
def test_no_end_is_found_where_there_is_none(system: str, text: str) -> None:
    assert not ends_transaction(text, system)


def test_what_mysql_executes_in_a_comment_commits_implicitly() -> None:
    assert commits_implicitly("/*!40101 CREATE TABLE t (id INT) */", "mysql")
    assert not commits_implicitly("/* CREATE TABLE t (id INT) */ SELECT 1", "mysql")


@pytest.mark.parametrize("name", ["set_config", "SET_CONFIG", "Set_Config"])
def test_a_function_that_lets_a_session_write_is_found_in_any_case(name: str) -> None:
    assert effect(f"SELECT {name}('default_transaction_read_only', 'off', false)", "postgresql") is Effect.WRITES


@given(st.text(alphabet="ab'\"`$;-#/*!\\ \n1eE[]", max_size=60), st.sampled_from(["postgresql", "mysql", "sqlite"]))
def test_any_text_is_read(text: str, system: str) -> None:
    found = list(parts(text, system))
    assert all(each == each.strip() and each for each in found)
    assert 0 <= first_word_at(text, system) <= len(text)
    ends_transaction(text, system)


@pytest.mark.parametrize("system", ["postgresql", "mysql", "sqlite"])
@pytest.mark.parametrize("piece", ["'a long value', ", "/* a */ ", "1; ", '"a" ', "-- a\n"])
def test_the_time_grows_with_the_length_and_not_its_square(system: str, piece: str) -> None:
    def seconds(count: int) -> float:
        text = "DELETE FROM t WHERE a IN (" + piece * count
        began = process_time()
        list(parts(text, system))
        return process_time() - began

    short, long = (min(seconds(count) for _ in range(3)) for count in (2_000, 32_000))
    assert long < 16 * 6 * max(short, 0.001)  # of a square it would be 256 times as long
