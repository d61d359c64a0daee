"""What of a statement may be shown: never what is written into it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbconfig.engine.statement_text import LONGEST_TEXT, is_single, operation, shown, summary


@pytest.mark.parametrize(
    ("dialect", "statement", "expected"),
    [
        ("postgresql", "SELECT a FROM t WHERE b = 'planted'", "SELECT a FROM t WHERE b = ?"),
        ("postgresql", "SELECT 'it''s' , 1.5, -2e3", "SELECT ? , ?, -?"),
        ("postgresql", r"SELECT 'abc\' , 'planted'", "SELECT ? , ?"),
        ("postgresql", r"SELECT E'a\'planted' , 1", "SELECT ? , ?"),
        ("postgresql", "SELECT $$planted$$, $x$ a $$ planted $x$", "SELECT ?, ?"),
        ("postgresql", "SELECT $1::int, t1.c2 FROM t1", "SELECT $1::int, t1.c2 FROM t1"),
        ("postgresql", "SELECT %(name_1)s -- planted\n, 'a--b', 'planted'", "SELECT %(name_1)s , ?, ?"),
        ("postgresql", "/* it's planted */ SELECT \"it's\", 'planted'", 'SELECT "it\'s", ?'),
        ("mysql", r"SELECT 'a\'planted', `it's`, " + '"planted" # planted', "SELECT ?, `it's`, ?"),
        ("sqlite", "SELECT x'706c', ?, :name LIMIT 10", "SELECT ?, ?, :name LIMIT ?"),
    ],
)
def test_literals_and_comments_are_left_out(dialect: str, statement: str, expected: str) -> None:
    assert shown(statement, dialect) == expected


@given(st.text(max_size=40))
def test_no_text_between_quotes_is_shown(planted: str) -> None:
    for dialect, written in (("postgresql", planted.replace("'", "''")), ("mysql", planted.replace("\\", "\\\\"))):
        statement = f"SELECT '{written.replace(chr(39), chr(39) * 2) if dialect == 'mysql' else written}', 1"
        assert shown(statement, dialect) == "SELECT ?, ?"


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("SELECT hero.id FROM hero JOIN team ON true", "SELECT hero team"),
        ("insert into hero (name) values ('FROM planted')", "INSERT hero"),
        ('UPDATE ONLY "Hero" SET a = 1', "UPDATE Hero"),
        ("DELETE FROM app.hero WHERE 1=1", "DELETE app.hero"),
        ("CREATE TABLE IF NOT EXISTS t (x INT)", "CREATE t"),
        ("(SELECT 1) UNION (SELECT 2)", "SELECT"),
        ("BEGIN", "BEGIN"),
        ("", "UNKNOWN"),
    ],
)
def test_a_summary_names_what_is_done_to_which_tables(statement: str, expected: str) -> None:
    assert summary(statement, "postgresql") == expected
    assert operation(statement) == expected.partition(" ")[0]


def test_long_statements_are_cut() -> None:
    assert len(shown(f"SELECT {'a, ' * 10_000}b", "sqlite")) == LONGEST_TEXT
    assert len(summary("SELECT 1 FROM " + " JOIN ".join(f"t{n}" for n in range(500)), "sqlite")) == 255


@pytest.mark.parametrize(
    ("statement", "dialect", "single"),
    [
        ("SELECT 1", "postgresql", True),
        ("SELECT 1 ; ", "postgresql", True),
        ("SELECT ';' /* ; */ -- ;", "postgresql", True),
        ('SELECT $$;$$, ";"', "postgresql", True),
        ("SELECT 1; DELETE FROM t", "postgresql", False),
        ("SELECT 1 -- \n; DELETE FROM t", "postgresql", False),
        ("SELECT " + "1 + " * LONGEST_TEXT + "1; DELETE FROM t", "postgresql", False),
        ("SELECT ';', \";\" # ;", "mysql", True),
        ("SELECT 'it\\'s; so'", "mysql", True),
        ("SELECT 5--3; DELETE FROM t", "mysql", False),
    ],
)
def test_a_text_is_one_statement_or_several(statement: str, dialect: str, single: bool) -> None:
    assert is_single(statement, dialect) is single
